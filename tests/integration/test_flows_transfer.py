"""Vectors come in by id from where people keep them, tables go out, and a refusal leaves everything as it was."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from servers.commands import command
from servers.published import AFTER, TITLES, USERS, publish

from warehouse import Warehouse, read_source, read_vectors, write_vectors

ITEMS = list(TITLES)
VALUES = np.random.default_rng(3).normal(size=(len(ITEMS), 5)).astype(np.float32)
VALUES /= np.linalg.norm(VALUES, axis=1, keepdims=True)
# the rows of a file are in nobody's order
SHUFFLED = [2, 0, 3, 1]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A published warehouse and settings that lead to it."""
    publish(tmp_path / "w")
    (tmp_path / "semalign.toml").write_text('[warehouse]\nroot = "w"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved_ids(folder: Path, form: str) -> Path:
    ids = [ITEMS[place] for place in SHUFFLED]
    path = folder / f"ids.{form}"
    if form == "txt":
        path.write_bytes("\r\n".join(ids).encode() + b"\r\n")
    elif form == "json":
        path.write_text(json.dumps([int(entity) for entity in ids]), encoding="utf-8")
    elif form == "csv":
        path.write_text("name,item_id\n" + "".join(f"x,{entity}\n" for entity in ids), encoding="utf-8")
    else:
        np.save(path, np.array(ids))
    return path


@pytest.mark.parametrize("form", ["txt", "json", "csv", "npy"])
def test_an_array_and_its_ids_become_a_table_of_their_own(folder, capsys, form):
    before = Warehouse(folder / "w").current()
    np.save(folder / "v.npy", VALUES[SHUFFLED])
    words = ["import", "v.npy", "--as", "ada", "--kind", "item", "--ids", str(saved_ids(folder, form))]
    code, said, last = command(capsys, *words)
    assert (code, said["rows"], said["dim"], said["unknown"], said["missing"], said["scaled"]) == (0, 4, 5, 0, 0, 0)
    assert "4 item vectors of 5 numbers are in embeddings_ada" in last
    now = Warehouse(folder / "w").current()
    assert now.id == said["snapshot"] != before.id and now.parent == before.id
    rows = now.read("embeddings_ada").to_pylist()
    assert [row["entity_id"] for row in rows] == ITEMS
    np.testing.assert_array_equal(np.array([row["embedding"] for row in rows], np.float32), VALUES)
    assert all(row["text_hash"].startswith("import:") for row in rows)
    # nothing else moved, and `embeddings` stands for the encoder's as before
    assert now.default_embeddings == before.default_embeddings == "embeddings_mini"
    assert {name: now.tables[name] for name in before.tables if name != "runs"} == {
        name: fragments for name, fragments in before.tables.items() if name != "runs"
    }
    assert now.read("runs")["command"].to_pylist()[-1] == "import"
    assert now.stages["import_item_ada"]["summary"]["source"] == "import"
    code, again, _ = command(capsys, *words)
    assert code == 0 and not again["changed"] and again["snapshot"] == now.id


def test_row_n_of_an_array_belongs_to_id_n_where_that_is_said(folder, capsys):
    values = VALUES.copy()
    values[2] = 0
    np.save(folder / "v.npy", values)
    code, said, _ = command(capsys, "import", "v.npy", "--as", "rows", "--kind", "item", "--ids", "rows")
    assert (code, said["rows"], said["missing"], said["unknown"]) == (0, 3, 1, 0)
    rows = Warehouse(folder / "w").current().read("embeddings_rows").to_pylist()
    assert {row["entity_id"]: row["embedding"] for row in rows} == {str(n): VALUES[n].tolist() for n in (0, 1, 3)}
    code, _, last = command(capsys, "import", "v.npy", "--as", "profiles", "--kind", "item", "--ids", "rows")
    assert code == 2 and "the name that models give the default set" in last


def test_items_and_users_lie_in_one_table_and_each_is_replaced_alone(folder, capsys):
    np.save(folder / "v.npy", VALUES[SHUFFLED])
    ids = str(saved_ids(folder, "txt"))
    assert command(capsys, "import", "v.npy", "--as", "ada", "--kind", "item", "--ids", ids)[0] == 0
    with (folder / "usr_emb_np.pkl").open("wb") as stream:
        pickle.dump({"u": VALUES[0], "w": VALUES[1]}, stream)
    code, said, _ = command(capsys, "import", "usr_emb_np.pkl", "--as", "ada", "--kind", "user")
    assert (code, said["rows"], said["missing"]) == (0, 2, len(USERS) - 2)
    with (folder / "usr_emb_np.pkl").open("wb") as stream:
        pickle.dump({"v": VALUES[2]}, stream)
    assert command(capsys, "import", "usr_emb_np.pkl", "--as", "ada", "--kind", "user")[0] == 0
    rows = Warehouse(folder / "w").current().read("embeddings_ada").to_pylist()
    assert sorted((row["kind"], row["entity_id"]) for row in rows) == [*(("item", i) for i in ITEMS), ("user", "v")]


def test_the_files_of_rlmrec_are_read_by_their_row_numbers(folder, capsys):
    # float64 of any length, row n is item n; one row more than there are items
    table = np.vstack([VALUES.astype(np.float64) * 7, np.ones((1, 5))])
    with (folder / "itm_emb_np.pkl").open("wb") as stream:
        pickle.dump(table, stream)
    code, _, last = command(capsys, "import", "itm_emb_np.pkl", "--as", "rlmrec", "--kind", "item")
    assert code == 4 and "1 of 5 vectors have an id that no item here has (such as 4)" in last
    words = ["import", "itm_emb_np.pkl", "--as", "rlmrec", "--kind", "item", "--max-unknown", "0.2"]
    code, said, _ = command(capsys, *words)
    assert (code, said["rows"], said["unknown"], said["scaled"]) == (0, 4, 1, 5)
    embedding = Warehouse(folder / "w").current().read("embeddings_rlmrec")["embedding"].to_pylist()
    np.testing.assert_allclose(np.array(embedding), VALUES, atol=1e-6)


def test_profiles_of_rlmrec_become_a_table_that_a_source_can_name(folder, capsys):
    said = {n: {"profile": f"profile {n}", "reasoning": "because"} for n in range(4)}
    with (folder / "itm_prf.pkl").open("wb") as stream:
        pickle.dump(said, stream)
    code, _, last = command(capsys, "import", "itm_prf.pkl", "--as", "x", "--kind", "item")
    assert code == 2 and "it holds profiles, no vectors" in last and "--to FILE.parquet" in last
    code, document, _ = command(capsys, "import", "itm_prf.pkl", "--kind", "item", "--to", "items.parquet")
    assert code == 0 and document["columns"] == ["item_id", "profile", "reasoning"]
    rows = read_source("items.parquet", kind="items", directory=folder).to_pylist()
    assert rows == [{"item_id": str(n), **said[n]} for n in said]
    assert command(capsys, "import", "itm_prf.pkl", "--kind", "item", "--to", "items.parquet")[0] == 2


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.list_(pa.float32(), 5), pa.large_list(pa.float32())])
@pytest.mark.parametrize("named", [pa.string(), pa.int64()])
def test_parquet_names_its_rows_itself(folder, capsys, kind, named):
    ids = pa.array([int(ITEMS[place]) for place in SHUFFLED], pa.int64()).cast(named)
    rows = pa.table({"title": ["t"] * 4, "item_id": ids, "vector": pa.array(VALUES[SHUFFLED].tolist(), kind)})
    pq.write_table(rows, folder / "v.parquet")
    assert command(capsys, "import", "v.parquet", "--as", "pq", "--kind", "item")[0] == 0
    embedding = Warehouse(folder / "w").current().read("embeddings_pq")["embedding"].to_pylist()
    np.testing.assert_array_equal(np.array(embedding, np.float32), VALUES)


def refusals(folder: Path) -> list[tuple[list[str], int, str]]:
    """Words after `import`, the exit code, and what the last line says."""
    ids = str(saved_ids(folder, "txt"))
    bad = {name: VALUES.copy() for name in ("nan", "zero", "huge")}
    bad["nan"][1, 2], bad["zero"][3] = np.nan, 0
    for name, values in bad.items():
        np.save(folder / f"{name}.npy", values[SHUFFLED])
    np.save(folder / "huge.npy", np.full((4, 5), 1e300))
    np.save(folder / "whole.npy", np.ones((4, 5), int))
    np.save(folder / "text.npy", np.array([["a"]]))
    np.save(folder / "flat.npy", VALUES[0])
    np.save(folder / "alone.npy", VALUES)
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(folder / "real_ids.npy", np.array([0.5] * 4))
    (folder / "twice.txt").write_text("0\n1\n1\n0\n", encoding="utf-8")
    (folder / "short.txt").write_text("0\n1\n", encoding="utf-8")
    (folder / "strange.txt").write_text("a\nb\nc\nd\n", encoding="utf-8")
    (folder / "odd.json").write_text('{"0": 1}', encoding="utf-8")
    (folder / "v.bin").write_bytes(b"x")
    (folder / "torn.parquet").write_bytes(b"PAR1 no PAR1")
    two = pa.table({"id": ["0"], "a": [[1.0]], "b": [[2.0]]})
    pq.write_table(two, folder / "two.parquet")
    pq.write_table(pa.table({"id": ["0", "1"], "a": [[1.0], [1.0, 2.0]]}), folder / "ragged.parquet")
    pq.write_table(pa.table({"id": ["0", None], "a": [[1.0], [2.0]]}), folder / "nameless.parquet")
    pq.write_table(pa.table({"id": ["0", "1"], "a": [[1.0], None]}), folder / "gaps.parquet")
    with (folder / "program.pkl").open("wb") as stream:
        pickle.dump(Path("x"), stream)
    as_x, mini = ["--as", "x", "--kind", "item"], ["--as", "mini", "--kind", "item"]
    return [
        (["nan.npy", *as_x, "--ids", ids], 2, "1 vectors hold a number that is not finite (1)"),
        (["zero.npy", *as_x, "--ids", ids], 2, "1 vectors are all zero (3)"),
        (["huge.npy", *as_x, "--ids", ids], 2, "4 vectors hold a number that is not finite"),
        (["whole.npy", *as_x, "--ids", ids], 2, "expected floats (n, d)"),
        (["text.npy", *as_x, "--ids", ids], 2, "expected floats (n, d)"),
        (["flat.npy", *as_x, "--ids", ids], 2, "expected floats (n, d)"),
        (["objects.npy", *as_x, "--ids", ids], 2, "it is no array of numbers"),
        (["alone.npy", *as_x], 2, "nothing says whose its rows are"),
        (["alone.npy", *as_x, "--ids", "twice.txt"], 2, "2 ids are there more than once (0, 1)"),
        (["alone.npy", *as_x, "--ids", "short.txt"], 2, "4 vectors and 2 ids name them"),
        (["alone.npy", *as_x, "--ids", "odd.json"], 2, "its ids cannot be read (expected a list)"),
        (["alone.npy", *as_x, "--ids", "real_ids.npy"], 2, "expected integers or texts (n,), got float64"),
        (["alone.npy", *as_x, "--ids", "absent.txt"], 2, "it is no file of ids"),
        (["alone.npy", *as_x, "--ids", "strange.txt", "--max-unknown", "1"], 4, "4 of 4 vectors have an id"),
        (["alone.npy", *mini, "--ids", ids], 2, "`embeddings_mini` holds the vectors of an encoder"),
        (["alone.npy", "--as", "No", "--kind", "item", "--ids", ids], 2, "'embeddings_No' is not a table"),
        (["alone.npy", "--as", "x", "--kind", "film", "--ids", ids], 2, "item or user"),
        (["alone.npy", "--kind", "item"], 2, "one of them"),
        (["v.bin", *as_x], 2, "Expected .npy, .parquet or .pkl"),
        (["absent.npy", *as_x], 2, "there is no such file"),
        (["torn.parquet", *as_x], 2, "it is no Parquet file that can be read"),
        (["two.parquet", *as_x], 2, "which column holds the vector is not clear"),
        (["two.parquet", *as_x, "--vector-column", "id"], 2, "which column holds the vector is not clear"),
        (["ragged.parquet", *as_x], 2, "of several widths"),
        (["nameless.parquet", *as_x], 2, "1 rows without an id"),
        (["gaps.parquet", *as_x], 2, "rows without a vector"),
        (["two.parquet", *as_x, "--ids", ids], 2, "it names its rows itself"),
        (["program.pkl", *as_x], 6, "it names 'pathlib.PosixPath'"),
    ]


def test_what_cannot_be_taken_is_refused_with_its_ids_and_nothing_is_half_written(folder, capsys):
    cases = refusals(folder)

    def held() -> dict[str, bytes]:
        kept = [path for path in (folder / "w").rglob("*") if path.is_file() and path.name != "LOCK"]
        return {str(path): path.read_bytes() for path in kept if path.name != "verified.json"}

    before = held()
    for words, expected, sentence in cases:
        code, document, last = command(capsys, "import", *words)
        assert (code, document) == (expected, {}), (words, last)
        assert sentence in last, (words, last)
        assert held() == before, words


def test_vectors_of_another_width_cannot_join_those_of_the_other_kind(folder, capsys):
    np.save(folder / "v.npy", VALUES[SHUFFLED])
    command(capsys, "import", "v.npy", "--as", "x", "--kind", "item", "--ids", str(saved_ids(folder, "txt")))
    (folder / "users.json").write_text(json.dumps(USERS), encoding="utf-8")
    np.save(folder / "u.npy", np.ones((3, 2), np.float32))
    code, _, last = command(capsys, "import", "u.npy", "--as", "x", "--kind", "user", "--ids", "users.json")
    assert code == 2 and "holds items with vectors of 5 numbers, these have 2" in last


def test_what_is_exported_is_imported_again_bit_for_bit(folder, capsys):
    code, said, _ = command(capsys, "export", "embeddings", "--kind", "user", "--output", "u.npy")
    assert code == 0 and said["rows"] == 3 and [Path(file).name for file in said["files"]] == ["u.npy", "u.ids.json"]
    assert command(capsys, "import", "u.npy", "--as", "again", "--kind", "user")[0] == 0
    now = Warehouse(folder / "w").current()
    rows = now.read("embeddings_again").to_pylist()
    assert [row["entity_id"] for row in rows] == sorted(USERS)
    np.testing.assert_array_equal(
        np.array([row["embedding"] for row in rows], np.float32), np.stack([AFTER["user", u] for u in sorted(USERS)])
    )
    command(capsys, "export", "embeddings_mini", "--output", "both.parquet")
    assert pq.read_table(folder / "both.parquet").equals(now.read("embeddings_mini"))
    code, _, last = command(capsys, "import", "both.parquet", "--as", "both", "--kind", "user", "--max-unknown", "0.6")
    assert code == 0 and "3 user vectors" in last


def test_tables_go_out_as_parquet_csv_and_json(folder, capsys):
    for form in ("parquet", "csv", "json"):
        code, said, _ = command(capsys, "export", "profiles", "--kind", "item", "--output", f"p.{form}")
        assert code == 0 and said["rows"] == len(ITEMS)
    assert pq.read_table(folder / "p.parquet")["kind"].to_pylist() == ["item"] * len(ITEMS)
    assert "'=a formula" in (folder / "p.csv").read_text(encoding="utf-8")
    assert len(json.loads((folder / "p.json").read_text(encoding="utf-8"))["rows"]) == len(ITEMS)
    assert {Path(path).name for path in Warehouse(folder / "w").exports()} == {"p.parquet", "p.csv", "p.json"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["embeddings", "--output", "v.csv"], "its vectors have no place in a cell"),
        (["embeddings", "--output", "v.npy"], "told apart by --kind alone"),
        (["profiles", "--kind", "item", "--output", "v.npy"], "it has no vectors"),
        (["users", "--kind", "user", "--output", "v.csv"], "its rows are of one kind"),
        (["films", "--output", "v.csv"], "unknown table `films`"),
        (["items", "--output", "v.xlsx"], ".parquet, .npy, .csv, .json"),
        (["items", "--output", "taken.csv"], "it was left alone"),
        (["items", "--output", "w/items.csv"], "a file outside the warehouse"),
    ],
)
def test_an_export_that_makes_no_sense_is_refused(folder, capsys, words, sentence):
    (folder / "taken.csv").touch()
    code, _, last = command(capsys, "export", *words)
    assert code == 2 and sentence in last
    assert not list(folder.glob("v.*")) and Warehouse(folder / "w").exports() == []


def test_a_forgotten_user_is_in_no_imported_table_and_every_export_is_named(folder, capsys):
    (folder / "users.json").write_text(json.dumps(USERS), encoding="utf-8")
    np.save(folder / "u.npy", VALUES[:3])
    assert command(capsys, "import", "u.npy", "--as", "x", "--kind", "user", "--ids", "users.json")[0] == 0
    assert command(capsys, "export", "embeddings_x", "--kind", "user", "--output", "out.npy")[0] == 0
    code, removal, _ = command(capsys, "forget-user", "u", "--yes")
    assert code == 0 and removal["rows"]["embeddings_x"] == 1
    assert {Path(path).name for path in removal["elsewhere"]} == {"out.npy", "out.ids.json"}
    now = Warehouse(folder / "w").current()
    assert now.read("embeddings_x")["entity_id"].to_pylist() == ["v", "w"]
    words = ["import", "u.npy", "--as", "x", "--kind", "user", "--ids", "users.json"]
    code, _, last = command(capsys, *words)
    assert code == 4 and "no user here has" in last
    assert command(capsys, *words, "--max-unknown", "0.5")[1]["rows"] == 2


ids = st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=12, unique=True)
numbers = st.floats(-10, 10, width=32).filter(lambda number: abs(number) > 1e-3)


@settings(max_examples=25)
@given(data=st.data())
def test_written_vectors_are_read_again_under_their_ids_bit_for_bit(tmp_path_factory, data):
    named = data.draw(ids)
    width = data.draw(st.integers(1, 5))
    values = data.draw(arrays.arrays(np.float32, (len(named), width), elements=numbers))
    values = (values / np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)).astype(np.float32)
    path = tmp_path_factory.mktemp("law") / "v.npy"
    write_vectors(path, named, values)
    again = read_vectors(path)
    assert (again.ids, again.scaled) == (named, 0)
    np.testing.assert_array_equal(again.values.view(np.uint32), values.view(np.uint32))
