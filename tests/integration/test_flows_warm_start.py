"""Retraining from yesterday's weights: begun where no answer was seen, fresh where one was, nothing to do otherwise."""

from __future__ import annotations

import json

import pytest
from servers.small_world import interaction_rows, write_small_world
from servers.training import train_here

from flows import cli
from warehouse import Warehouse

SETTINGS = """\
[source]
items = "items.jsonl"
interactions = "interactions.csv"
[split]
kind = "given"
column = "part"
[model]
name = "mult_vae"
hidden_dim = 8
latent_dim = 4
[training]
epochs = 3
batch_size = 16
warm_start = true
[evaluation]
baselines = []
[warehouse]
root = "w"
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    train_here(monkeypatch)
    write_small_world(tmp_path, SETTINGS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, n_users: int, shift: int = 0) -> None:
    """The rows of the first users, each user's six dealt to the parts in turn, from another place on with a shift."""
    parts = ("train", "train", "train", "train", "valid", "test")
    lines = ["user_id,item_id,part"]
    for place, (user, item) in enumerate(interaction_rows(n_users)):
        lines.append(f"{user},{item},{parts[(place + shift) % 6]}")
    (folder / "interactions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def trained(folder) -> list[dict]:
    """Provenance of every model there, the newest last."""
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    rows = sorted(snapshot.read("model_registry").to_pylist(), key=lambda row: row["created_at"])
    folders = [folder / "w" / "models" / row["model_id"] for row in rows]
    return [json.loads((place / "checkpoint" / "metrics.json").read_text())["provenance"] for place in folders]


def test_a_retraining_begins_where_the_last_one_ended(world, capsys):
    write(world, 18)
    assert cli.run(["train"]) == 0
    assert [told.get("warm start") for told in trained(world)] == [None]
    write(world, 20)
    assert cli.run(["train"]) == 0
    [_, told] = trained(world)
    assert "18 of 20 users" in told["warm start"] and "16 of 16 items" in told["warm start"]
    capsys.readouterr()
    assert cli.run(["train", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trained"] == 0


def test_a_model_that_has_seen_the_answers_is_not_begun_from(world, capsys):
    write(world, 20)
    assert cli.run(["train"]) == 0
    write(world, 20, shift=2)
    capsys.readouterr()
    assert cli.run(["train"]) == 0
    assert "a fresh start, for model" in (said := capsys.readouterr().err) and "today's validation or test" in said
    assert [told.get("warm start") for told in trained(world)] == [None, None]
