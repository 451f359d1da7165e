"""Snapshots: everything that belongs together, named by one immutable manifest."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from warehouse.errors import CorruptFileError, FormatVersionError, UnknownColumnError, UnknownTableError
from warehouse.fragments import Fragment, VerifiedFiles, read_parquet
from warehouse.migrations import refuse_drift, schema_version
from warehouse.storage import canonical_json, content_key
from warehouse.table import Table, declared, sql_columns
from warehouse.tables import TABLES

FORMAT = 1


class Snapshot:
    """One whole version of the warehouse: pinned files, never changed after its commit.

    Attributes:
        id: counter and content, for example `00000012-3f9a0c55d1e2`.
        counter: grows with every commit; what orders snapshots.
        parent: the id this one was made from, or None.
        created_at: a label in UTC; nothing is decided by it.
        stages: stage name → {"key", "summary"} of everything this version went through.
        tables: table name → its fragments.
        manifest: the whole manifest as it was written.
    """

    def __init__(self, root: Path, manifest: Mapping[str, Any], verified: VerifiedFiles) -> None:
        self._root = root
        self.manifest = manifest
        self.id: str = manifest["id"]
        self.counter: int = manifest["counter"]
        self.parent: str | None = manifest["parent"]
        self.created_at: str = manifest["created_at"]
        self.stages: dict[str, dict[str, Any]] = manifest["stages"]
        self.default_embeddings: str | None = manifest["default_embeddings"]
        self.tables: dict[str, list[Fragment]] = {
            table: [Fragment.from_entry(root, table, entry) for entry in entries]
            for table, entries in manifest["tables"].items()
        }
        self._verified = verified

    def __repr__(self) -> str:
        return f"Snapshot({self.id!r})"

    def resolve(self, name: str) -> Table:
        """The declared table a name stands for; `embeddings` stands for the default encoder's.

        Raises:
            UnknownTableError: nothing of that name is declared.
        """
        if name == "embeddings":
            stem = next(table for table in TABLES if table.name == "embeddings")
            return stem.member(self.default_embeddings) if self.default_embeddings else stem
        table = declared(TABLES, name)
        if table is None or (table.family and name not in self.tables):
            raise UnknownTableError(name, sorted({t.name for t in TABLES} | set(self.tables)))
        return table

    def rows(self, name: str) -> int:
        """How many rows a table has; 0 for a declared table nothing was written to."""
        return sum(fragment.rows for fragment in self.tables.get(self.resolve(name).name, []))

    def columns(self, name: str) -> dict[str, str]:
        """Column name → SQL type of a table, as its newest fragment has it."""
        table = self.resolve(name)
        fragments = self.tables.get(table.name)
        return dict(fragments[-1].columns) if fragments else sql_columns_of(table)

    def read(
        self, name: str, columns: Sequence[str] | None = None, filter_equal: Mapping[str, object] | None = None
    ) -> pa.Table:
        """A table's rows, every file proved against the manifest before it is believed.

        Args:
            name: a declared table, `embeddings` or `embeddings_<encoder>`.
            columns: which ones, in order; None for all.
            filter_equal: column → value; only rows that have all of them.

        Raises:
            UnknownTableError, UnknownColumnError: the names known are in the message.
            CorruptFileError: a file's bytes are not the ones that were committed.
            SchemaDriftError: a file has a column that the table has no longer, or as another type.
        """
        table = self.resolve(name)
        wanted = list(columns) if columns is not None else list(table.schema.names)
        conditions = dict(filter_equal or {})
        for column in (*wanted, *conditions):
            if column not in table.schema.names:
                raise UnknownColumnError(name, column, table.schema.names)
        fragments = self.tables.get(table.name, [])
        self._check({table.name: fragments})
        needed = list(dict.fromkeys([*wanted, *conditions]))
        parts = [_filtered(_read_conformed(table, fragment, needed), conditions) for fragment in fragments]
        if not parts:
            return table.empty().select(wanted)
        return pa.concat_tables(parts, promote_options="default").select(wanted)

    def verify(self, tables: Sequence[str] | None = None, *, trust_notes: bool = False) -> int:
        """How many bytes were proved; hashes every file of the snapshot, or of some tables.

        Args:
            trust_notes: pass over files that were hashed in full since they last changed.

        Raises:
            CorruptFileError: names the first file that is not what was committed.
            SchemaDriftError: this version cannot read one of them.
        """
        chosen = self.tables if tables is None else {name: self.tables.get(name, []) for name in tables}
        self._check(chosen, trust_notes=trust_notes)
        return sum(fragment.bytes for fragments in chosen.values() for fragment in fragments)

    def doubting(self) -> "Snapshot":
        """The same version, for work that is kept: notes are not believed, each file is hashed before its first read.

        Training and recommending read through this; a bit that rotted where no note tells is found there.
        """
        return Snapshot(self._root, self.manifest, VerifiedFiles(self._root, doubting=True))

    def _check(self, chosen: Mapping[str, Sequence[Fragment]], *, trust_notes: bool = True) -> None:
        for name, fragments in chosen.items():
            table = declared(TABLES, name)
            for fragment in fragments:
                if table is not None:
                    refuse_drift(table, fragment.columns, str(fragment.path))
                self._verified.check(fragment.path, fragment.sha256, fragment.bytes, trust_notes=trust_notes)
        self._verified.save()


def sql_columns_of(table: Table) -> dict[str, str]:
    """The SQL columns of a declared table; a family's vectors are one wide where no encoder has written yet."""
    columns = sql_columns(table.schema)
    return {name: "FLOAT[1]" if table.family and kind == "FLOAT[]" else kind for name, kind in columns.items()}


def seal(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as written: canonical JSON with the sha256 of everything else in it."""
    return canonical_json({**manifest, "checksum": content_key(dict(manifest))}).encode()


def load_manifest(path: Path, snapshot_id: str) -> dict[str, Any]:
    """A manifest whose checksum, name and format are right.

    Raises:
        CorruptFileError: a bit of it changed, or it belongs to another snapshot.
        FormatVersionError: a newer program wrote it.
    """
    cure = f"remove the folder {path.parent} if no run needs it, or restore it from a backup"
    try:
        manifest = json.loads(path.read_bytes())
        checksum = manifest.pop("checksum")
        version = manifest["format"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CorruptFileError(str(path), f"it is no manifest ({error})", cure) from error
    if checksum != content_key(manifest):
        raise CorruptFileError(str(path), "its checksum does not match its content", cure)
    # manifests of the first versions name no schema: whatever they name was there before the newest step
    for got, known in ((version, FORMAT), (manifest.get("schema", 0), schema_version())):
        if got > known:
            raise FormatVersionError(str(path), got, known)
    if manifest["id"] != snapshot_id:
        raise CorruptFileError(str(path), f"it is the manifest of {manifest['id']}", cure)
    return manifest


def _read_conformed(table: Table, fragment: Fragment, columns: Sequence[str]) -> pa.Table:
    # columns added since the fragment was written are null in it; the order is the one asked for
    rows = read_parquet(fragment, columns)
    for name in columns:
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.nulls(fragment.rows, table.schema.field(name).type))
    return rows.select(columns).replace_schema_metadata(None)


def _filtered(rows: pa.Table, conditions: Mapping[str, object]) -> pa.Table:
    if not conditions:
        return rows
    import pyarrow.compute as pc

    for column, value in conditions.items():
        rows = rows.filter(pc.field(column) == pa.scalar(value, rows.schema.field(column).type))
    return rows
