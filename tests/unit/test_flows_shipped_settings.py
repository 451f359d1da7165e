"""The settings files that are shipped: all of them load, and the demo's two copies say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

import flows
from flows.demo_settings import DEMO_SETTINGS
from flows.settings import Settings
from flows.settings_layers import load_settings
from flows.steps.evidence import load_prompts

CHECKOUT = Path(flows.__file__).parent.parent
EXAMPLES = sorted(path.parent for path in CHECKOUT.glob("examples/*/semalign.toml"))


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_loads_and_its_prompts_allow_what_it_reads(folder):
    settings = load_settings(folder / "semalign.toml", (), {"SEMALIGN_DATA": "/data"}, folder)
    assert settings.source.items and settings.source.interactions
    load_prompts(settings.profiles)


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
