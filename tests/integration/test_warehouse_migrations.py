"""The tables' history: every snapshot ever written is read for ever, and what could not be is refused by name."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from warehouse import (
    TABLES,
    FormatVersionError,
    SchemaDriftError,
    SchemaMismatchError,
    Warehouse,
    arrow_table,
    atomic_write,
)
from warehouse.migrations import schema_version, steps
from warehouse.snapshot import seal
from warehouse.table import Table, sql_columns

GOLDEN = Path(__file__).parents[1] / "golden" / "snapshots"
VERSIONS = sorted(path.name for path in GOLDEN.glob("schema-*"))
MEND = (
    "the tables changed without a step: add warehouse/migrations/NNNN_what.sql with ADD COLUMN or CREATE TABLE "
    "statements. Columns are never renamed, dropped or retyped: what means something else is a new column"
)


def columns_made(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, tuple[str, str]]]:
    """table → column → (type, whether it may be null) of what a database holds."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    query = "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
    for table, column, kind, nullable in connection.execute(query).fetchall():
        found.setdefault(table, {})[column] = (kind, nullable)
    return found


def test_the_steps_make_exactly_the_tables_of_today():
    with duckdb.connect() as by_steps, duckdb.connect() as by_declaration:
        for sql in steps().values():
            by_steps.execute(sql)
        for table in TABLES:
            kinds = sql_columns(table.schema)
            body = ", ".join(
                f"{field.name} {kinds[field.name]}{'' if field.nullable else ' NOT NULL'}" for field in table.schema
            )
            by_declaration.execute(f"CREATE TABLE {table.name} ({body})")
        made, declared = columns_made(by_steps), columns_made(by_declaration)
    assert made == declared, MEND


def test_steps_are_numbered_without_gaps_and_only_add():
    assert list(steps()) == list(range(1, schema_version() + 1))
    allowed = re.compile(r"CREATE TABLE \w+ \(.*\)|ALTER TABLE \w+ ADD COLUMN \w+ [A-Z\[\]]+", re.DOTALL)
    for number, sql in steps().items():
        text = "\n".join(line for line in sql.splitlines() if not line.startswith("--"))
        for statement in filter(None, map(str.strip, text.split(";"))):
            assert allowed.fullmatch(statement), f"step {number}: {statement}"


def opened(version: str, folder: Path) -> tuple[Warehouse, dict]:
    root = folder / "w"
    shutil.copytree(GOLDEN / version, root)
    return Warehouse(root), json.loads((root / "expected.json").read_text(encoding="utf-8"))


def plain(rows: list[dict]) -> list[dict]:
    return json.loads(json.dumps(rows, default=lambda moment: moment.isoformat()))


@pytest.mark.parametrize("version", VERSIONS)
def test_T_C6_a_golden_snapshot_is_read_by_this_version(version, tmp_path):
    warehouse, expected = opened(version, tmp_path)
    snapshot = warehouse.current()
    assert snapshot is not None and snapshot.id == expected["snapshot"]
    assert warehouse.verify().files == sum(map(len, snapshot.tables.values()))
    assert [older.counter for older in warehouse.snapshots()] == [2, 1]
    with warehouse.catalogue(snapshot) as catalogue:
        seen = {name: plain(catalogue.query(f"SELECT * FROM {name}").to_pylist()) for name in expected["tables"]}
    for name, before in expected["tables"].items():
        now = plain(snapshot.read(name).to_pylist())
        known = {column for row in before for column in row}
        assert [{column: row[column] for column in known} for row in now] == before, name
        younger = {column: row[column] for row in now for column in row if column not in known}
        assert all(value is None for value in younger.values()), f"{name}: {younger}"
        assert sorted(map(json.dumps, seen[name])) == sorted(map(json.dumps, now)), name


@pytest.mark.parametrize("version", VERSIONS)
def test_T_C6_what_is_written_on_a_golden_snapshot_stands_beside_its_rows(version, tmp_path):
    warehouse, expected = opened(version, tmp_path)
    run = {"run_id": ["new"], "command": ["run"], "started_at": [0], "settings": ["{}"], "settings_hash": ["h"]}
    with warehouse.lock():
        builder = warehouse.begin(warehouse.current())
        builder.append("runs", arrow_table("runs", {**run, "usd": [0.5]}))
        published = warehouse.publish(builder.commit())
        warehouse.gc(keep=1, min_age_s=0)
    assert published.manifest["schema"] == schema_version()
    rows = published.read("runs").to_pylist()
    assert [row["run_id"] for row in rows] == [*(row["run_id"] for row in expected["tables"]["runs"]), "new"]
    assert rows[-1]["usd"] == 0.5
    with warehouse.catalogue(published) as catalogue:
        assert catalogue.query("SELECT count(*) AS n FROM runs")["n"].to_pylist() == [len(rows)]


def test_a_golden_snapshot_of_every_step_that_changed_a_table_is_kept():
    assert VERSIONS[0] == "schema-1"
    for version in VERSIONS:
        assert int(version.removeprefix("schema-")) <= schema_version()


def changed(table: Table, kind: str) -> Table:
    """The table after somebody renamed, dropped or retyped its second column."""
    fields = list(table.schema)
    if kind == "dropped":
        del fields[1]
    elif kind == "renamed":
        fields[1] = fields[1].with_name("another_name")
    else:
        fields[1] = fields[1].with_type(pa.int64())
    return Table(table.name, pa.schema(fields), table.keys, table.history, table.family)


@pytest.mark.parametrize("kind", ["dropped", "renamed", "retyped"])
def test_a_column_that_is_gone_is_refused_by_name_and_never_read_as_null(kind, tmp_path, monkeypatch):
    warehouse, _ = opened(VERSIONS[-1], tmp_path)
    tables = tuple(changed(table, kind) if table.name == "items" else table for table in TABLES)
    monkeypatch.setattr("warehouse.snapshot.TABLES", tables)
    snapshot = warehouse.current()
    for read in (lambda: snapshot.read("items"), snapshot.verify, lambda: warehouse.catalogue(snapshot).__enter__()):
        with pytest.raises(SchemaDriftError, match="column `title` VARCHAR") as caught:
            read()
        assert caught.value.exit_code == 2
    assert snapshot.read("users").num_rows == 2


def test_a_manifest_of_a_later_step_says_so(tmp_path):
    warehouse, _ = opened(VERSIONS[-1], tmp_path)
    snapshot = warehouse.current()
    path = warehouse.root / "snapshots" / snapshot.id / "manifest.json"
    atomic_write(path, seal({**snapshot.manifest, "schema": schema_version() + 1}))
    with pytest.raises(FormatVersionError, match="install the newer semalign"):
        Warehouse(warehouse.root).current()


def test_rows_of_another_shape_are_refused_before_they_are_written(tmp_path):
    warehouse = Warehouse(tmp_path)
    builder = warehouse.begin(None)
    with pytest.raises(SchemaMismatchError, match="unknown column"):
        builder.replace("items", pa.table({"item_id": ["1"], "attributes": ["{}"], "colour": ["red"]}))
