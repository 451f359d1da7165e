"""Durable files: written whole or not at all, private to their owner, hashed by content."""

import errno
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from warehouse.errors import DiskFaultError, DiskFullError, IdentifierError, UnsafePathError

_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})
_CHUNK_BYTES = 1 << 20
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FAULTS = frozenset({errno.EIO, errno.EROFS, errno.ENXIO, errno.ENODEV, errno.ESTALE})


def canonical_json(value: object) -> str:
    """One text per value: sorted keys, no spaces, UTF-8 as it is, no NaN."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def content_key(value: object) -> str:
    """sha256, in hex, of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sql_identifier(name: str) -> str:
    """The name itself, known to be safe as an SQL identifier and as a folder name.

    Raises:
        IdentifierError: it is not ^[a-z][a-z0-9_]{0,62}$.
    """
    if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
        raise IdentifierError(str(name))
    return name


def file_name(name: str) -> str:
    """The name itself, known to be one plain path component on every system.

    Raises:
        UnsafePathError: separators, leading dots, device names, glob characters, anything outside ASCII.
    """
    if not isinstance(name, str) or not _FILE_NAME.fullmatch(name) or name.split(".")[0].lower() in _RESERVED:
        raise UnsafePathError(str(name), "expected letters, digits, dots, dashes and underscores, at most 128")
    return name


def make_directory(path: Path) -> Path:
    """The directory, made with its parents as 0700 and durable in each of them."""
    missing = []
    walker = path
    while not walker.exists():
        missing.append(walker)
        walker = walker.parent
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)
        fsync_directory(directory.parent)
    return path


def fsync_directory(path: Path) -> None:
    """The names in a directory are on disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def created(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A new private file to write; flushed and on disk at the end of the block.

    Raises:
        DiskFullError, DiskFaultError: no room is left, or the disk fails, at any point.
    """
    with disk_faults_named(path):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, mode)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())


@contextmanager
def disk_faults_named(path: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Turns what the kernel says of a full or failing disk into the sentence that says what to do.

    Raises:
        DiskFullError, DiskFaultError: a sync that failed is never tried again, for nobody knows what it left.
    """
    try:
        yield
    except (DiskFullError, DiskFaultError):
        raise
    except OSError as error:
        named = disk_fault(error, path, needed_bytes)
        if named is None:
            raise
        raise named from error


def disk_fault(
    error: OSError, path: Path | None = None, needed_bytes: int | None = None
) -> DiskFullError | DiskFaultError | None:
    """The sentence for an error of the disk itself, None for any other; `path` where the error names no file."""
    where = str(path or error.filename or "a file")
    if error.errno in _NO_ROOM:
        return DiskFullError(where, needed_bytes)
    if error.errno in _FAULTS:
        return DiskFaultError(where, os.strerror(error.errno))
    return None


def atomic_write(path: Path, content: bytes) -> None:
    """The file holds exactly `content`, or what it held before: temporary file, fsync, replace, fsync of the folder."""
    with replacing(path) as temporary, created(temporary) as stream:
        stream.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new name beside `path`; what the block puts there, and on disk, takes the place of `path` or is removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.partial")
    temporary.unlink(missing_ok=True)
    with disk_faults_named(path):
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_directory(path.absolute().parent)


def install_tree(partial: Path, final: Path) -> None:
    """`partial` becomes `final` with every file and folder in it on disk before the rename.

    Raises:
        FileExistsError: `final` exists; an installed directory is never replaced.
        DiskFullError, DiskFaultError: the disk is full or fails.
    """
    if final.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
    with disk_faults_named(final):
        for folder, _, names in os.walk(partial, topdown=False):
            for name in names:
                fsync_file(Path(folder, name))
            fsync_directory(Path(folder))
        os.rename(partial, final)
        fsync_directory(final.parent)
        if partial.parent != final.parent:
            fsync_directory(partial.parent)


def fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """sha256, in hex, of a file's bytes; links are not followed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        return stream_sha256(stream)


def stream_sha256(stream: BinaryIO) -> str:
    """sha256, in hex, of everything left in a stream."""
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
