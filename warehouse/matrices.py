"""Semantic matrices: built once, checked, then mapped into every process that trains."""

import json
import os
import time
import zlib
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from warehouse.errors import CorruptFileError
from warehouse.fragments import VerifiedFiles
from warehouse.locking import waited_lock
from warehouse.matrix_rows import (
    STAMP,
    MatrixDtype,
    MatrixSpec,
    TableRows,
    load_patch,
    read_rows,
    save_patch,
    write_rows,
)
from warehouse.snapshot import Snapshot
from warehouse.storage import atomic_write, canonical_json, created, file_name, fsync_directory, make_directory

# above this share of changed rows the matrix is written whole again
_MOST_PATCHED = 0.1
_BLOCK_BYTES = 1 << 24
_SIDECAR = {"base": str, "files": dict, "family": str, "dtype": str, "missing": int, "snapshot": str}


@dataclass(frozen=True)
class MatrixPaths:
    """Where a semantic matrix lies.

    Attributes:
        values: .npy [n, d] in C order; bfloat16 as its 16 bits, uint16.
        mask: .npy bool [n], True = has a vector; rows without one are zero.
        patch: rows that replace those of `values`, or None.
        dtype: of the numbers.
        missing: how many rows have no vector.
    """

    values: Path
    mask: Path
    patch: Path | None
    dtype: MatrixDtype
    missing: int

    def open(self) -> tuple[np.ndarray, np.ndarray]:
        """Both arrays mapped: nothing is copied but patched rows, pages are shared between processes."""
        mask = np.load(self.mask, mmap_mode="r")
        # patched rows are private copies of their pages; the file is never written
        values = np.load(self.values, mmap_mode="r" if self.patch is None else "c")
        if self.patch is not None:
            rows, changed = load_patch(self.patch)
            values[rows] = changed
            values.flags.writeable = False
        return values, mask


class MatrixStore:
    """Matrices by key in one folder; a sidecar is written last and says that all is there.

    The sums in it tell rot from content. They are CRCs and no hashes: what is here is derived from tables that are
    hashed, and whoever may write here may write the sidecar too.
    """

    def __init__(self, folder: Path, verified: VerifiedFiles) -> None:
        self._folder = folder
        self._verified = verified

    def get(self, snapshot: Snapshot, spec: MatrixSpec) -> MatrixPaths:
        """The matrix of that key, built from the snapshot where no whole, unchanged one is found.

        Where only some rows changed since the last one of its family, only those are read and written.

        Raises:
            MatrixError: vectors that are not finite, or belong to nobody.
            CorruptFileError: a fragment that was read is not what was committed.
            DiskFullError: no room; what was there before is untouched.
        """
        stem = file_name(spec.key)
        entry = self._whole(stem)
        if entry is None:
            make_directory(self._folder)
            with waited_lock(self._folder / f"{stem}.lock"):
                entry = self._whole(stem) or self._build(stem, snapshot, spec)
        if entry["snapshot"] != snapshot.id and os.access(self._folder, os.W_OK):
            entry["snapshot"] = snapshot.id  # who asked last: what `collect` goes by
            self._write_entry(stem, entry)
        return self._paths(stem, entry)

    def verify(self) -> Iterator[tuple[str, int]]:
        """(name, bytes) of every matrix, each read in full.

        Raises:
            CorruptFileError: names the first file that is not what was written.
        """
        for stem in self._stems():
            entry = self._read_entry(stem)
            for name, seen in entry["files"].items():
                self._check_file(self._folder / name, seen, trust_notes=False)
            yield stem, sum(seen["bytes"] for seen in entry["files"].values())

    def collect(self, kept: Collection[str], min_age_s: float) -> tuple[int, tuple[str, ...]]:
        """Bytes freed, and names of the rotten: matrices no kept snapshot asked for last, unless another is a patch of
        them, and those whose sidecar describes none; arrays made of matrices that nobody asked for in `min_age_s`. They
        are derived, and made again when somebody asks.
        """
        entries: dict[str, dict[str, Any]] = {}
        rotten = []
        for stem in self._stems():
            try:
                entries[stem] = self._read_entry(stem)
            except CorruptFileError:
                rotten.append(stem)
        asked = [stem for stem, entry in entries.items() if entry["snapshot"] in kept]
        needed = {*asked, *(entries[stem]["base"] for stem in asked)}
        freed = sum(self._remove(stem) for stem in [*rotten, *entries] if stem not in needed or stem in rotten)
        for path in (self._folder / "derived").glob("*"):
            status = path.stat()
            if time.time() - status.st_mtime >= min_age_s:
                freed += status.st_size
                path.unlink()
        return freed, tuple(rotten)

    def _remove(self, stem: str) -> int:
        """How many bytes a matrix took that is gone now; its sidecar, which says that it is whole, goes first."""
        freed = 0
        for ending in ("json", "npy", "mask.npy", "rows.npy", "patch.npz"):
            path = self._folder / f"{stem}.{ending}"
            freed += path.stat().st_size if path.is_file() else 0
            path.unlink(missing_ok=True)
        return freed

    def _build(self, stem: str, snapshot: Snapshot, spec: MatrixSpec) -> dict[str, Any]:
        table = TableRows(snapshot, spec)
        self._remove(stem)
        try:
            entry = self._patched(stem, spec.family, table) or self._full(stem, spec, table)
        except BaseException:
            self._remove(stem)
            raise
        entry |= {"snapshot": snapshot.id, "family": spec.family, "dtype": spec.dtype}
        fsync_directory(self._folder)
        self._write_entry(stem, entry)
        return entry

    def _full(self, stem: str, spec: MatrixSpec, table: TableRows) -> dict[str, Any]:
        values = self._folder / f"{stem}.npy"
        write_rows(values, spec, table, self._check_fragment)
        return {"base": stem} | self._described(stem, table.stamps, [values])

    def _patched(self, stem: str, family: str, table: TableRows) -> dict[str, Any] | None:
        """The matrix as changed rows of an earlier one; None where there is none, or too much changed."""
        last = self._last_of(family)
        base = self._whole(last["base"]) if last else None
        if last is None or base is None:
            return None
        before = self._stamps(last["base"])
        stamps = table.stamps
        changed = stamps != before
        if changed.sum() > _MOST_PATCHED * len(stamps):
            return None
        values = np.load(self._folder / f"{last['base']}.npy", mmap_mode="r")
        rows = np.flatnonzero(changed)
        patch = np.zeros((len(rows), values.shape[1]), values.dtype)
        known = changed & (stamps == self._stamps(last["stem"]))
        if last["stem"] != last["base"]:
            old_rows, old_values = load_patch(self._folder / f"{last['stem']}.patch.npz")
            taken = known[old_rows]
            patch[np.searchsorted(rows, old_rows[taken])] = old_values[taken]
        wanted = changed & ~known & (stamps != b"")
        for places, found in read_rows(table, wanted, self._check_fragment):
            patch[np.searchsorted(rows, places)] = found
        path = self._folder / f"{stem}.patch.npz"
        save_patch(path, rows, patch)
        return {"base": last["base"]} | self._described(stem, stamps, [path])

    def _described(self, stem: str, stamps: np.ndarray, written: list[Path]) -> dict[str, Any]:
        mask = stamps != b""
        for name, array in ((f"{stem}.mask.npy", mask), (f"{stem}.rows.npy", stamps)):
            with created(self._folder / name) as stream:
                np.save(stream, array, allow_pickle=False)
            written.append(self._folder / name)
        return {"missing": int(len(mask) - mask.sum()), "files": {path.name: _seen(path) for path in written}}

    def _last_of(self, family: str) -> dict[str, Any] | None:
        sidecars = sorted(self._stems(), key=lambda stem: (self._folder / f"{stem}.json").stat().st_mtime_ns)
        for stem in reversed(sidecars):
            # the family first: matrices of others need not be looked at, and may have to be read in full
            if self._family(stem) == family and (entry := self._whole(stem)) is not None:
                return entry | {"stem": stem}
        return None

    def _family(self, stem: str) -> str | None:
        try:
            return self._read_entry(stem)["family"]
        except (OSError, CorruptFileError):
            return None

    def _stamps(self, stem: str) -> np.ndarray:
        return np.load(self._folder / f"{stem}.rows.npy").astype(STAMP, copy=False)

    def _whole(self, stem: str) -> dict[str, Any] | None:
        """The sidecar of a matrix whose every file is what was written, else None."""
        try:
            entry = self._read_entry(stem)
            noted = sum(
                self._check_file(self._folder / name, seen, trust_notes=True) for name, seen in entry["files"].items()
            )
            if entry["base"] != stem and self._whole(entry["base"]) is None:
                return None
        except (OSError, CorruptFileError):
            # derived from the tables: a missing or rotten one is built again, never believed
            return None
        if noted and os.access(self._folder, os.W_OK):
            self._write_entry(stem, entry)
        return entry

    def _check_file(self, path: Path, seen: dict[str, Any], *, trust_notes: bool) -> bool:
        """Whether the note was renewed, for a file that is what was written; read in full when it was touched since."""
        note = _note(path)
        if trust_notes and seen["note"] == note:
            return False
        _, size, _ = note
        if size != seen["bytes"] or _sums(path) != seen["sums"]:
            raise CorruptFileError(str(path), "its sums are not those of what was written", "remove it: it is rebuilt")
        renewed, seen["note"] = seen["note"] != note, note
        return renewed

    def _check_fragment(self, fragment: Any) -> None:
        self._verified.check(fragment.path, fragment.sha256, fragment.bytes, trust_notes=False)

    def _paths(self, stem: str, entry: dict[str, Any]) -> MatrixPaths:
        patch = None if entry["base"] == stem else self._folder / f"{stem}.patch.npz"
        values, mask = self._folder / f"{entry['base']}.npy", self._folder / f"{stem}.mask.npy"
        return MatrixPaths(values, mask, patch, entry["dtype"], entry["missing"])

    def _stems(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("*.json"))

    def _read_entry(self, stem: str) -> dict[str, Any]:
        path = self._folder / f"{stem}.json"
        try:
            entry = json.loads(path.read_bytes())
            for name, kind in _SIDECAR.items():
                if not isinstance(entry[name], kind):
                    raise TypeError(f"`{name}` is a {type(entry[name]).__name__}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CorruptFileError(str(path), f"it describes no matrix ({error})") from error
        return entry

    def _write_entry(self, stem: str, entry: dict[str, Any]) -> None:
        atomic_write(self._folder / f"{stem}.json", canonical_json(entry).encode())


def _seen(path: Path) -> dict[str, Any]:
    note = _note(path)
    _, size, _ = note
    return {"bytes": size, "sums": _sums(path), "note": note}


def _note(path: Path) -> list[int]:
    """What changes whenever somebody touches a file: inode, size, time."""
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def _sums(path: Path) -> list[int]:
    """CRC-32 of each 16 MiB of a file, several blocks at a time."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        blocks = range(0, os.fstat(descriptor).st_size, _BLOCK_BYTES)
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            return list(pool.map(lambda start: zlib.crc32(os.pread(descriptor, _BLOCK_BYTES, start)), blocks))
    finally:
        os.close(descriptor)
