"""The shipped examples: settings that load, models that exist, paths that follow SEMALIGN_DATA, no personal file."""

from pathlib import Path

import pytest

from flows.model_choices import run_choices
from flows.settings_layers import load_settings
from rec_models import parse_config, parse_evaluation, parse_training

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ["amazon_baby", "amazon_book", "amazon_sports", "citeulike_a", "demo", "movielens_100k", "steam"]
# these are read as their publishers have them
FILES = {"amazon_baby": ("baby/*.txt", "baby/text_feat.npy")}


def test_every_folder_is_an_example_with_settings_and_a_readme() -> None:
    assert sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir()) == NAMES
    assert all((EXAMPLES / name / file).is_file() for name in NAMES for file in ("semalign.toml", "README.md"))


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_load_and_name_a_model_that_reads_language(name: str, tmp_path: Path) -> None:
    settings = load_settings(EXAMPLES / name / "semalign.toml", environ={"SEMALIGN_DATA": str(tmp_path)})
    assert parse_config(settings.model).reads_language
    parse_training(settings.training)
    parse_evaluation({"protocol": settings.evaluation.protocol, "ks": list(settings.evaluation.ks)})
    for choice in run_choices(settings):
        parse_config(choice.mapping)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "demo"])
def test_the_data_is_looked_for_where_semalign_data_says(name: str, tmp_path: Path) -> None:
    source = load_settings(EXAMPLES / name / "semalign.toml", environ={"SEMALIGN_DATA": str(tmp_path)}).source
    interactions, items = FILES.get(name, (f"{name}/interactions.parquet", f"{name}/items.parquet"))
    assert source.interactions == str(tmp_path / interactions)
    assert source.items == str(tmp_path / items)
    fallback = load_settings(EXAMPLES / name / "semalign.toml", environ={}).source
    assert Path(str(fallback.items)).resolve() == EXAMPLES.parents[1] / "shared" / "data" / items


@pytest.mark.parametrize("name", NAMES)
def test_no_example_reads_a_file_of_persons(name: str) -> None:
    users = load_settings(EXAMPLES / name / "semalign.toml", environ={}).source.users
    assert users is None or name == "demo"


def test_titles_alone_are_one_set_away_for_citeulike() -> None:
    settings = load_settings(
        EXAMPLES / "citeulike_a" / "semalign.toml", overrides=['profiles.attributes=["title"]'], environ={}
    )
    assert settings.profiles.attributes == ("title",)


@pytest.mark.parametrize("name", NAMES)
def test_every_readme_gives_commands_and_says_where_the_data_comes_from(name: str) -> None:
    text = (EXAMPLES / name / "README.md").read_text("utf-8")
    assert "semalign compare --config examples/" in text
    assert "generated" in text if name == "demo" else "**Source.**" in text and "**Terms" in text
