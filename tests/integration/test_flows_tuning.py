"""Tuning: on validation alone, the same budget for every model, resumable, and read back by a comparison."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from servers.commands import command
from servers.small_studies import run_in_this_process, write_small_catalogue

import flows.steps.train
from flows.errors import InterruptedRunError, TrainingFailedError
from warehouse import Warehouse

SPACE = ("--space", "mult_vae:dropout=0.1,0.5,0.8", "--space", "ease:regularization=1.0..1000.0:log")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(flows.steps.train, "run_rec_models", run_in_this_process)
    monkeypatch.chdir(write_small_catalogue(tmp_path))
    return tmp_path


def table(folder: Path, name: str) -> list[dict]:
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    return snapshot.read(name).to_pylist()


def test_every_model_gets_the_same_budget_and_only_validation_is_written_down(folder, capsys):
    words = ("tune", "--models", "mult_vae,ease", *SPACE, "--budget", "3", "--method", "random")
    code, document, last = command(capsys, *words)
    assert code == 0 and document["trained"] == 6 and "semalign compare" in last
    for found in document["models"].values():
        assert len(found["trials"]) == 3 and len({str(trial["values"]) for trial in found["trials"]}) == 3
        assert found["chosen"]["valid"] == max(trial["valid"] for trial in found["trials"])
    rows = table(folder, "model_registry")
    assert sorted(row["state"] for row in rows) == ["chosen"] * 2 + ["trial"] * 4
    assert all("test" not in json.loads(row["metrics"]) for row in rows)
    said = json.loads(rows[1]["settings"])["tuning"]
    assert said["budget"] == "3 trials" and said["values"] and said["space"] and said["method"] == "random"
    assert table(folder, "metrics") == [] and table(folder, "metrics_per_user") == []
    code, again, _ = command(capsys, *words)
    assert code == 0 and again["trained"] == 0 and again["snapshot"] == document["snapshot"]
    assert {name: found["chosen"]["values"] for name, found in again["models"].items()} == {
        name: found["chosen"]["values"] for name, found in document["models"].items()
    }


def test_a_search_that_is_cut_off_finds_its_trials_again(folder, monkeypatch, capsys):
    trained: list[str] = []

    def cut_off(label, arguments, log, on_event):
        if len(trained) == 2:
            raise InterruptedRunError("SIGTERM")
        trained.append(label)
        run_in_this_process(label, arguments, log, on_event)

    words = ("tune", "--models", "ease", "--space", "regularization=1,10,100,1000", "--budget", "4")
    monkeypatch.setattr(flows.steps.train, "run_rec_models", cut_off)
    assert command(capsys, *words)[0] == 4
    monkeypatch.setattr(flows.steps.train, "run_rec_models", run_in_this_process)
    code, document, _ = command(capsys, *words)
    assert code == 0 and document["trained"] == 2
    states = [trial["state"] for trial in document["models"]["ease"]["trials"]]
    assert states == ["found", "found", "trained", "trained"] and document["method"] == "grid"


def test_what_was_chosen_is_compared_without_training_it_again(folder, capsys):
    words = ("tune", "--models", "mult_vae", "--space", "training.learning_rate=1e-3,3e-2", "--budget", "2")
    code, document, last = command(capsys, *words, "--write", "chosen.toml")
    assert code == 0 and "--config chosen.toml" in last
    code, compared, _ = command(capsys, "compare", "-c", "chosen.toml", "--models", "mult_vae", "--seeds", "1")
    assert code == 0 and compared["trained"] == 0
    [score] = compared["scores"]
    chosen = document["models"]["mult_vae"]["chosen"]
    assert score["model_ids"] == chosen["model_ids"] and score["valid"]["recall@5"] == pytest.approx(chosen["valid"])
    assert {row["model_id"] for row in table(folder, "metrics_per_user")} == set(chosen["model_ids"])
    assert command(capsys, *words, "--write", "chosen.toml")[0] == 2


def test_a_trial_that_diverges_is_a_failed_trial_and_a_space_of_them_is_exit_code_4(folder, monkeypatch, capsys):
    def diverging(label, arguments, log, on_event):
        if "0.5" in label:
            raise TrainingFailedError(label, 4, "the loss is not finite", str(log))
        run_in_this_process(label, arguments, log, on_event)

    monkeypatch.setattr(flows.steps.train, "run_rec_models", diverging)
    words = ("tune", "--models", "mult_vae", "--space")
    code, document, _ = command(capsys, *words, "dropout=0.5,0.1", "--budget", "2")
    assert code == 0
    assert [trial["state"] for trial in document["models"]["mult_vae"]["trials"]] == ["failed", "trained"]
    code, _, last = command(capsys, *words, "dropout=0.5", "--budget", "1")
    assert code == 4 and "none of the 1 trials" in last


def test_minutes_are_of_training_whenever_it_happened(folder, capsys):
    words = ("tune", "--models", "mult_vae", "--space", "dropout=0.0..0.9", "--minutes", "0.01")
    code, document, _ = command(capsys, *words)
    trials = document["models"]["mult_vae"]["trials"]
    spent = [trial["seconds"] for trial in trials]
    assert code == 0 and sum(spent) >= 0.6 > sum(spent[:-1])
    code, again, _ = command(capsys, *words)
    assert code == 0 and again["trained"] == 0 and len(again["models"]["mult_vae"]["trials"]) == len(trials)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--space", "dropout=0.1"), "one of --budget N"),
        (("--space", "dropout=0.1", "--budget", "1", "--minutes", "1"), "one of --budget N"),
        (("--space", "dropuot=0.1", "--budget", "1"), "did you mean `dropout`"),
        (("--space", "dropout=0.1..1.5", "--budget", "2"), "dropout"),
        (("--space", "dropout=0.1,0.2", "--budget", "1", "--method", "grid"), "2 combinations"),
        (("--space", "dropout=0.1,0.2", "--budget", "1", "--method", "annealing"), "grid, random, tpe"),
        (("--space", "training.epochz=1", "--budget", "1"), "did you mean `epochs`"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_read(folder, capsys, words, told):
    code, _, last = command(capsys, "tune", "--models", "mult_vae", *words)
    assert code == 2 and told in last and not (folder / "w").exists()


def test_an_estimate_searches_nothing(folder, capsys):
    words = ("tune", "--models", "mult_vae,ease", *SPACE, "--only-estimate")
    code, document, _ = command(capsys, *words, "--budget", "3")
    assert code == 0 and document["estimate"]["seconds"] > 0 and not (folder / "w").exists()
    assert command(capsys, *words, "--minutes", "2")[1]["estimate"]["seconds"] >= 240
