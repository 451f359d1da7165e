"""The settings files that are shipped: all of them load, and the demo's two copies say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

import flows
from flows.demo_settings import DEMO_SETTINGS
from flows.model_choices import choices_of
from flows.settings import Settings
from flows.settings_layers import load_settings
from flows.steps.evidence import load_prompts
from flows.steps.model_checks import needs_language

CHECKOUT = Path(flows.__file__).parent.parent
EXAMPLES = sorted(CHECKOUT.glob("examples/*/*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_example_loads_and_its_prompts_models_and_training_allow_what_it_says(path):
    settings = load_settings(path, (), {"SEMALIGN_DATA": "/data"}, path.parent)
    assert settings.source.items and settings.source.interactions
    load_prompts(settings.profiles)
    specs = [str(settings.model["name"]), *settings.models, *settings.evaluation.baselines]
    needs_language(choices_of(specs, [], settings), settings)


def test_the_committed_defaults_are_the_defaults(tmp_path):
    committed = load_settings(CHECKOUT / "semalign.toml", (), {}, tmp_path).identity()
    defaults = load_settings(None, (), {}, tmp_path).identity()
    committed["training"].pop("epochs")  # written out for the reader; rec_models has the same default
    assert committed == defaults


def test_the_demo_writes_what_its_example_shows(tmp_path):
    (tmp_path / "semalign.toml").write_text(DEMO_SETTINGS, encoding="utf-8")
    written = load_settings(tmp_path / "semalign.toml", (), {}, tmp_path)
    shown = load_settings(CHECKOUT / "examples" / "demo" / "semalign.toml", (), {}, tmp_path)
    assert without_places(written) == without_places(shown)


def without_places(settings: Settings) -> dict[str, object]:
    return settings.model_dump(mode="json", exclude={"source": {"interactions", "items", "users"}, "warehouse": True})
