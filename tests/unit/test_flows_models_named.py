"""Model specifications: names, overrides, alternatives, grids."""

from __future__ import annotations

import pytest

from flows.errors import SettingSyntaxError
from flows.model_choices import choices_of, run_choices
from flows.settings_layers import validated

SETTINGS = validated(
    {
        "model": {"name": "dmrec", "base": {"name": "mult_vae", "kl_weight": 0.5}, "matching": {"name": "mddm"}},
        "models": {"ease": {"regularization": 5000.0}},
        "evaluation": {"baselines": ["mult_vae", "ease", "popularity"]},
    }
)


def labels(specs: list[str], grids: list[str] | None = None) -> list[str]:
    return [choice.label for choice in choices_of(specs, grids or [], SETTINGS)]


def test_a_run_trains_its_model_first_then_its_baselines():
    assert [(choice.label, choice.role) for choice in run_choices(SETTINGS)] == [
        ("dmrec", "model"),
        ("mult_vae", "base"),
        ("ease", "baseline"),
        ("popularity", "baseline"),
    ]


def test_the_base_alone_has_the_settings_it_has_inside_the_model():
    [choice] = choices_of(["mult_vae"], [], SETTINGS)
    assert choice.mapping == {"name": "mult_vae", "kl_weight": 0.5}


def test_a_models_table_gives_the_defaults_of_its_name():
    [choice] = choices_of(["ease"], [], SETTINGS)
    assert choice.mapping == {"name": "ease", "regularization": 5000.0}


def test_commas_and_repetition_name_the_same_models_once():
    assert labels(["ease,popularity", "ease"]) == ["ease", "popularity"]


def test_alternatives_multiply():
    assert labels(["dmrec@matching.beta=0.3|0.5;fuse=add"]) == [
        "dmrec@matching.beta=0.3;fuse=add",
        "dmrec@matching.beta=0.5;fuse=add",
    ]


def test_an_override_changes_one_option_and_keeps_the_rest():
    [choice] = choices_of(["dmrec@matching.beta=0.3"], [], SETTINGS)
    assert choice.mapping["matching"] == {"name": "mddm", "beta": 0.3}
    assert choice.mapping["base"] == {"name": "mult_vae", "kl_weight": 0.5}
    assert SETTINGS.model["matching"] == {"name": "mddm"}


def test_another_matching_drops_the_options_of_the_one_it_replaces():
    [choice] = choices_of(["dmrec@matching.beta=0.3;matching.name=godm"], [], SETTINGS)
    assert choice.mapping["matching"] == {"name": "godm"}


def test_another_base_is_a_name_and_drops_the_options_of_the_one_it_replaces():
    plain, weighed = choices_of(["dmrec@base.name=cvga,dmrec@base.name=cvga;base.kl_weight=1/B"], [], SETTINGS)
    assert plain.mapping["base"] == {"name": "cvga"}
    assert weighed.mapping["base"] == {"name": "cvga", "kl_weight": "1/B"}


def test_a_base_that_is_named_has_the_settings_it_has_on_its_own():
    found = {
        choice.label: choice.mapping.get("base")
        for choice in choices_of(["pia@base.name=mult_vae|ease|dmrec"], [], SETTINGS)
    }
    assert found["pia@base.name=mult_vae"] == {"name": "mult_vae", "kl_weight": 0.5}
    assert found["pia@base.name=ease"] == {"name": "ease", "regularization": 5000.0}  # refused later, by its model
    assert found["pia@base.name=dmrec"] == SETTINGS.model
    [deeper] = choices_of(["pia@base.name=dmrec;base.base.name=cvga;base.base.latent_dim=8;weight=1"], [], SETTINGS)
    assert deeper.mapping["base"] == {**SETTINGS.model, "base": {"name": "cvga", "latent_dim": 8}}
    [overridden] = choices_of(["pia@base.name=mult_vae;base.kl_weight=0.1"], [], SETTINGS)
    assert overridden.mapping["base"] == {"name": "mult_vae", "kl_weight": 0.1}


def test_a_grid_is_the_first_models_unless_it_names_another():
    assert labels(["dmrec,ease"], ["matching.beta=0.3,0.5", "ease:regularization=10,20"]) == [
        "dmrec@matching.beta=0.3",
        "dmrec@matching.beta=0.5",
        "ease@regularization=10",
        "ease@regularization=20",
    ]


@pytest.mark.parametrize("spec", ["", "Dmrec", "dmrec@", "dmrec@beta", "dmrec@=1", "dmrec@a.=1", "a b"])
def test_a_specification_that_does_not_parse_is_refused_with_the_form(spec):
    with pytest.raises(SettingSyntaxError, match="NAME"):
        choices_of([spec], [], SETTINGS)


@pytest.mark.parametrize("grid", ["beta", "x:beta=1", "dmrec:=1", "dmrec:beta="])
def test_a_grid_that_does_not_parse_is_refused(grid):
    with pytest.raises(SettingSyntaxError):
        choices_of(["dmrec"], [grid], SETTINGS)


def test_a_model_may_train_otherwise_and_count_other_words_than_the_rest():
    plain, own = choices_of(["ease", "ease@training.epochs=3;words.texts=title+tags"], [], SETTINGS)
    assert (plain.training, plain.words) == ({}, {})
    assert own.mapping == plain.mapping and own.training == {"epochs": 3} and own.words == {"texts": ["title", "tags"]}
    assert own.label == "ease@training.epochs=3;words.texts=title+tags"
