"""Commits: staging → fsync → rename → fsync, the manifest last; a crash leaves the old version or the new one."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from warehouse.errors import SchemaMismatchError, UnknownTableError
from warehouse.fragments import Fragment, VerifiedFiles, new_fragment, widths
from warehouse.migrations import schema_version
from warehouse.snapshot import FORMAT, Snapshot, seal
from warehouse.storage import (
    canonical_json,
    content_key,
    created,
    disk_faults_named,
    file_name,
    fsync_directory,
    make_directory,
    sql_identifier,
)
from warehouse.table import Table, declared, sql_columns, vector_width
from warehouse.tables import TABLES

HISTORY = frozenset(table.name for table in TABLES if table.history)


class SnapshotBuilder:
    """The next version in the making: the parent's tables carried over, some replaced, some appended to.

    Nothing is on disk before `commit`, and nothing is published by it.
    """

    def __init__(
        self,
        root: Path,
        parent: Snapshot | None,
        *,
        current: Callable[[], Snapshot | None],
        next_counter: Callable[[], int],
        require_lock: Callable[[str], None],
        verified: VerifiedFiles,
    ) -> None:
        self._root = root
        self._parent = parent
        self._current = current
        self._next_counter = next_counter
        self._require_lock = require_lock
        self._verified = verified
        self._carried: dict[str, list[Fragment]] = dict(parent.tables) if parent else {}
        self._pending: dict[str, list[pa.Table]] = {}
        self._whole: set[str] = set()
        self._stages: dict[str, dict[str, Any]] = dict(parent.stages) if parent else {}
        self._default_embeddings = parent.default_embeddings if parent else None

    def replace(self, name: str, rows: pa.Table) -> None:
        """The table holds exactly these rows from now on, a history table included.

        Raises:
            UnknownTableError, SchemaMismatchError, DuplicateKeyError: the rows are refused before anything is written.
        """
        table = self._declared(name)
        fitting = self._fitting(table, rows)
        self._carried.pop(name, None)
        self._whole.add(name)
        self._pending[name] = [fitting]

    def append(self, name: str, rows: pa.Table) -> None:
        """The table holds these rows too. Rows that are there already as one fragment are not added twice.

        Raises:
            UnknownTableError, SchemaMismatchError, DuplicateKeyError: as in `replace`; keys are compared within `rows`.
        """
        table = self._declared(name)
        fitting = self._fitting(table, rows)
        found = widths(self._carried.get(name, []))
        if table.family and found and found != {_width(fitting)}:
            raise SchemaMismatchError(name, f"vectors of {_width(fitting)} numbers", f"{found.pop()}, as in the table")
        if fitting.num_rows:
            self._pending.setdefault(name, []).append(fitting)

    def drop_table(self, name: str) -> None:
        """The table is empty from now on."""
        self._declared(name)
        self._carried.pop(name, None)
        self._pending.pop(name, None)
        self._whole.add(name)
        if self._default_embeddings == name:
            self._default_embeddings = None

    def remember(self, other: Snapshot) -> None:
        """This version has every history row of another one too, whatever becomes of that."""
        self._carried = united(self._carried, other)

    def default_embeddings(self, name: str | None) -> None:
        """`embeddings` stands for this encoder's table, or for none; without a call, for the one written last."""
        written = {*self._carried, *self._pending}
        if name is not None and (not self._declared(name).family or name not in written):
            raise UnknownTableError(name, [known for known in self._names() if known.startswith("embeddings_")])
        self._default_embeddings = name

    def stage(self, name: str, *, key: str, summary: Mapping[str, Any]) -> None:
        """This version went through a stage: what it is found by again, and what is worth saying of it.

        Raises:
            TypeError, ValueError: the summary is not JSON; found here and not in the middle of a commit.
        """
        self._stages[sql_identifier(name)] = {"key": key, "summary": json.loads(canonical_json(dict(summary)))}

    def drop_stage(self, name: str) -> None:
        """This version did not go through a stage its parent went through; nothing happens where none did."""
        self._stages.pop(name, None)

    def commit(self, *, settings_hash: str = "", code_version: str = "", ledger_mark: int | None = None) -> Snapshot:
        """The new snapshot, on disk whole; CURRENT still points where it did.

        Raises:
            LockRequiredError: the run lock is not held by this process.
            DiskFullError, DiskFaultError: nothing was committed; staging is empty again.
        """
        self._require_lock("a commit")
        staging = make_directory(self._root / "staging") / uuid.uuid4().hex
        try:
            with disk_faults_named(self._root, self._pending_bytes()):
                make_directory(staging / "snapshot")
                fresh = self._write_fragments(staging)
                manifest = self._manifest(fresh, settings_hash, code_version, ledger_mark)
                with created(staging / "snapshot" / "manifest.json") as stream:
                    stream.write(seal(manifest))
                fsync_directory(staging / "snapshot")
                self._install_fragments(fresh)
                self._install_manifest(staging / "snapshot", manifest["id"])
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return Snapshot(self._root, manifest, self._verified)

    def _declared(self, name: str) -> Table:
        table = declared(TABLES, name)
        if table is None:
            raise UnknownTableError(name, [t.name + ("_<encoder>" if t.family else "") for t in TABLES])
        return table

    def _fitting(self, table: Table, rows: pa.Table) -> pa.Table:
        fitting = table.conform(rows)
        table.check_keys(fitting)
        if table.family:
            self._default_embeddings = table.name
        return fitting

    def _names(self) -> list[str]:
        return sorted({*self._carried, *self._pending})

    def _pending_bytes(self) -> int:
        return sum(rows.nbytes for tables in self._pending.values() for rows in tables)

    def _write_fragments(self, staging: Path) -> list[tuple[str, Path, Fragment]]:
        fresh = []
        for name, tables in sorted(self._pending.items()):
            for number, rows in enumerate(tables):
                staged = staging / f"{name}-{number}.parquet"
                fresh.append((name, staged, new_fragment(self._root, name, rows, staged)))
        fsync_directory(staging)
        return fresh

    def _install_fragments(self, fresh: Sequence[tuple[str, Path, Fragment]]) -> None:
        folders = set()
        for _, staged, fragment in fresh:
            folders.add(make_directory(fragment.path.parent))
            # a file of that name holds the same bytes or rotten ones: replacing it is right in both cases
            os.replace(staged, fragment.path)
        for folder in sorted(folders):
            fsync_directory(folder)

    def _install_manifest(self, staged: Path, snapshot_id: str) -> None:
        snapshots = make_directory(self._root / "snapshots")
        os.rename(staged, snapshots / file_name(snapshot_id))
        fsync_directory(snapshots)

    def _manifest(
        self, fresh: Sequence[tuple[str, Path, Fragment]], settings_hash: str, code_version: str, mark: int | None
    ) -> dict[str, Any]:
        tables = united(self._carried, self._current(), skip=self._whole)
        for name, _, fragment in fresh:
            present = tables.setdefault(name, [])
            if all(known.sha256 != fragment.sha256 for known in present):
                present.append(fragment)
        content = {
            "tables": {name: [fragment.entry() for fragment in tables[name]] for name in sorted(tables)},
            "default_embeddings": self._default_embeddings,
            "stages": self._stages,
            "settings_hash": settings_hash,
            "code_version": code_version,
        }
        counter, digest = self._next_counter(), content_key(content)
        return {
            "format": FORMAT,
            "schema": schema_version(),
            "id": f"{counter:08d}-{digest[:12]}",
            "counter": counter,
            "parent": self._parent.id if self._parent else None,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "content": digest,
            "ledger_mark": mark,
            **content,
        }


def united(
    tables: Mapping[str, Sequence[Fragment]], current: Snapshot | None, skip: frozenset[str] | set[str] = frozenset()
) -> dict[str, list[Fragment]]:
    """The tables with every history fragment of CURRENT among theirs, so that no branch loses what happened."""
    merged = {name: list(fragments) for name, fragments in tables.items()}
    published = current.tables if current else {}
    for name in HISTORY - set(skip):
        both = [*published.get(name, []), *merged.get(name, [])]
        unique = list({fragment.sha256: fragment for fragment in both}.values())
        if unique:
            merged[name] = unique
    return merged


def _width(rows: pa.Table) -> int | None:
    return vector_width(sql_columns(rows.schema))
