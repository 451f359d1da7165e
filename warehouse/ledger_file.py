"""The ledger's SQLite file: its tables, how it is opened, who writes to it, how it is copied."""

import errno
import os
import queue
import re
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from warehouse.batches import BATCH_SCHEMA
from warehouse.embedded import EMBEDDED_SCHEMA
from warehouse.errors import (
    CorruptFileError,
    DiskFullError,
    FormatVersionError,
    LedgerClosedError,
    LedgerWriteError,
    WarehouseError,
)
from warehouse.storage import fsync_directory, make_directory

FORMAT = 4
RESTORE = "copy the newest file of backups/ over it; what was answered since is asked again"
_CALLS_PER_COMMIT = 64
_BUSY_MS = 10_000
_BACKUP = re.compile(r"ledger-(\d{6,})\.sqlite")

# What each format added, oldest first: a file of format n gets the steps from n on.
_STEPS = (
    """
CREATE TABLE IF NOT EXISTS attempt (
  key TEXT NOT NULL, n INTEGER NOT NULL, state TEXT NOT NULL, started_at INTEGER NOT NULL, latency_ms REAL,
  status INTEGER, error TEXT, tokens_in INTEGER, tokens_out INTEGER, usd REAL,
  model TEXT, kind TEXT, entity_id TEXT, PRIMARY KEY (key, n));
CREATE TABLE IF NOT EXISTS response (
  key TEXT PRIMARY KEY, body BLOB NOT NULL, sha256 TEXT NOT NULL, model TEXT, finish_reason TEXT, usage TEXT);
""",
    """
ALTER TABLE attempt ADD COLUMN worst_tokens INTEGER;
ALTER TABLE attempt ADD COLUMN worst_usd REAL;
CREATE TABLE rejected (key TEXT NOT NULL, n INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (key, n));
""",
    BATCH_SCHEMA,
    EMBEDDED_SCHEMA,
)

T = TypeVar("T")
Question = Callable[[sqlite3.Connection], T]


@dataclass(frozen=True)
class _Asked:
    question: Question[Any]
    answer: "Future[Any]"
    alone: bool
    n_bytes: int


class LedgerFile:
    """One connection, owned by one thread; questions that arrive during a commit share the next one.

    Raises:
        CorruptFileError: SQLite's own check fails, or the file is no database.
        FormatVersionError: a newer program wrote it.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path = path
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._stopped: Exception | str | None = None
        self._guard = threading.Lock()
        opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, args=(read_only, opened), name="ledger", daemon=True)
        self._thread.start()
        opened.result()

    def ask(self, question: Question[T], *, alone: bool = False) -> T:
        """What the question gives, once everything it wrote is on disk; `alone` runs it outside a transaction."""
        return self.submit(question, alone=alone).result()

    def submit(self, question: Question[T], *, alone: bool = False, n_bytes: int = 0) -> "Future[T]":
        """The same without waiting. `n_bytes` is about what it writes, said when the disk is too full for it."""
        answer: Future[T] = Future()
        with self._guard:
            if isinstance(self._stopped, WarehouseError):  # whoever comes late hears why, and leaves with its code
                raise type(self._stopped)(*self._stopped.args)
            if self._stopped is not None:
                raise LedgerClosedError(str(self.path), str(self._stopped))
            self._asked.put(_Asked(question, answer, alone, n_bytes))
        return answer

    def close(self) -> None:
        """Everything asked before is answered; the file is closed."""
        with self._guard:
            if self._stopped is None:
                self._stopped = "it was closed"
                self._asked.put(None)
        self._thread.join()

    def _serve(self, read_only: bool, opened: "Future[None]") -> None:
        try:
            db = _connect(self.path, read_only=read_only)
        except Exception as error:
            opened.set_exception(error if isinstance(error, WarehouseError) else _named(self.path, error))
            return
        opened.set_result(None)
        try:
            while (batch := self._next_batch()) is not None:
                self._answer(db, batch)
        finally:
            db.close()

    def _next_batch(self) -> list[_Asked] | None:
        first = self._asked.get()
        if first is None:
            return None
        batch = [first]
        while not first.alone and len(batch) < _CALLS_PER_COMMIT:
            try:
                following = self._asked.get_nowait()
            except queue.Empty:
                break
            if following is None or following.alone:
                # its turn comes next: nobody else takes from this queue, and what follows waits for its answer
                self._asked.put(following)
                break
            batch.append(following)
        return batch

    def _answer(self, db: sqlite3.Connection, batch: list[_Asked]) -> None:
        answers: list[tuple[Future[Any], Any, Exception | None]] = []
        try:
            if batch[0].alone:
                answers.append((batch[0].answer, batch[0].question(db), None))
            else:
                db.execute("BEGIN")
                answers.extend((asked.answer, *_inside_savepoint(db, asked.question)) for asked in batch)
                db.execute("COMMIT")
        except Exception as error:
            self._break(db, batch, error)
            return
        for answer, value, refusal in answers:
            if refusal is None:
                answer.set_result(value)
            else:
                answer.set_exception(refusal)

    def _break(self, db: sqlite3.Connection, batch: list[_Asked], error: Exception) -> None:
        # after a failed write or fsync nobody knows what the kernel still holds: no second try, ever
        n_bytes = sum(asked.n_bytes for asked in batch)
        named = error if isinstance(error, WarehouseError) else _named(self.path, error, n_bytes)
        with self._guard:
            self._stopped = named
            while not self._asked.empty():
                if (waiting := self._asked.get_nowait()) is not None:
                    batch.append(waiting)
            self._asked.put(None)
        with suppress(sqlite3.Error):  # on a disk that stays broken; whoever opens the file next rolls back
            if db.in_transaction:
                db.execute("ROLLBACK")
        for asked in batch:
            asked.answer.set_exception(named)


def _inside_savepoint(db: sqlite3.Connection, question: Question[Any]) -> tuple[Any, Exception | None]:
    # one refused entry must not undo its neighbours in the same commit
    db.execute("SAVEPOINT entry")
    try:
        value = question(db)
    except (WarehouseError, sqlite3.IntegrityError) as error:
        db.execute("ROLLBACK TO entry")
        db.execute("RELEASE entry")
        return None, error
    db.execute("RELEASE entry")
    return value, None


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    is_new = not path.exists()
    if is_new and read_only:
        # nothing was ever asked: an empty ledger that leaves no file
        db = sqlite3.connect(":memory:", isolation_level=None)
        db.executescript("".join(_STEPS))
        return db
    make_directory(path.parent)
    if is_new:
        # SQLite gives the journal the mode of the database: 0600 from the first byte
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_MS / 1000)
    try:
        _prepare(db, path, read_only=read_only)
    except (sqlite3.Error, WarehouseError):
        db.close()
        raise
    if is_new:
        fsync_directory(path.parent)
    return db


def _prepare(db: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
    # TRUNCATE and FULL: the WAL of SQLite before 3.51.3 can lose commits, and every commit here is money
    db.execute("PRAGMA journal_mode = TRUNCATE")
    db.execute("PRAGMA synchronous = FULL")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > FORMAT:
        raise FormatVersionError(str(path), version, FORMAT)
    if not read_only:
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise CorruptFileError(str(path), f"SQLite says: {verdict}", RESTORE)
    if version < FORMAT:
        db.executescript(f"BEGIN; {''.join(_STEPS[version:])} PRAGMA user_version = {FORMAT}; COMMIT;")
    if read_only:
        db.execute("PRAGMA query_only = ON")


def _named(path: Path, error: Exception, n_bytes: int = 0) -> Exception:
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if primary == sqlite3.SQLITE_FULL:
        return DiskFullError(str(path), n_bytes or None)
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return CorruptFileError(str(path), f"SQLite says: {error}", RESTORE)
    if isinstance(error, sqlite3.Error):
        return LedgerWriteError(str(path), str(error))
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskFullError(str(path), n_bytes or None)
        return LedgerWriteError(str(path), f"{error.filename or path}: {error.strerror or error}")
    return error


def backup_into(db: sqlite3.Connection, folder: Path, keep: int) -> Path:
    """A whole, compact copy of the database in `folder`, on disk; the newest `keep` copies stay."""
    make_directory(folder)
    numbered = sorted(
        (int(match.group(1)), entry) for entry in folder.iterdir() if (match := _BACKUP.fullmatch(entry.name))
    )
    number = numbered[-1][0] + 1 if numbered else 1
    final = folder / f"ledger-{number:06d}.sqlite"
    partial = folder / "ledger.partial"
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    db.execute("VACUUM INTO ?", (str(partial),))
    descriptor = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(partial, final)
    fsync_directory(folder)
    for _, old in [*numbered, (number, final)][:-keep]:
        old.unlink()
    return final
