"""Fragments: immutable Parquet files named by the sha256 of their bytes, checked before they are believed."""

import json
import os
import stat
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.errors import CorruptFileError, UnsafePathError
from warehouse.storage import atomic_write, created, file_name, sql_identifier, stream_sha256
from warehouse.table import fingerprint, sql_columns, vector_width

_ROWS_PER_GROUP = 131_072
_VECTOR_ROWS_PER_GROUP = 16_384


@dataclass(frozen=True)
class Fragment:
    """One immutable Parquet file: where it is, what its bytes hash to, how many rows, which SQL columns."""

    path: Path
    sha256: str
    bytes: int
    rows: int
    columns: Mapping[str, str] = field(hash=False)

    def entry(self) -> dict[str, Any]:
        """What a manifest says of the fragment."""
        return {
            "sha256": self.sha256,
            "bytes": self.bytes,
            "rows": self.rows,
            "columns": [[name, kind] for name, kind in self.columns.items()],
            "schema": fingerprint(self.columns),
        }

    @classmethod
    def from_entry(cls, root: Path, table: str, entry: Mapping[str, Any]) -> "Fragment":
        """The fragment a manifest entry names; its path is made from checked parts, never taken from the file."""
        sha256 = file_name(entry["sha256"])
        return cls(
            path=fragment_path(root, table, sha256),
            sha256=sha256,
            bytes=int(entry["bytes"]),
            rows=int(entry["rows"]),
            columns=dict(entry["columns"]),
        )


def fragment_path(root: Path, table: str, sha256: str) -> Path:
    """tables/<table>/<sha256>.parquet under the root."""
    return root / "tables" / sql_identifier(table) / f"{sha256}.parquet"


def write_parquet(path: Path, rows: pa.Table) -> None:
    """A new Parquet file on disk: zstd, page checksums, vectors as byte streams without a dictionary."""
    vectors = [name for name in rows.column_names if pa.types.is_fixed_size_list(rows.schema.field(name).type)]
    dictionary = [name for name in rows.column_names if name not in vectors] if vectors else True
    with created(path, mode=0o400) as stream:
        pq.write_table(
            rows,
            stream,
            compression="zstd",
            row_group_size=_VECTOR_ROWS_PER_GROUP if vectors else _ROWS_PER_GROUP,
            use_dictionary=dictionary,  # pyright: ignore[reportArgumentType]  # a list of names is taken too
            column_encoding={f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in vectors} or None,
            write_page_checksum=True,
        )


class VerifiedFiles:
    """Which files were hashed in full since they last changed; `verified.json` remembers it between processes.

    A file is hashed again when its inode, size or modification time differs from what was noted.

    Args:
        doubting: notes of other objects count for nothing; each file is hashed the first time this one is asked.
    """

    def __init__(self, root: Path, *, doubting: bool = False) -> None:
        self._root = root
        self._note_path = root / "verified.json"
        self._notes: dict[str, list[object]] | None = {} if doubting else None
        self._guard = threading.Lock()
        self._changed = False

    def check(self, path: Path, sha256: str, size: int | None = None, *, trust_notes: bool = True) -> None:
        """Nothing, when the file's bytes are the ones named.

        Raises:
            CorruptFileError: missing, a link, another size, another hash.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise CorruptFileError(str(path), f"it cannot be opened ({error.strerror})") from error
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CorruptFileError(str(path), "it is not a regular file")
            if size is not None and status.st_size != size:
                raise CorruptFileError(str(path), f"it has {status.st_size:,} bytes, expected {size:,}")
            note: list[object] = [status.st_ino, status.st_size, status.st_mtime_ns, sha256]
            if trust_notes and self._known().get(self._name(path)) == note:
                return
            got = stream_sha256(stream)
        if got != sha256:
            raise CorruptFileError(str(path), f"sha256 is {got[:16]}…, expected {sha256[:16]}…")
        with self._guard:
            self._known()[self._name(path)] = note
            self._changed = True

    def save(self) -> None:
        """Notes taken since the last call are kept for other processes, where the root may be written."""
        with self._guard:
            if not self._changed or self._notes is None or not os.access(self._root, os.W_OK):
                return
            notes = _read_notes(self._note_path) | self._notes
            kept = {name: note for name, note in notes.items() if (self._root / name).exists()}
            atomic_write(self._note_path, json.dumps(kept, sort_keys=True).encode())
            self._changed = False

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._root))

    def _known(self) -> dict[str, list[object]]:
        if self._notes is None:
            self._notes = _read_notes(self._note_path)
        return self._notes


def _read_notes(path: Path) -> dict[str, list[object]]:
    try:
        notes = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        # a cache: without it every file is hashed again, which is the safe side
        return {}
    return notes if isinstance(notes, dict) else {}


def read_parquet(fragment: Fragment, columns: Sequence[str]) -> pa.Table:
    """A fragment's columns, page checksums verified; the caller has checked the file's hash.

    Raises:
        CorruptFileError: pages or footer do not decode.
    """
    if fragment.path.is_symlink():
        raise UnsafePathError(str(fragment.path), "it is a link")
    present = [name for name in columns if name in fragment.columns]
    try:
        with pq.ParquetFile(fragment.path, page_checksum_verification=True) as parquet:
            return parquet.read(columns=present)
    except (pa.ArrowException, OSError) as error:
        raise CorruptFileError(str(fragment.path), f"it does not decode ({error})") from error


def new_fragment(root: Path, table: str, rows: pa.Table, staged: Path) -> Fragment:
    """Rows written to `staged`, and the fragment they will be once the file is renamed into place."""
    write_parquet(staged, rows)
    with staged.open("rb") as stream:
        sha256 = stream_sha256(stream)
    return Fragment(
        path=fragment_path(root, table, sha256),
        sha256=sha256,
        bytes=staged.stat().st_size,
        rows=rows.num_rows,
        columns=sql_columns(rows.schema),
    )


def widths(fragments: Sequence[Fragment]) -> set[int]:
    """The vector lengths found in some fragments; more than one means they do not belong together."""
    return {width for fragment in fragments if (width := vector_width(fragment.columns)) is not None}
