"""Sources as people have them: every form is read, every fault is one sentence with an exit code."""

import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from warehouse import (
    ColumnMapError,
    CorruptFileError,
    EmptySourceError,
    MissingColumnError,
    MissingFileError,
    NotUtf8Error,
    UnreadableSourceError,
    is_query,
    read_source,
    source_fingerprint,
)

ROWS = [{"user_id": "007", "item_id": "a", "rating": 4.5}, {"user_id": "8", "item_id": "b", "rating": None}]


@pytest.fixture
def folder(tmp_path):
    text = "user_id,item_id,rating\n007,a,4.5\n8,b,\n"
    (tmp_path / "i.csv").write_text(text)
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "i.tsv").write_text(text.replace(",", "\t"))
    (tmp_path / "semicolons.csv").write_text(text.replace(",", ";"))
    (tmp_path / "i.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "i.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "i.jsonl.gz").write_bytes(gzip.compress((tmp_path / "i.jsonl").read_bytes()))
    (tmp_path / "i.json").write_text(json.dumps(ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "i.parquet")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["i.csv", "bom.csv", "i.tsv", "semicolons.csv", "i.csv.gz", "i.jsonl", "i.jsonl.gz", "i.json", "i.parquet"],
)
def test_every_form_gives_the_same_rows(folder, name):
    assert read_source(name, directory=folder).to_pylist() == ROWS
    assert read_source(folder / name).to_pylist() == ROWS


def test_a_query_is_a_source_too(folder):
    query = "SELECT user_id, item_id, rating FROM 'i.parquet' WHERE rating IS NOT NULL;"
    assert read_source(query, directory=folder).to_pylist() == ROWS[:1]


def test_globs_and_lists_are_read_in_order_of_name(folder):
    for number in (2, 1):
        (folder / f"part-{number}.csv").write_text(f"user_id,item_id\nu{number},i\n")
    for spec in ("part-*.csv", ["part-1.csv", "part-2.csv"]):
        assert read_source(spec, directory=folder)["user_id"].to_pylist() == ["u1", "u2"]


def test_files_with_pattern_characters_in_their_names_are_files(folder):
    (folder / "a[1].csv").write_text("user_id,item_id\nu,i\n")
    assert read_source("a[1].csv", directory=folder).num_rows == 1


def test_columns_are_renamed_and_the_others_stay(folder):
    (folder / "x.csv").write_text("who,what,fold,stars,note\n01,02,train,5,x\n")
    columns = {"user_id": "who", "item_id": "what", "split": "fold", "rating": "stars"}
    (row,) = read_source("x.csv", columns, directory=folder).to_pylist()
    assert row == {"user_id": "01", "item_id": "02", "split": "train", "rating": 5, "note": "x"}


def test_a_mapped_column_may_give_its_name_away(folder):
    (folder / "x.csv").write_text("id,item_id\n1,2\n")
    (row,) = read_source("x.csv", {"item_id": "id", "other": "item_id"}, "items", folder).to_pylist()
    assert row == {"item_id": "1", "other": 2}


def test_two_columns_of_one_name_are_refused(folder):
    (folder / "x.csv").write_text("id,item_id\n1,2\n")
    with pytest.raises(ColumnMapError, match="two columns would be called `item_id`"):
        read_source("x.csv", {"item_id": "id"}, "items", folder)


def test_attributes_keep_their_types_and_lists_stay_lists(folder):
    rows = [{"item_id": 7, "title": "1984", "tags": ["a", "b"], "year": 1949, "price": 9.5}]
    (folder / "items.jsonl").write_text(json.dumps(rows[0]) + "\n")
    pq.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")
    for name in ("items.jsonl", "items.parquet"):
        assert read_source(name, kind="items", directory=folder).to_pylist() == [{**rows[0], "item_id": "7"}]


def test_a_title_of_digits_stays_text(folder):
    (folder / "items.csv").write_text("item_id,title,year\n1,1984,1949\n2,007,1962\n")
    rows = read_source("items.csv", kind="items", directory=folder)
    assert rows["title"].to_pylist() == ["1984", "007"]
    assert rows["year"].to_pylist() == [1949, 1962]


def test_ids_of_mixed_types_in_json_lose_their_quotes(folder):
    (folder / "x.jsonl").write_text('{"user_id": 1, "item_id": "a"}\n{"user_id": "u", "item_id": "b"}\n')
    assert read_source("x.jsonl", directory=folder)["user_id"].to_pylist() == ["1", "u"]


def test_text_with_separators_quotes_and_line_breaks_is_read_as_it_is(folder):
    (folder / "x.csv").write_text('user_id,item_id,text\n1,2,"a, ""b""\nc"\n')
    assert read_source("x.csv", directory=folder)["text"].to_pylist() == ['a, "b"\nc']


def test_a_line_that_starts_with_a_hash_is_no_comment(folder):
    (folder / "x.csv").write_text("item_id,title\n#1,# one\n2,two\n")
    assert read_source("x.csv", kind="items", directory=folder)["item_id"].to_pylist() == ["#1", "2"]


def failing(folder, name, content=None, **arguments):
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises((ValueError, OSError, LookupError)) as caught:
        read_source(name, directory=folder, **arguments)
    return caught.value


def test_each_fault_has_its_error_its_file_and_its_exit_code(folder):
    faults = [
        ("absent.csv", None, MissingFileError, 2, "no file at .*absent.csv; correct the path"),
        ("none-*.csv", None, MissingFileError, 2, "none-"),
        ("empty.csv", b"", EmptySourceError, 2, "holds no rows"),
        ("header.csv", b"user_id,item_id\n", EmptySourceError, 2, "header.csv holds no rows"),
        ("blank.csv", b"\n\n", EmptySourceError, 2, "holds no rows"),
        ("latin.csv", b"user_id,item_id\n1,caf\xe9\n", NotUtf8Error, 2, "not UTF-8.*iconv"),
        ("latin-header.csv", b"user_id,item_id,caf\xe9\n1,2,3\n", NotUtf8Error, 2, "not UTF-8"),
        ("latin.jsonl", b'{"user_id": "caf\xe9", "item_id": "1"}\n', NotUtf8Error, 2, "not UTF-8"),
        ("cut.jsonl", b'{"user_id": "1", "item_id": "1"}\n{"user_id":', UnreadableSourceError, 2, "cut.jsonl.*JSON"),
        ("ragged.csv", b"user_id,item_id\n1,2\n1,2,3\n", UnreadableSourceError, 2, "ragged.csv.*[Ll]ine"),
        ("bad.csv.gz", b"not gzip at all", UnreadableSourceError, 2, "bad.csv.gz"),
        ("table.xlsx", b"x", UnreadableSourceError, 2, "expected one of .parquet"),
        ("broken.parquet", b"PAR1 no PAR1", CorruptFileError, 6, "broken.parquet cannot be trusted"),
        (
            "columns.csv",
            b"user_id,thing\n1,2\n",
            MissingColumnError,
            2,
            "no column `item_id`; its columns: user_id",
        ),
    ]
    for name, content, kind, exit_code, sentence in faults:
        error = failing(folder, name, content)
        assert type(error) is kind, name
        assert error.exit_code == exit_code
        assert re.search(sentence, str(error)), str(error)


def test_a_directory_is_no_file(folder):
    (folder / "d").mkdir()
    assert "it is a directory" in str(failing(folder, "d"))


def test_a_truncated_parquet_file_is_refused(folder):
    whole = (folder / "i.parquet").read_bytes()
    for length in (1, 8, len(whole) // 2, len(whole) - 1):
        assert isinstance(failing(folder, "cut.parquet", whole[:length]), CorruptFileError)


def test_a_wrong_query_names_itself(folder):
    error = failing(folder, "SELECT nothing FROM 'i.parquet'")
    assert isinstance(error, UnreadableSourceError)
    assert "the query `SELECT nothing" in str(error)


JSON_COPY = "json_serialize_sql('WITH x AS (COPY (SELECT 1) TO ''{out}'') FROM x')"
WRITING = [
    # what a query pasted between brackets could do: close them, act, and open them again
    "SELECT 1 AS item_id) AS rows; COPY (SELECT 42) TO '{out}'; SELECT sha256('a') AS row FROM (SELECT 1 AS x",
    "SELECT 1 AS item_id); COPY (SELECT 42) TO '{out}'; SELECT * FROM (SELECT 1 AS item_id",
    "SELECT 1 AS item_id; COPY (SELECT 42) TO '{out}'",
    "SELECT 1 AS item_id; COPY (SELECT 42) TO '{out}'; SELECT 1 AS item_id",
    "SELECT 1 AS item_id; /* ; */ ATTACH '{out}'; -- ;",
    "WITH x AS (COPY (SELECT 1 AS item_id) TO '{out}') FROM x",
    "WITH x AS MATERIALIZED (COPY (SELECT 1 AS item_id) TO '{out}') SELECT * FROM (SELECT * FROM x)",
    "SELECT * FROM (WITH x AS (COPY (SELECT 1 AS item_id) TO '{out}') FROM x)",
    f"FROM json_execute_serialized_sql({JSON_COPY})",
    f"SELECT 1 AS item_id WHERE EXISTS (FROM system.main.JSON_EXECUTE_SERIALIZED_SQL({JSON_COPY}))",
    "FROM query('FROM enable_logging(storage_path := ''{out}'')')",
    "FROM \"Query\"('SELECT 1 AS item_id')",
    "FROM enable_logging('QueryLog', storage_path := '{out}')",
    "SELECT 1 AS item_id UNION ALL SELECT 2 FROM enable_logging(storage := 'file', storage_path := '{out}')",
    "FROM enable_profiling(format := 'json', save_location := '{out}.json')",
    "FROM create_external_resource('x', map())",
    "FROM truncate_duckdb_logs()",
    "FROM duckdb_secrets()",
]


@pytest.mark.parametrize("query", WRITING)
def test_a_query_that_could_do_more_than_read_is_refused_and_does_nothing(folder, query):
    before = sorted(folder.rglob("*"))
    query = query.format(out=folder / "out.csv")
    for ask in (lambda: read_source(query, {}, "items", folder), lambda: source_fingerprint(query, folder, "items")):
        with pytest.raises(UnreadableSourceError) as caught:
            ask()
        assert caught.value.exit_code == 2
        assert str(caught.value).startswith("source.items: the query `")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "query",
    [
        "WITH kept AS (FROM 'i.parquet' WHERE rating > 4) SELECT * FROM kept -- the good ones",
        "FROM read_csv('i.csv', types := {'user_id': 'VARCHAR'}) SELECT user_id, item_id, rating LIMIT 1;",
        "SELECT * FROM ((FROM 'i.parquet' LIMIT 1) UNION ALL (FROM 'i.parquet' LIMIT 0))",
        "SELECT '007' AS user_id, 'a' AS item_id, 4.5::DOUBLE AS rating FROM range(1)",
    ],
)
def test_a_query_that_reads_is_read(folder, query):
    assert read_source(query, directory=folder).to_pylist() == ROWS[:1]
    assert len(source_fingerprint(query, folder)) == 64


def test_a_query_sees_files_and_no_variable_of_the_program(folder):
    relation = pa.Table.from_pylist(ROWS)
    assert relation.num_rows == 2
    for name in ("relation", "rows", "columns"):
        assert isinstance(failing(folder, f"SELECT * FROM {name}"), UnreadableSourceError)


def test_what_starts_like_sql_is_a_query_and_anything_else_names_files():
    assert [is_query(spec) for spec in ("SELECT 1", " with x", "from\tx")] == [True] * 3
    assert [is_query(spec) for spec in ("selected.csv", "from.csv", Path("select x"), ["select 1"], None)] == [
        False
    ] * 5


def test_a_missing_column_is_hinted_at_under_our_name(folder):
    error = failing(folder, "i.csv", columns={"rating": "stars"})
    assert "has no column `stars`" in str(error)
    assert str(error).endswith('for example rating = "…"')
    assert str(failing(folder, "i.csv", kind="items", columns={"item_id": "id"})).endswith('item_id = "…"')


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_line_that_is_no_utf8_is_quoted_itself(folder, pack):
    name = "latin.csv.gz" if pack is gzip.compress else "latin.csv"
    lines = [
        b"user_id,item_id,text",
        *(b"u%d,i,\xc3\xa9" % row for row in range(320)),
        b"odd,i,caf\xe9",
        b"last,i,t",
        b"",
    ]
    assert "(line 322, byte 10: 'odd,i,caf\\xe9')" in str(failing(folder, name, pack(b"\n".join(lines))))
    (folder / "whole.csv").write_text("user_id,item_id\n1,2\n")
    (folder / "part.csv").write_bytes(b"user_id,item_id\n1,\xff\n")
    with pytest.raises(NotUtf8Error, match=r"part.csv, line 2, byte 3: '1,\\xff'"):
        read_source(["whole.csv", "part.csv"], directory=folder)
    error = failing(folder, f"SELECT * FROM '{name}'")
    assert "not UTF-8" in str(error) and "u319" not in str(error)


def test_a_fingerprint_changes_with_the_content_and_not_with_the_place(folder, tmp_path):
    first = source_fingerprint("i.csv", folder)
    (folder / "copy.csv").write_bytes((folder / "i.csv").read_bytes())
    assert source_fingerprint("copy.csv", folder) == first
    (folder / "copy.csv").write_text("user_id,item_id\n1,3\n")
    assert source_fingerprint("copy.csv", folder) != first
    with pytest.raises(MissingFileError):
        source_fingerprint("absent.csv", folder)


def test_the_fingerprint_of_a_query_is_that_of_its_rows(folder):
    one = source_fingerprint("SELECT * FROM 'i.parquet' ORDER BY user_id", folder)
    assert source_fingerprint("SELECT * FROM 'i.parquet' ORDER BY user_id DESC", folder) == one
    assert source_fingerprint("SELECT * FROM 'i.parquet' LIMIT 1", folder) != one
    columns = [source_fingerprint(f"SELECT 1 AS rows, {other} AS other", folder) for other in (1, 2)]
    assert columns[0] != columns[1]
    assert source_fingerprint("SELECT user_id AS u, item_id, rating FROM 'i.parquet'", folder) != one
