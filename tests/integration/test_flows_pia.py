"""PIA on somebody's own files: three lines of settings, and nothing of the anchors in what is exported."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from servers.small_studies import run_in_this_process, write_small_catalogue

import flows.steps.recommend
import flows.steps.train
from flows import cli
from flows.model_choices import choices_of
from flows.settings_layers import validated
from rec_models import parse_config
from rec_models.__main__ import main

THREE_LINES = """\
source.items = "items.jsonl"
source.interactions = "interactions.csv"
model = "pia"
"""
QUICK = [
    *("--set", "training.epochs=3", "--set", "training.evaluate_every=1", "--set", "evaluation.ks=[5,20]"),
    *("--set", 'evaluation.baselines=["mult_vae","popularity"]'),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_small_catalogue(tmp_path_factory.mktemp("pia"))
    (folder / "semalign.toml").write_text(THREE_LINES, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for module in (flows.steps.train, flows.steps.recommend):
            patch.setattr(module, "run_rec_models", run_in_this_process)
        patch.chdir(folder)
        yield folder


def test_three_lines_of_settings_train_evaluate_and_recommend(folder, capsys):
    assert len((folder / "semalign.toml").read_text(encoding="utf-8").splitlines()) == 3
    assert cli.run(["run", *QUICK, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["metrics"].keys() == {"pia", "mult_vae", "popularity"}
    assert cli.run(["sql", "SELECT count(DISTINCT user_id) AS n FROM recommendations", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [{"n": 24}]


def test_what_is_exported_has_no_anchors_and_the_same_lists_to_the_last_bit(folder, capsys):
    """Training measures the model with its anchors; measured again from the checkpoint there are none."""
    exported = 0
    for checkpoint in folder.rglob("checkpoint"):
        settings = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        if settings["name"] != "pia":
            continue
        exported += 1
        weights = load_file(checkpoint / "model.safetensors")
        assert weights and not [name for name in weights if "anchor" in name]
        assert {name.split(".")[0] for name in weights} == {"encoder_in", "encoder_out", "decoder_in", "decoder_out"}
        with np.load(checkpoint / "per_user.npz") as kept:
            before = {name: kept[name] for name in kept.files}
        assert main(["evaluate", str(checkpoint.parent)]) == 0
        with np.load(checkpoint / "per_user.npz") as again:
            assert set(again.files) == set(before)
            assert all(np.array_equal(again[name], before[name]) for name in before)
    capsys.readouterr()
    assert exported == 1


def test_with_anchors_from_texts_a_model_counts_as_reading_language():
    settings = validated({"model": {"name": "pia"}})
    bare, begun, tied = choices_of(["pia,pia@anchors=text_init|text_tied"], [], settings)
    assert [parse_config(choice.mapping).asks_for_language for choice in (bare, begun, tied)] == [False, True, True]
