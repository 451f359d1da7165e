"""The run lock: one writer a warehouse, freed by the kernel when its process dies, however it dies."""

import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from warehouse.errors import DiskFullError, LockHeldError, LockUnsupportedError, WarehouseRootError
from warehouse.storage import disk_fault, make_directory

_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_BUSY = (errno.EWOULDBLOCK, errno.EACCES)
_TRIES, _PAUSE_S = 4, 0.05

# which lock files this process holds, by (device, inode): what the kernel knows and does not tell
_held: dict[tuple[int, int], int] = {}
_held_guard = threading.Lock()


class RunLock:
    """An exclusive lock on one file; entering it again through the same object only counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._depth = 0
        self._descriptor = -1
        self._guard = threading.RLock()

    @contextmanager
    def held(self, command: str, on_acquire: Callable[[], None] | None = None) -> Iterator[None]:
        """The lock, for the length of the block; `on_acquire` runs once it is ours.

        Raises:
            LockHeldError: another process, or another object of this one, holds it; names it.
            LockUnsupportedError: the file system pretends to lock and does not.
            WarehouseRootError: the folder of the lock cannot be made, or the lock cannot be written in it.
        """
        with self._guard:
            if self._depth == 0:
                self._acquire(command)
                try:
                    if on_acquire is not None:
                        on_acquire()
                except BaseException:
                    self._release()
                    raise
            self._depth += 1
        try:
            yield
        finally:
            with self._guard:
                self._depth -= 1
                if self._depth == 0:
                    self._release()

    @property
    def held_by_this_process(self) -> bool:
        """True when any object of this process holds the lock."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return False
        with _held_guard:
            # a forked child inherits the table and not the right to write
            return _held.get((status.st_dev, status.st_ino)) == os.getpid()

    def holder(self) -> dict[str, object] | None:
        """Who holds the lock as {"pid", "command", "since"}, or None when it is free; takes nothing."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            # shared: two readers who ask at once do not see each other as a run
            if _try_lock(descriptor, self.path, fcntl.LOCK_SH):
                return None
            return _read_note(descriptor)
        finally:
            os.close(descriptor)

    def _acquire(self, command: str) -> None:
        descriptor = _created_lock(self.path)
        try:
            if not _try_patiently(descriptor, self.path):
                note = _read_note(descriptor)
                pid = note.get("pid")
                raise LockHeldError(
                    str(self.path),
                    pid if isinstance(pid, int) else None,
                    str(note.get("command", "unknown")),
                    str(note.get("since", "an unknown time")),
                )
            _probe(self.path)
            since = datetime.now(UTC).isoformat(timespec="seconds")
            note = json.dumps({"pid": os.getpid(), "command": command, "since": since}).encode()
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, note, 0)
        except BaseException:
            os.close(descriptor)
            raise
        status = os.fstat(descriptor)
        with _held_guard:
            _held[(status.st_dev, status.st_ino)] = os.getpid()
        self._descriptor = descriptor

    def _release(self) -> None:
        status = os.fstat(self._descriptor)
        with _held_guard:
            _held.pop((status.st_dev, status.st_ino), None)
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = -1


@contextmanager
def waited_lock(path: Path) -> Iterator[None]:
    """An exclusive lock that is waited for: the second builder of one thing finds it built."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _created_lock(path: Path) -> int:
    try:
        make_directory(path.parent)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if isinstance(full := disk_fault(error, path), DiskFullError):
            raise full from error
        raise WarehouseRootError(str(path.parent), f"{error.filename or path}: {error.strerror or error}") from error


def _try_lock(descriptor: int, path: Path, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        if error.errno in _UNSUPPORTED:
            raise LockUnsupportedError(str(path), os.strerror(error.errno or 0)) from error
        raise
    return True


def _try_patiently(descriptor: int, path: Path) -> bool:
    # `holder` of another process holds a shared lock for microseconds: that is no run
    for _ in range(_TRIES):
        if _try_lock(descriptor, path, fcntl.LOCK_EX):
            return True
        time.sleep(_PAUSE_S)
    return _try_lock(descriptor, path, fcntl.LOCK_EX)


def _probe(path: Path) -> None:
    # a lock that two open files get at once is no lock (some network and overlay file systems)
    second = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if _try_lock(second, path, fcntl.LOCK_EX):
            raise LockUnsupportedError(str(path), "two open files got the same exclusive lock")
    finally:
        os.close(second)


def _read_note(descriptor: int) -> dict[str, object]:
    text = os.pread(descriptor, 4096, 0)
    try:
        note = json.loads(text)
    except ValueError:
        # the holder has the lock and has not written its name yet
        return {}
    return note if isinstance(note, dict) else {}
