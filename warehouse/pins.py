"""Pins: a reader's word that it still needs a snapshot; the kernel takes it back when the reader ends."""

import fcntl
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from warehouse.storage import file_name, make_directory


@contextmanager
def pinned(root: Path, snapshot_ids: Sequence[str]) -> Iterator[None]:
    """The snapshots are not collected before the block ends. A reader who may not write here reads without a pin."""
    descriptors: list[int] = []
    try:
        for snapshot_id in snapshot_ids:
            descriptor = _opened(root, snapshot_id)
            if descriptor is None:
                break
            descriptors.append(descriptor)
            # waits while the collector looks at this very snapshot
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@contextmanager
def unpinned(root: Path, snapshot_id: str) -> Iterator[bool]:
    """Whether no reader has the snapshot; while the block runs none can take it. Its pin file goes when it was free."""
    descriptor = _opened(root, snapshot_id)
    if descriptor is None:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
        _path(root, snapshot_id).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def sweep(root: Path, kept: Collection[str]) -> None:
    """Removes the pins of versions that are gone: a reader may ask for one while it goes."""
    for path in (root / "pins").glob("*"):
        if path.name not in kept:
            with unpinned(root, path.name):
                pass


def _opened(root: Path, snapshot_id: str) -> int | None:
    path = _path(root, snapshot_id)
    try:
        make_directory(path.parent)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None


def _path(root: Path, snapshot_id: str) -> Path:
    return root / "pins" / file_name(snapshot_id)
