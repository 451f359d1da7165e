"""SQL over pinned files: the macros answer, and nothing outside the snapshot can be read or written."""

from datetime import UTC, datetime

import duckdb
import numpy as np
import pytest

from warehouse import CorruptFileError, SqlError, Warehouse, arrow_table


def profiles(*texts: str):
    n = len(texts)
    columns = {"kind": ["item"] * n, "entity_id": [str(i) for i in range(n)], "profile": list(texts)}
    rest = {"source": ["attributes"] * n, "model": ["none"] * n, "prompt_id": ["games/item"] * n}
    evidence = {"prompt_version": [1] * n, "evidence_hash": ["h"] * n, "evidence": [[]] * n}
    return arrow_table("profiles", {**columns, **rest, **evidence})


def a_published_warehouse(root) -> Warehouse:
    warehouse = Warehouse(root)
    items = arrow_table("items", {"item_id": ["0", "1", "2"], "title": ["a", "b", "c"], "attributes": ["{}"] * 3})
    directions = np.array([[1, 0], [0.8, 0.6], [0, 1], [1, 0], [0.6, 0.8]])
    kinds, ids = ["item"] * 3 + ["user"] * 2, ["0", "1", "2", "u", "v"]
    vectors = {"kind": kinds, "entity_id": ids, "text_hash": ["h"] * 5, "embedding": directions}
    day = [datetime(2026, 1, 2, 23, 30, tzinfo=UTC)] * 3
    calls = {"request_key": ["a", "b", "c"], "attempt": [1, 1, 1], "state": ["ok", "ok", "sent"], "started_at": day}
    with warehouse.lock():
        builder = warehouse.begin(None)
        builder.replace("items", items)
        builder.replace("embeddings_mini", arrow_table("embeddings_mini", vectors))
        builder.replace("profiles", profiles("one", "two"))
        builder.replace("llm_calls", arrow_table("llm_calls", {**calls, "model": ["m"] * 3, "usd": [0.5, None, None]}))
        first = warehouse.publish(builder.commit())
        builder = warehouse.begin(first)
        builder.replace("profiles", profiles("one", "deux"))
        warehouse.publish(builder.commit())
    return warehouse


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return a_published_warehouse(tmp_path_factory.mktemp("catalogue") / "ware house's [1]*")


@pytest.fixture(scope="module")
def catalogue(published):
    with published.catalogue(published.current()) as opened:
        yield opened


def test_the_nearest_items_come_first_with_their_titles(catalogue):
    assert catalogue.query("FROM similar_items('0', 5)").to_pylist() == [
        {"item_id": "1", "title": "b", "similarity": pytest.approx(0.8)},
        {"item_id": "2", "title": "c", "similarity": pytest.approx(0.0)},
    ]
    assert catalogue.query("FROM similar_items(0, 1)").num_rows == 1
    assert catalogue.query("FROM similar_items(?)", ["nobody"]).num_rows == 0


def test_the_nearest_users_are_found_too(catalogue):
    assert catalogue.query("FROM similar_users($1, $2)", ["u", 3])["user_id"].to_pylist() == ["v"]


def test_the_history_of_a_profile_names_the_snapshots_it_changed_in(catalogue, published):
    assert catalogue.query("SELECT profile FROM profile_history('1')")["profile"].to_pylist() == ["two", "deux"]
    assert catalogue.query("SELECT profile FROM profile_history('0')")["profile"].to_pylist() == ["one"]
    versions = catalogue.query("SELECT first_snapshot FROM profile_history('1')")["first_snapshot"].to_pylist()
    assert versions == [snapshot.id for snapshot in reversed(published.snapshots())]


def test_cost_by_day_adds_up_known_prices_and_counts_the_unknown(catalogue):
    (row,) = catalogue.query("FROM cost_by_day()").to_pylist()
    assert row["day"].isoformat() == "2026-01-02"
    assert (row["calls"], row["answered"], row["usd"], row["unpriced"]) == (3, 2, 0.5, 2)


def test_vectors_are_fixed_size_floats_under_both_names(catalogue):
    for name in ("embeddings", "embeddings_mini"):
        kind = catalogue.query(f"SELECT typeof(embedding) AS kind FROM {name} LIMIT 1")["kind"].to_pylist()
        assert kind == ["FLOAT[2]"]


@pytest.mark.parametrize(
    "sql",
    [
        "SHOW TABLES",
        "DESCRIBE items",
        "SUMMARIZE items",
        "VALUES (1)",
        "FROM items",
        "EXPLAIN SELECT * FROM items",
        "explain analyze select 1",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT * FROM n",
        "SELECT 1 UNION SELECT 2 ORDER BY 1;",
        "SELECT (SELECT max(item_id) FROM items) AS newest -- a comment",
    ],
)
def test_reading_statements_run(catalogue, sql):
    assert catalogue.query(sql).num_rows > 0


def test_a_mistake_is_answered_with_the_tables_there_are(catalogue):
    with pytest.raises(SqlError, match=r"item.*tables: .*items, .*profile_versions") as caught:
        catalogue.query("SELECT * FROM item")
    assert caught.value.exit_code == 2
    for sql in ("SELEKT 1", "", "SELECT 1; SELECT 2", "SELECT title FROM items WHERE", "SELECT 'unfinished"):
        with pytest.raises(SqlError):
            catalogue.query(sql)


ESCAPES = [
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_csv('{root}/../secret.csv')",
    "SELECT * FROM read_parquet('{root}/tables/*/*.parquet')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM read_text('{link}')",
    "COPY (SELECT 1) TO '{root}/x.csv'",
    "COPY (SELECT 1) TO '{file}' (FORMAT parquet, USE_TMP_FILE false)",
    "WITH x AS (COPY (SELECT 1) TO '{file}' (FORMAT parquet, USE_TMP_FILE false)) FROM x",
    "SELECT * FROM query('WITH x AS (COPY (SELECT 1) TO ''{file}'' (USE_TMP_FILE false)) FROM x')",
    "FROM json_execute_serialized_sql(json_serialize_sql("
    "'WITH x AS (COPY (SELECT 1) TO ''{file}'' (USE_TMP_FILE false)) FROM x'))",
    "FROM query('FROM enable_logging(storage_path := ''{root}/logs'')')",
    "FROM enable_profiling(format := 'json', save_location := '{root}/profile.json')",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false)) FROM x",
    "/* */ EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{file}' (FORMAT parquet, USE_TMP_FILE false)",
    "ATTACH '{root}/x.duckdb'",
    "EXPORT DATABASE '{root}/export'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET threads = 1",
    "RESET ALL",
    "PRAGMA disable_verification",
    "CREATE TABLE t AS SELECT 1",
    "CREATE OR REPLACE VIEW items AS SELECT 1",
    "DROP VIEW items",
    "CALL pragma_version()",
    "WITH x AS (INSERT INTO items VALUES ('1') RETURNING *) FROM x",
    "CHECKPOINT",
    "PREPARE p AS SELECT 1",
    "SELECT * FROM params",
    "SELECT * FROM visible_in_python",
]


@pytest.mark.parametrize("escape", ESCAPES)
def test_S8_nothing_outside_the_snapshot_is_read_and_nothing_at_all_is_written(catalogue, published, tmp_path, escape):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    (tmp_path / "link").symlink_to("/etc/passwd")
    pinned = published.current().tables["items"][0].path
    before = {path: path.read_bytes() for path in published.root.rglob("*") if path.is_file()}
    visible_in_python = arrow_table(None, {"a": [1]})
    assert visible_in_python.num_rows == 1
    names = {"root": published.root, "file": pinned, "link": tmp_path / "link"}
    quoted = {name: str(path).replace("'", "''") for name, path in names.items()}
    with pytest.raises(SqlError):
        catalogue.query(escape.format(**quoted))
    assert {path: path.read_bytes() for path in published.root.rglob("*") if path.is_file()} == before


def test_the_init_file_opens_the_same_views_in_any_duckdb(published):
    connection = duckdb.connect()
    connection.execute((published.root / "init.sql").read_text())
    assert connection.sql("FROM similar_items('0', 5)").fetchall()[0][:2] == ("1", "b")
    assert connection.sql("SELECT count(*) FROM items").fetchall() == [(3,)]
    with pytest.raises(duckdb.Error):
        connection.sql("SELECT * FROM read_text('/etc/passwd')").fetchall()
    with pytest.raises(duckdb.Error):
        connection.execute("SET enable_external_access = true")


def test_a_rotten_file_is_refused_before_the_first_query(tmp_path):
    published = a_published_warehouse(tmp_path)
    path = published.current().tables["items"][0].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match="sha256"), published.catalogue(published.current()):
        pass


def test_an_older_snapshot_can_be_asked_as_well(published):
    oldest = published.snapshots()[-1]
    with published.catalogue(oldest) as catalogue:
        assert catalogue.query("SELECT profile FROM profiles WHERE entity_id = '1'")["profile"].to_pylist() == ["two"]
