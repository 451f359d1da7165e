"""Comparisons as files, and tables of what is already trained."""

from __future__ import annotations

import csv
import json

import pytest
from servers.small_studies import run_in_this_process, write_small_catalogue

import flows.steps.train
from flows import cli
from warehouse import Warehouse


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(flows.steps.train, "run_rec_models", run_in_this_process)
    monkeypatch.chdir(write_small_catalogue(tmp_path))
    return tmp_path


def test_a_comparison_becomes_a_file_whose_rows_lead_back_to_their_runs(folder, capsys):
    words = ["compare", "--models", "popularity,ease", "--seeds", "2"]
    assert cli.run([*words, "--output", "table.csv"]) == 0
    assert "gini@5" in capsys.readouterr().out
    rows = list(csv.DictReader((folder / "table.csv").open(encoding="utf-8")))
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    registered = {row["model_id"]: row["run_id"] for row in snapshot.read("model_registry").to_pylist()}
    for row in rows:
        assert row["runs"] == registered[row["model ids"].split()[0]] and len(row["model ids"].split()) == 2
    assert cli.run([*words, "--output", "table.csv"]) == 2 and cli.run([*words, "--output", "t.csv", "--force"]) == 0
    capsys.readouterr()
    assert cli.run([*words, "--format", "markdown"]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("**2 models") and "estimate" not in out


def test_a_table_of_what_is_trained_trains_nothing_and_names_the_rest(folder, capsys):
    assert cli.run(["compare", "--models", "popularity,ease", "--only-trained"]) == 2
    assert "is trained here" in capsys.readouterr().err
    assert cli.run(["compare", "--models", "popularity"]) == 0
    published = Warehouse(folder / "w").current()
    capsys.readouterr()
    assert cli.run(["compare", "--models", "popularity,ease", "--seeds", "2", "--only-trained", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["not_run"] == ["ease"] and document["trained"] == 0 and document["seeds"] == 2
    [score] = document["scores"]
    assert len(score["model_ids"]) == 1 and score["intervals"].keys() == {"recall@5", "ndcg@5", "novelty@5"}
    after = Warehouse(folder / "w").current()
    assert published is not None and after is not None and after.id == published.id


def test_how_far_texts_lie_from_ids_stands_beside_the_row(folder, capsys):
    words = ["compare", "--models", "popularity,recgoat@dim=8;heads=2;neighbours=2"]
    assert cli.run([*words, "--json"]) == 0
    popularity, recgoat = json.loads(capsys.readouterr().out)["scores"]
    [model_id] = recgoat["model_ids"]
    metrics = json.loads((folder / "w" / "models" / model_id / "checkpoint" / "metrics.json").read_text("utf-8"))
    passes = [row for row in metrics["history"] if "w1_profiles" in row]
    [best] = (row for row in passes if row["epoch"] == metrics["best_epoch"])
    assert popularity["diagnostics"] == {}
    told = {"w1_profiles", "w1_relative_profiles", "info_nce_profiles", "marginal_error_profiles"}
    assert recgoat["diagnostics"].keys() == told
    for name, ends in recgoat["diagnostics"].items():
        assert ends == [passes[0][name], best[name]]
    assert cli.run(words) == 0
    assert "w1_profiles" in capsys.readouterr().out
