"""Rows of a query in the form asked for: whole files or none, nothing that a spreadsheet or terminal would run."""

from __future__ import annotations

import csv
import io
import json

import duckdb
import pyarrow.parquet as pq
import pytest
from servers.published import TITLES, publish

from flows import cli

ALL = "SELECT item_id, title FROM items ORDER BY item_id"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sql")
    publish(folder / "w")
    return folder / "w"


@pytest.fixture
def sql(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(["sql", *words, "--root", str(root)])
        out, err = capsys.readouterr()
        return code, out, err.strip().splitlines()[-1]

    return run


def test_csv_has_every_row_and_a_formula_is_only_text(sql):
    code, out, _ = sql(ALL, "--format", "csv")
    expected = [[item, f"'{title}" if title.startswith("=") else title] for item, title in TITLES.items()]
    assert code == 0 and list(csv.reader(io.StringIO(out))) == [["item_id", "title"], *expected]


@pytest.mark.parametrize("beginning", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\x1b[31mred"])
def test_no_cell_begins_as_a_formula_or_moves_the_cursor(sql, beginning):
    code, out, _ = sql(f"SELECT '{beginning}' AS x, 2 AS n, ['=a'] AS l", "--format", "csv")
    ((cell, number, many),) = list(csv.reader(io.StringIO(out, newline="")))[1:]
    assert code == 0 and number == "2" and json.loads(many) == ["=a"]
    assert cell.startswith(("'", "\ufffd")) and "\x1b" not in out


def test_json_is_one_document_by_either_word(sql):
    assert sql(ALL, "--format", "json")[1] == sql(ALL, "--json")[1]
    assert json.loads(sql(ALL, "--json")[1])["rows"][0] == {"item_id": "0", "title": "Quiet lake"}


def test_a_files_name_says_its_format_and_types_survive_in_parquet(sql, tmp_path):
    code, out, last = sql("SELECT * FROM embeddings ORDER BY ALL", "--output", "rows.parquet")
    stored = pq.read_table(tmp_path / "rows.parquet")
    assert (code, out, stored.num_rows) == (0, "", 7) and "rows.parquet" in last
    assert [len(vector) for vector in stored.column("embedding").to_pylist()] == [6] * 7
    assert stored.schema.field("embedding").type.value_type == "float"


def test_a_file_that_is_there_stays_unless_forced(sql, tmp_path):
    (tmp_path / "mine.csv").write_text("precious", encoding="utf-8")
    code, _, last = sql(ALL, "--output", "mine.csv")
    assert code == 2 and "--force" in last and (tmp_path / "mine.csv").read_text(encoding="utf-8") == "precious"
    assert sql(ALL, "--output", "mine.csv", "--force")[0] == 0
    assert (tmp_path / "mine.csv").read_text(encoding="utf-8").startswith("item_id,title\n0,Quiet lake")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "--export FILE.duckdb"),
        ((ALL, "--export", "x.duckdb"), "one of them"),
        ((ALL, "--format", "xlsx"), "csv, json, jsonl or parquet"),
        ((ALL, "--format", "parquet"), "--output FILE.parquet"),
        ((ALL, "--output", "rows.txt"), "csv, json, jsonl or parquet"),
        ((ALL, "--output", "no/such/folder.csv"), "a folder that exists"),
        (("--export", "."), "a folder that exists"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(sql, tmp_path, words, sentence):
    code, out, last = sql(*words)
    assert (code, out) == (2, "") and sentence in last
    assert list(tmp_path.iterdir()) == []


def test_a_broken_query_leaves_no_file(sql, tmp_path):
    code, _, last = sql("SELECT nothing FROM items", "--output", "x.csv")
    assert code == 2 and "nothing" in last and list(tmp_path.iterdir()) == []


def test_the_snapshot_as_one_database(sql, tmp_path):
    code, _, last = sql("--export", "all.duckdb")
    assert code == 0 and "duckdb -readonly all.duckdb" in last
    with duckdb.connect(str(tmp_path / "all.duckdb"), read_only=True) as connection:
        assert connection.sql("SELECT item_id FROM similar_items('0', 1)").fetchall() != []
    assert sql("--export", "all.duckdb")[0] == 2 and sql("--export", "all.duckdb", "--force")[0] == 0
