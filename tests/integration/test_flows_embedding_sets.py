"""Sets of vectors side by side: one is what models read, the others cost only what they add."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import providers
from benchmarks.stand_ins import StandInEncoder
from flows import cli
from flows.steps.bundle import inputs_key, semantic_matrix
from warehouse import MatrixPaths, Snapshot, VectorShards, Warehouse

PLAIN = {"name": "plain", "dim": 8}


class Letters(StandInEncoder):
    """Unit vectors from the hash of a text; `asked` is every text any of them was given, with its encoder's key."""

    asked: list[tuple[str, str]] = []  # noqa: RUF012
    model, dtype = "letters", "float32"

    def __init__(self, settings: dict[str, Any]) -> None:
        self.dim, self.short_name = settings.get("dim", 8), settings.get("name", "plain")
        self.key = hashlib.sha256(f"{self.short_name} {self.dim}".encode()).hexdigest()

    def encode(self, texts, on_progress=None):
        Letters.asked += [(self.short_name, text) for text in texts]
        return np.stack([unit(text, self.dim) for text in texts])


def unit(text: str, dim: int = 8) -> np.ndarray:
    drawn = np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)).normal(size=dim)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


ITEMS = [{"item_id": f"i{n}", "title": f"Game {n}", "blurb": f"It is calm, part {n}."} for n in range(6)]
ITEMS[5] = {"item_id": "i5", "title": "Game 5", "tags": ["calm", "slow"]}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Six items, of which the last has no blurb, and two users."""
    monkeypatch.setattr(providers, "parse_encoder", Letters)
    monkeypatch.setattr(Letters, "asked", [])
    monkeypatch.chdir(tmp_path)
    write_items(tmp_path, ITEMS)
    rows = [f"u{user},i{n}" for user in range(2) for n in range(user, 6)]
    (tmp_path / "rows.csv").write_text("user_id,item_id\n" + "\n".join(rows) + "\n", encoding="utf-8")
    settings(tmp_path, "")
    return tmp_path


def write_items(folder: Path, items: list[dict[str, Any]]) -> None:
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items), encoding="utf-8")


def settings(folder: Path, sets: str, embeddings: str = 'name = "plain"') -> None:
    (folder / "semalign.toml").write_text(
        '[source]\nitems = "items.jsonl"\ninteractions = "rows.csv"\n[profiles]\nattributes = ["title"]\n'
        f'[embeddings]\n{embeddings}\n{sets}\n[warehouse]\nroot = "w"\n',
        encoding="utf-8",
    )


def embed(capsys, *words: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, JSON document, last line; `Letters.asked` holds what this run embedded."""
    Letters.asked.clear()
    capsys.readouterr()
    code = cli.run(["embed", "--json", *words])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else {}, err.strip().splitlines()[-1]


def current(folder: Path) -> Snapshot:
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    return snapshot


def vectors(snapshot: Snapshot, table: str, kind: str = "item") -> dict[str, np.ndarray]:
    rows = snapshot.read(table, filter_equal={"kind": kind})
    return dict(zip(rows["entity_id"].to_pylist(), np.array(rows["embedding"].to_pylist()), strict=True))


def test_another_set_embeds_only_itself_and_changes_nothing_models_read(folder, capsys):
    assert embed(capsys)[0] == 0
    before = current(folder)
    settings(folder, '[encoders.wide]\nname = "wide"\ndim = 12\n')
    code, document, _ = embed(capsys)
    after = current(folder)
    assert code == 0 and document["embedded"] == 6 and {name for name, _ in Letters.asked} == {"wide"}
    assert after.columns("embeddings_wide")["embedding"] == "FLOAT[12]"
    assert after.columns("embeddings")["embedding"] == "FLOAT[8]"
    assert after.default_embeddings == before.default_embeddings == "embeddings_plain"
    assert after.read("embeddings").equals(before.read("embeddings"))
    assert inputs_key(after, True, {}) == inputs_key(before, True, {})
    said = after.stages["embed"]["summary"]
    assert [one["short_name"] for one in said["sets"]] == ["plain", "wide"]
    assert {key: said[key] for key in said["sets"][0]} == said["sets"][0]
    assert not embed(capsys)[1]["new_snapshot"]


def test_one_changed_profile_is_embedded_alone_and_patches_the_matrix_made_before(folder, capsys):
    items = [{"item_id": f"i{n}", "title": f"Game {n}"} for n in range(100)]
    write_items(folder, items)
    warehouse = Warehouse(folder / "w")

    def matrix(kind: str = "items") -> MatrixPaths:
        order = [row["item_id"] for row in items] if kind == "items" else ["u0", "u1"]
        return semantic_matrix(warehouse, current(folder), kind, order)

    assert embed(capsys)[1]["embedded"] == 100
    assert matrix().patch is None
    items[40]["title"] = "Another game"
    write_items(folder, items)
    assert embed(capsys)[1]["embedded"] == 1
    assert [fragment.rows for fragment in current(folder).tables["embeddings_plain"]] == [99, 3]  # two pooled users
    patched = matrix()
    assert patched.patch is not None
    stored = vectors(current(folder), "embeddings_plain")
    np.testing.assert_array_equal(patched.open()[0], [stored[row["item_id"]] for row in items])
    of_users = vectors(current(folder), "embeddings_plain", "user")
    np.testing.assert_array_equal(matrix("users").open()[0], [of_users["u0"], of_users["u1"]])


def test_a_set_that_is_no_longer_asked_for_goes(folder, capsys):
    settings(folder, '[encoders.wide]\nname = "wide"\ndim = 12\n')
    assert embed(capsys)[0] == 0
    settings(folder, "")
    write_items(folder, [*ITEMS, {"item_id": "i6", "title": "Game 6"}])
    assert embed(capsys)[0] == 0 and Letters.asked == [("plain", "Game 6.")]
    assert [name for name in current(folder).tables if name.startswith("embeddings_")] == ["embeddings_plain"]


def test_sets_of_one_encoder_share_every_text(folder, capsys):
    settings(
        folder,
        '[encoders.both]\nname = "plain"\ntexts = ["profile", "blurb"]\n'
        '[encoders.most]\nname = "plain"\ntexts = ["blurb", "profile"]\npooling = "max"\n'
        '[encoders.any]\nname = "plain"\ntexts = ["blurb", "tags"]\npooling = "first"\n',
    )
    assert embed(capsys)[0] == 0
    asked = [text for _, text in Letters.asked]
    assert sorted(asked) == sorted(
        {*(f"Game {n}." for n in range(6)), *(row.get("blurb", "calm, slow") for row in ITEMS)}
    )
    snapshot = current(folder)
    mean, most, first = (vectors(snapshot, f"embeddings_{name}") for name in ("both", "most", "any"))
    for row in ITEMS:
        told = [unit(f"{row['title']}."), *([unit(row["blurb"])] if "blurb" in row else [])]
        for got, joined in ((mean, np.mean(told, axis=0)), (most, np.max(told, axis=0))):
            assert np.allclose(got[row["item_id"]], joined / np.linalg.norm(joined), atol=1e-5)
        assert np.allclose(first[row["item_id"]], unit(row.get("blurb", "calm, slow")), atol=1e-6)
    pooled = vectors(snapshot, "embeddings_both", "user")
    assert set(pooled) == {"u0", "u1"} and all(abs(np.linalg.norm(one) - 1) < 1e-5 for one in pooled.values())


def test_a_changed_text_costs_its_entity_and_nobody_else(folder, capsys):
    settings(folder, "", 'name = "plain"\ntexts = ["profile", "blurb"]')
    assert embed(capsys)[0] == 0 and len(Letters.asked) == 11
    before = current(folder)
    write_items(folder, [{**ITEMS[0], "blurb": "It is loud now."}, *ITEMS[1:]])
    code, document, _ = embed(capsys)
    assert code == 0 and sorted(text for _, text in Letters.asked) == ["Game 0.", "It is loud now."]
    assert document["embeddings_reused"] == 5
    was, now = vectors(before, "embeddings"), vectors(current(folder), "embeddings")
    assert [name for name in was if not np.array_equal(was[name], now[name])] == ["i0"]
    assert inputs_key(before, True, {}) != inputs_key(current(folder), True, {})


def test_pooling_is_part_of_what_models_read(folder, capsys):
    keys = set()
    for pooling in ("mean", "max", "first"):
        settings(folder, "", f'name = "plain"\ntexts = ["profile", "blurb"]\npooling = "{pooling}"')
        assert embed(capsys)[0] == 0
        keys.add(inputs_key(current(folder), True, {}))
    assert len(keys) == 3


def test_vectors_of_several_texts_pass_the_gate_before_training(folder, capsys):
    settings(folder, "", 'name = "plain"\ntexts = ["profile", "blurb"]')
    assert embed(capsys)[0] == 0
    warehouse = Warehouse(folder / "w")
    with warehouse.catalogue(warehouse.current()) as catalogue:
        assert catalogue.query("SELECT count(*) AS n FROM check_vector_of_another_text()")["n"].to_pylist() == [0]
        assert catalogue.query("SELECT count(*) AS n FROM similar_items('i0', 3)")["n"].to_pylist() == [3]


@pytest.mark.parametrize(
    ("sets", "embeddings", "sentence"),
    [
        ('[encoders.plain]\nname = "wide"', 'name = "plain"', "in embeddings_plain already; give this set another"),
        ('[encoders."Wide-1"]\nname = "wide"', 'name = "plain"', "a set's name is small letters"),
        ("", 'name = "plain"\ntexts = ["profile", "plot"]', "`embeddings.texts` = 'plot': no column; known: blurb, "),
        ('[encoders.x]\nname = "wide"\ntexts = []', 'name = "plain"', "`encoders.x.texts`"),
        ('[encoders.x]\nname = "wide"\ntexts = ["blurb", "blurb"]', 'name = "plain"', "a text is named twice"),
        ("", 'name = "plain"\npooling = "median"', "`embeddings.pooling` = 'median'"),
    ],
)  # fmt: skip
def test_a_set_that_cannot_be_is_refused_before_anything_is_embedded(folder, capsys, sets, embeddings, sentence):
    settings(folder, sets, embeddings)
    code, _, last = embed(capsys)
    assert code == 2 and sentence in last and Letters.asked == []


def test_shards_that_a_kill_after_the_commit_left_are_cleared_by_the_next_run(folder, capsys):
    assert embed(capsys)[0] == 0
    left = VectorShards(folder / "w", Letters({"name": "plain"}).key)
    left.add(np.array([b"a" * 64]), np.ones((1, 8), np.float32))
    assert not embed(capsys)[1]["new_snapshot"]
    assert list(left.read()) == []


def test_a_plan_counts_the_texts_of_every_set(folder, capsys):
    settings(folder, '[encoders.both]\nname = "plain"\ntexts = ["profile", "blurb"]\n')
    capsys.readouterr()
    assert cli.run(["plan", "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    (embedding,) = [stage for stage in stages if stage.get("stage", stage.get("name")) == "embed"]
    assert "at most 18 texts" in json.dumps(embedding)
