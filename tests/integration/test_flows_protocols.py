"""Users held out of training, from sources to lists: nothing they are asked for is seen before they are asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.counting import counting_server
from servers.embeddings import embedded
from servers.training import train_here

from flows import cli
from flows.errors import LeakedEvidenceError
from flows.settings_layers import load_settings
from flows.steps.guard import refuse_leaks
from rec_models import Bundle
from rec_models.models import MultVAEConfig
from warehouse import Warehouse, arrow_table

N_USERS, N_ITEMS = 24, 20
HELD_OUT = ("split.kind=users", "split.held_out=[3, 4]")
SMALL = """
[source]
items = "items.jsonl"
interactions = "rows.csv"
[profiles]
domain = "games"
[embeddings]
name = "openai"
model = "test-embedder"
base_url = "{url}"
backoff_s = 0
[model.base]
hidden_dim = 8
latent_dim = 4
[models.mult_vae]
hidden_dim = 8
latent_dim = 4
[models.lightgcn]
dim = 4
[training]
epochs = 2
batch_size = 8
evaluate_every = 1
[warehouse]
root = "w"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """24 users of two tastes who wrote a line about every item; i20 is taken once, by one user alone."""
    rng = np.random.default_rng(7)
    items = [
        {"item_id": f"i{n:02d}", "title": f"Game {n}", "description": f"A {'quiet' if n % 2 else 'loud'} game of {n}"}
        for n in range(N_ITEMS + 1)
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items), encoding="utf-8")
    lines, second = ["user_id,item_id,timestamp,text"], 1_500_000_000
    for user in range(N_USERS):
        liked = [n for n in range(N_ITEMS) if n % 2 == user % 2]
        taken = [*rng.permutation(liked)[: 6 + user % 4], *([N_ITEMS] if user == 5 else [])]
        lines += [f"u{user:02d},i{n:02d},{second + 60 * place},u{user:02d} was here" for place, n in enumerate(taken)]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "semalign.toml").write_text(SMALL.format(url="http://127.0.0.1:9/v1"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    train_here(monkeypatch)
    return tmp_path


def command(capsys, *words: str, settings: tuple[str, ...] = HELD_OUT, code: int = 0) -> tuple[dict[str, Any], str]:
    """The document and the last line on stderr of a command under these settings."""
    capsys.readouterr()
    found = cli.run([*words, "--json", *(word for setting in settings for word in ("--set", setting))])
    out, err = capsys.readouterr()
    assert found == code, err
    return json.loads(out) if out else {}, err.strip().splitlines()[-1]


def bundle_of(folder: Path, label: str) -> Bundle:
    found = [Bundle.open(path) for path in (folder / "w" / "models").iterdir()]
    return next(bundle for bundle in found if bundle.config["about"]["label"] == label)


def rows_of(folder: Path, table: str) -> list[dict[str, Any]]:
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    return snapshot.read(table).to_pylist()


def test_a_run_learns_nothing_from_held_out_users_but_what_they_show(folder, capsys):
    with counting_server(lambda number, asked: embedded(asked)) as (url, _):
        address = f"embeddings.base_url={url}"
        document, _ = command(capsys, "run", settings=(*HELD_OUT, address))
    splits = rows_of(folder, "splits")
    owners = {
        part: {row["user_id"] for row in splits if row["part"] == part}
        for part in ("train", "valid", "test", "fold_in")
    }
    assert len(owners["train"]) == N_USERS - 7 and (len(owners["valid"]), len(owners["test"])) == (3, 4)
    assert owners["fold_in"] == owners["valid"] | owners["test"] and not owners["train"] & owners["fold_in"]

    parts = {(row["user_id"], row["item_id"]): row["part"] for row in splits}
    for row in rows_of(folder, "profiles"):
        for other in row["evidence"]:
            pair = (row["entity_id"], other) if row["kind"] == "user" else (other, row["entity_id"])
            expected = "fold_in" if row["entity_id"] in owners["fold_in"] else "train"
            assert parts[pair] == expected
    reviewed = [row["evidence"] for row in rows_of(folder, "profiles") if row["kind"] == "item"]
    assert any(reviewed) and not {user for users in reviewed for user in users} & owners["fold_in"]

    bundle = bundle_of(folder, "dmrec")
    inputs = bundle.inputs()
    held_out = np.array(
        [user in owners["fold_in"] for user in json.loads((bundle.directory / "user_ids.json").read_text())]
    )
    assert not inputs.train.lengths()[held_out].any() and inputs.train.lengths()[~held_out].all()
    assert inputs.fold_in is not None and inputs.fold_in.lengths()[held_out].all()
    first = np.flatnonzero(held_out)[0]
    shown = np.array(inputs.fold_in.indices[: inputs.fold_in.indptr[first + 1]])
    mean = inputs.semantic["items"].vectors[shown].mean(0)
    assert np.allclose(mean / mean.norm(), inputs.semantic["users"].vectors[first], atol=1e-5)
    tested = np.load(bundle.checkpoint / "per_user.npz")["test_user_index"]
    assert set(tested.tolist()) <= set(np.flatnonzero(held_out).tolist()) and len(tested) == 4

    assert document["protocol"] == "strong" and document["split"].startswith("held-out users 3 + 4, 20% of their rows")
    assert {"recall@20", "truncated_recall@50", "ndcg@100"} <= set(document["metrics"]["dmrec"])
    assert document["left_out"].keys() == {"users_not_evaluated", "rows_on_unseen_items", "unseen_items"}
    lists = {(row["user_id"], row["item_id"]) for row in rows_of(folder, "recommendations")}
    assert {user for user, _ in lists} == {row["user_id"] for row in splits} and not lists & parts.keys()
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert "Fold-in interactions" in page and "protocol: strong" in page and "left out:" in page

    again, _ = command(capsys, "run", settings=(*HELD_OUT, address))
    assert again["trained"] == 0 and again["snapshot"] == document["snapshot"]
    refuse_what_quotes_a_held_out_user(folder, next(row for row in splits if row["part"] == "fold_in"))


def refuse_what_quotes_a_held_out_user(folder: Path, shown: dict[str, Any]) -> None:
    """The leak guard, when an item's text was made of a review by a user who is held out."""
    warehouse = Warehouse(folder / "w")
    current = warehouse.current()
    assert current is not None
    rows = current.read("profiles").to_pylist()
    [quoting] = [row for row in rows if (row["kind"], row["entity_id"]) == ("item", shown["item_id"])]
    quoting["evidence"] = [shown["user_id"]]
    with warehouse.lock("test"):
        builder = warehouse.begin(current)
        builder.replace("profiles", arrow_table("profiles", {name: [row[name] for row in rows] for name in rows[0]}))
        with pytest.raises(LeakedEvidenceError, match="fold_in"):
            refuse_leaks(builder.commit(), load_settings(folder / "semalign.toml", (), {}, folder).profiles)


def test_models_that_learn_users_by_heart_refuse_before_anything_is_read_or_trained(folder, capsys):
    for models, named in (
        ("mult_vae,lightgcn", "lightgcn"),
        ("l_diffrec@clusters=2", "lightgcn, for the item clusters"),
    ):
        _, said = command(capsys, "compare", "--models", models, code=2)
        assert f"{named}" in said and "by heart" in said and 'split.kind = "random"' in said
    assert not (folder / "w" / "models").exists() and not (folder / "w" / "snapshots").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((*HELD_OUT, "evaluation.protocol=dmrec"), "Set `evaluation.protocol` to 'strong'"),
        (("evaluation.protocol=strong",), "Set `evaluation.protocol` to 'dmrec'"),
        (("split.kind=users", "split.held_out=[20, 4]"), "Lower `held_out`"),
        (("split.kind=users", "split.held_out=[1.5, 4]"), "whole numbers of users"),
        (("split.kind=last", "source.columns.interactions.timestamp=item_id"), "timestamp"),
        (("split.kind=time", "split.cuts=['2030-01-01', '2031-01-01']"), "Move `cuts`"),
        (("source.min_item_words=2", "source.word_columns=['blurb']"), "item_id, title, description"),
        (("source.min_user_interactions=99",), "no interaction is left"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_split_or_measured_is_refused_with_its_cure(folder, capsys, settings, words):
    _, said = command(capsys, "compare", "--models", "popularity", settings=settings, code=2)
    assert words in said
    assert not (folder / "w" / "models").exists()


@pytest.mark.parametrize("kind", ["last", "time", "given"])
def test_other_splits_are_measured_from_training_rows(folder, capsys, kind):
    if kind == "given":  # the source may hold users out itself
        first, *lines = (folder / "rows.csv").read_text("utf-8").splitlines()
        asked = {"u00": "valid", "u01": "valid", "u02": "test", "u03": "test"}
        said = [f"{first},split"]
        for place, line in enumerate(lines):
            part = asked.get(line[:3], "train")
            said.append(f"{line},{'fold_in' if part != 'train' and place % 4 else part}")
        (folder / "rows.csv").write_text("\n".join(said) + "\n", encoding="utf-8")
    settings = (f"split.kind={kind}", *(["evaluation.protocol=strong-generalisation"] if kind == "given" else []))
    document, _ = command(capsys, "compare", "--models", "mult_vae,popularity", settings=settings)
    assert document["protocol"] == ("strong" if kind == "given" else "dmrec")
    inputs = bundle_of(folder, "mult_vae").inputs()
    assert (inputs.fold_in is not None) == (kind == "given")
    if kind == "last":
        assert len(np.load(bundle_of(folder, "mult_vae").checkpoint / "per_user.npz")["test_user_index"]) == N_USERS


def test_plan_counts_what_filters_would_leave_out(folder, capsys):
    settings = ("source.min_user_interactions=7", "source.min_item_interactions=2", "source.min_item_words=3")
    document, _ = command(capsys, "plan", settings=settings)
    words = document["stages"][0]["what"]
    assert "core of 7 per user and 2 per item" in words and "; left out: 0 items of few words, " in words
    assert "users outside core" in words


def test_words_are_counted_once_and_reach_only_the_models_that_ask(folder, capsys, monkeypatch):
    monkeypatch.setattr(MultVAEConfig, "reads_words", True)
    words = ("words.texts=['title', 'description']", "words.min_count=3", "split.seed=1")
    command(capsys, "compare", "--models", "mult_vae,popularity", settings=words)
    text = bundle_of(folder, "mult_vae").inputs().text
    assert text is not None and set(text.vocabulary) == {"quiet", "loud"}  # "game" is in too many, numbers in too few
    assert text.words.shape == (N_ITEMS + 1, 2) and (text.words.values == 1).all()
    assert [text.vocabulary[column] for column in text.words.indices[:3]] == ["loud", "quiet", "loud"]
    assert bundle_of(folder, "popularity").inputs().text is None

    [cached] = (folder / "w" / "words").iterdir()
    (cached / "text.values.npy").write_bytes(b"rotten")
    command(capsys, "compare", "--models", "mult_vae,popularity", "--seeds", "2", settings=words)
    assert np.load(cached / "text.values.npy").sum() == N_ITEMS + 1, "what rotted was counted again"
    n_models = len(list((folder / "w" / "models").iterdir()))
    command(capsys, "compare", "--models", "mult_vae,popularity", settings=(*words, "words.stop_words=none"))
    assert len(list((folder / "w" / "models").iterdir())) == n_models + 1, "other words, another model that reads them"
    command(capsys, "compare", "--models", "mult_vae@words.texts=title+description", settings=words[1:])
    assert len(list((folder / "w" / "models").iterdir())) == n_models + 1, "a model's own words are words like any"
    for own, said_of_it in (
        ("texts=plot", "words.texts"),
        ("stop_words=latin", "words.stop_words"),
        ("x=1", "words.x"),
    ):
        _, said = command(capsys, "compare", "--models", f"mult_vae@words.{own}", settings=words, code=2)
        assert said_of_it in said
    _, said = command(capsys, "compare", "--models", "mult_vae", settings=("words.texts=['plot']",), code=2)
    assert "words.texts" in said and "profile, item_id, title, description" in said
    _, said = command(capsys, "compare", "--models", "mult_vae", settings=(words[0], "words.min_count=99"), code=2)
    assert "Lower `words.min_count`" in said
