"""Settings: layers, names that are refused, values that expand."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.errors import (
    SecretInSettingsError,
    SettingsFileError,
    SettingSyntaxError,
    SettingValueError,
    UndefinedVariableError,
    UnknownSettingError,
)
from flows.settings import DEFAULT_MODEL, digest
from flows.settings_layers import known_settings, load_settings, merged, nested, parse_value


def settings_of(
    directory: Path, toml: str = "", *overrides: str, environ: dict[str, str] | None = None, local: str = ""
):
    (directory / "semalign.toml").write_text(toml, encoding="utf-8")
    if local:
        (directory / "semalign.local.toml").write_text(local, encoding="utf-8")
    return load_settings(None, overrides, environ or {}, directory)


def test_defaults_need_no_file(tmp_path):
    settings = load_settings(None, (), {}, tmp_path)
    assert settings.model == DEFAULT_MODEL
    assert settings.warehouse.root == tmp_path / "var" / "warehouse"


def test_each_layer_wins_over_the_one_below(tmp_path):
    toml, local = (
        "[split]\nseed = 1\n[recommend]\nk = 1\n[evaluation]\nseeds = 1\n",
        "[recommend]\nk = 2\n[evaluation]\nseeds = 2\n",
    )
    environ = {"SEMALIGN_EVALUATION__SEEDS": "3", "SEMALIGN_REPORT__N_EXAMPLES": "3"}
    settings = settings_of(tmp_path, toml, "report.n_examples=4", environ=environ, local=local)
    assert (settings.split.seed, settings.recommend.k, settings.evaluation.seeds, settings.report.n_examples) == (
        1,
        2,
        3,
        4,
    )


def test_a_misspelt_key_is_refused_with_its_path_and_the_nearest_names(tmp_path):
    with pytest.raises(UnknownSettingError) as refused:
        settings_of(tmp_path, "[split]\nsheed = 1\n")
    assert refused.value.path == "split.sheed"
    assert "split.seed" in str(refused.value) and "shares" in str(refused.value)


def test_a_key_in_the_wrong_table_is_pointed_to_its_own(tmp_path):
    with pytest.raises(UnknownSettingError, match=r"profiles\.min_coverage"):
        settings_of(tmp_path, "min_coverage = 0.2\n")


def test_a_misspelt_name_in_the_environment_is_refused_too(tmp_path):
    with pytest.raises(UnknownSettingError, match="splitt"):
        settings_of(tmp_path, environ={"SEMALIGN_SPLITT__SEED": "1"})


def test_variables_of_others_in_the_environment_are_left_alone(tmp_path):
    assert settings_of(tmp_path, environ={"SEMALIGN_DATA": "/data"}).split.seed == 0


@pytest.mark.parametrize(
    ("toml", "path"),
    [
        ("[split]\nseed = -1\n", "split.seed"),
        ("[recommend]\nk = 'x'\n", "recommend.k"),
        ("[source]\nmin_rating = nan\n", "source.min_rating"),
        ("[training]\nlearning_rate = inf\n", "training.learning_rate"),
        ("[model]\nname = 'ease'\nregularization = nan\n", "model.regularization"),
        ("[split]\nshares = [3, nan, 1]\n", "split.shares"),
        ("[split]\nshares = [3, -1, 1]\n", "split.shares.1"),
        ("[split]\nshares = [0, 0, 0]\n", "split.shares.0"),
        ("[training]\nthreads = 'abc'\n", "training.threads"),
        ("[training]\nthreads = 0\n", "training.threads"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_path(tmp_path, toml, path):
    with pytest.raises(SettingValueError) as refused:
        settings_of(tmp_path, toml)
    assert refused.value.path == path and refused.value.exit_code == 2


def test_variables_expand_with_and_without_a_default(tmp_path):
    toml = '[source]\nitems = "${ROOT_OF_DATA}/i.csv"\nusers = "${NOT_THERE:-here}/u.csv"\n'
    source = settings_of(tmp_path, toml, environ={"ROOT_OF_DATA": "/data"}).source
    assert (source.items, source.users) == ("/data/i.csv", str(tmp_path / "here" / "u.csv"))


def test_an_undefined_variable_is_refused_by_name(tmp_path):
    with pytest.raises(UndefinedVariableError, match=r"NOT_THERE:-default"):
        settings_of(tmp_path, 'name = "${NOT_THERE}"\n')


def test_relative_paths_start_at_the_file_and_queries_are_no_paths(tmp_path):
    nested_folder = tmp_path / "a"
    nested_folder.mkdir()
    toml = '[source]\nitems = "../i.csv"\ninteractions = "SELECT 1 AS user_id, 2 AS item_id"\n[warehouse]\nroot = "w"\n'
    settings = settings_of(nested_folder, toml)
    assert settings.source.items == str(tmp_path / "i.csv")
    assert settings.source.interactions == "SELECT 1 AS user_id, 2 AS item_id"
    assert settings.warehouse.root == nested_folder / "w"


@pytest.mark.parametrize("key", ["api_key", "token", "password"])
def test_secrets_are_refused_in_every_layer(tmp_path, key):
    with pytest.raises(SecretInSettingsError, match="OPENAI_API_KEY"):
        settings_of(tmp_path, f'[profiles.engine]\nname = "openai"\n{key} = "sk-1"\n')
    with pytest.raises(SecretInSettingsError):
        settings_of(tmp_path, "", f"profiles.engine.{key}=sk-1")


def test_a_table_that_changes_its_name_replaces_the_one_below(tmp_path):
    assert settings_of(tmp_path, "", "model.name=ease").model == {"name": "ease"}
    assert settings_of(tmp_path, '[model]\nname = "ease"\nregularization = 5.0\n').model == {
        "name": "ease",
        "regularization": 5.0,
    }


def test_an_option_of_the_default_model_needs_only_itself(tmp_path):
    model = settings_of(tmp_path, "", "model.matching.beta=0.3").model
    assert model == {"name": "dmrec", "base": {"name": "mult_vae"}, "matching": {"name": "mddm", "beta": 0.3}}


def test_a_name_alone_stands_for_a_table(tmp_path):
    settings = settings_of(tmp_path, 'model = "popularity"\n[profiles]\nengine = "attributes"\n')
    assert settings.model == {"name": "popularity"} and settings.profiles.engine == {"name": "attributes"}


@pytest.mark.parametrize("content", [b"[split\n", b"\xff\xfe", b'a = "' + b"x" * (1 << 20) + b'"'])
def test_a_file_that_is_no_toml_is_one_sentence(tmp_path, content):
    (tmp_path / "semalign.toml").write_bytes(content)
    with pytest.raises(SettingsFileError, match=r"semalign\.toml"):
        load_settings(None, (), {}, tmp_path)


def test_a_config_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SettingsFileError, match="no such file"):
        load_settings(tmp_path / "other.toml", (), {}, tmp_path)


@pytest.mark.parametrize("text", ["split.seed", "=1", "a..b=1"])
def test_a_malformed_override_is_refused(tmp_path, text):
    with pytest.raises(SettingSyntaxError, match="--set"):
        settings_of(tmp_path, "", text)


def test_speed_is_no_part_of_the_hash_and_results_are(tmp_path):
    plain = settings_of(tmp_path)
    assert settings_of(tmp_path, "", "training.device=cuda", "warehouse.root=elsewhere").hash() == plain.hash()
    assert settings_of(tmp_path, "", "training.learning_rate=0.1").hash() != plain.hash()


def test_settings_are_frozen(tmp_path):
    with pytest.raises(Exception, match="frozen"):
        settings_of(tmp_path).split.seed = 3  # type: ignore[misc]


def test_values_of_the_command_line_are_toml_or_text():
    assert [parse_value(text) for text in ("3", "0.5", "true", '["a"]', "plain text")] == [
        3,
        0.5,
        True,
        ["a"],
        "plain text",
    ]


def test_merging_never_changes_what_it_merges():
    below, above = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merged(below, above) == {"a": {"b": 1, "c": 2}}
    assert (below, above) == ({"a": {"b": 1}}, {"a": {"c": 2}})


def test_paths_nest():
    assert nested("a.b", 1) == {"a": {"b": 1}}
    assert "source.columns.items" in known_settings() and "split.seed" in known_settings()


def test_digests_depend_on_values_not_on_order():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
