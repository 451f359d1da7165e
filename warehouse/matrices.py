"""Semantic matrices: built once, checked, then mapped into every process that trains."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from warehouse.errors import CorruptFileError, MatrixError
from warehouse.fragments import VerifiedFiles
from warehouse.locking import waited_lock
from warehouse.storage import (
    atomic_write,
    canonical_json,
    created,
    file_name,
    file_sha256,
    fsync_directory,
    make_directory,
)


@dataclass(frozen=True)
class MatrixPaths:
    """Where a semantic matrix lies: `values` float [n, d] in C order, `mask` bool [n], True = has text."""

    values: Path
    mask: Path

    def open(self) -> tuple[np.ndarray, np.ndarray]:
        """Both arrays mapped read-only: nothing is copied, pages are shared between processes."""
        return np.load(self.values, mmap_mode="r"), np.load(self.mask, mmap_mode="r")


class MatrixStore:
    """Matrices by key in one folder; a sidecar with both hashes is written last and says that all is there."""

    def __init__(self, folder: Path, verified: VerifiedFiles) -> None:
        self._folder = folder
        self._verified = verified

    def get(self, key: str, build: Callable[[], tuple[np.ndarray, np.ndarray]]) -> MatrixPaths:
        """The matrix of that key; `build` is called only where no whole, unchanged one is found.

        Raises:
            MatrixError: what `build` gave is no matrix of finite numbers with a mask of its length.
            DiskFullError: no room; what was there before is untouched.
        """
        stem = file_name(key)
        paths = MatrixPaths(self._folder / f"{stem}.npy", self._folder / f"{stem}.mask.npy")
        sidecar = self._folder / f"{stem}.json"
        if self._whole(paths, sidecar):
            return paths
        make_directory(self._folder)
        with waited_lock(self._folder / f"{stem}.lock"):
            if not self._whole(paths, sidecar):
                self._build(key, paths, sidecar, build)
        return paths

    def _whole(self, paths: MatrixPaths, sidecar: Path) -> bool:
        try:
            entry = json.loads(sidecar.read_bytes())
            self._verified.check(paths.values, entry["values"]["sha256"], entry["values"]["bytes"])
            self._verified.check(paths.mask, entry["mask"]["sha256"], entry["mask"]["bytes"])
        except (FileNotFoundError, CorruptFileError, ValueError, KeyError, TypeError):
            # derived from the tables: a missing or rotten one is built again, never believed
            return False
        self._verified.save()
        return True

    def _build(
        self, key: str, paths: MatrixPaths, sidecar: Path, build: Callable[[], tuple[np.ndarray, np.ndarray]]
    ) -> None:
        values, mask = build()
        _check(key, values, mask)
        sidecar.unlink(missing_ok=True)
        entry = {"values": _write(paths.values, values), "mask": _write(paths.mask, mask)}
        fsync_directory(self._folder)
        atomic_write(sidecar, canonical_json(entry).encode())
        if not self._whole(paths, sidecar):
            raise CorruptFileError(
                str(paths.values), "it reads back differently from what was written", "check the disk"
            )


def _check(key: str, values: np.ndarray, mask: np.ndarray) -> None:
    if values.ndim != 2 or values.dtype.kind != "f":
        raise MatrixError(key, f"values are {values.dtype} {values.shape}, expected floats [n, d]")
    if mask.dtype != np.bool_ or mask.shape != (values.shape[0],):
        raise MatrixError(key, f"the mask is {mask.dtype} {mask.shape}, expected bool ({values.shape[0]},)")
    # one number per row: its sum is not finite when any of them is not, and nothing of the matrix' size is made
    if not np.isfinite(values.sum(axis=1, dtype=np.float64)).all():
        raise MatrixError(key, "some values are not finite")


def _write(path: Path, array: np.ndarray) -> dict[str, object]:
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    with created(partial) as stream:
        np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    entry = {"sha256": file_sha256(partial), "bytes": partial.stat().st_size}
    partial.replace(path)
    return entry
