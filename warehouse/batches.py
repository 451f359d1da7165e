"""Batches of the ledger: which requests were handed to a server together, and how far each batch has come."""

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from warehouse.ledger_entries import Intent, announce

if TYPE_CHECKING:
    from warehouse.ledger_file import LedgerFile

# `creating` is written before the server is asked to create: from there on a batch may exist and may cost.
BEFORE = ("intended", "uploaded")
OPEN = ("creating", "submitted", "gone")

BATCH_SCHEMA = """
CREATE TABLE IF NOT EXISTS batch (
  shard_hash TEXT PRIMARY KEY, content_sha256 TEXT NOT NULL, server TEXT NOT NULL, model TEXT, state TEXT NOT NULL,
  n_requests INTEGER NOT NULL, created_at INTEGER NOT NULL, announced_at INTEGER, file_id TEXT, batch_id TEXT,
  status TEXT, completed INTEGER, failed INTEGER, seen_at INTEGER);
CREATE TABLE IF NOT EXISTS batch_request (
  shard_hash TEXT NOT NULL, key TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (shard_hash, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batch_aside (
  shard_hash TEXT NOT NULL, reason TEXT NOT NULL, line BLOB NOT NULL);
"""

_COLUMNS = (
    "shard_hash, server, model, state, n_requests, created_at / 1e6, announced_at / 1e6, file_id, batch_id, status,"
    " completed, failed"
)
# a latency is what tells a settled attempt from an announced one
_MEMBERS = """
SELECT member.key, CASE WHEN attempt.latency_ms IS NULL THEN member.n END
FROM batch_request AS member JOIN attempt USING (key, n) WHERE member.shard_hash = ?
"""
_AT_ONCE = 500  # entries of one statement


@dataclass(frozen=True)
class Batch:
    """One shard of requests and what is known of it; times are seconds since 1970.

    Args:
        state: intended, uploaded (nothing paid so far), creating (it may exist), submitted, gone (its results are),
            harvested, failed, released.
        status: the server's own word, when it was last asked.
    """

    shard_hash: str
    server: str
    model: str | None
    state: str
    n_requests: int
    created_at_s: float
    announced_at_s: float | None
    file_id: str | None
    batch_id: str | None
    status: str | None
    completed: int | None
    failed: int | None


class Batches:
    """The ledger's batch tables. Every method is one transaction, on disk when it returns."""

    def __init__(self, file: "LedgerFile") -> None:
        self._file = file

    def begin(self, content_sha256: str, server: str, model: str, n_requests: int) -> Batch:
        """The batch of a file with this content: the one that was begun and never announced, else a new one.

        A new one is named by its content; by content and number where the same lines were announced before.
        """

        def write(db: sqlite3.Connection) -> Batch:
            same = db.execute(
                "SELECT shard_hash, state FROM batch WHERE content_sha256 = ? AND server = ?", (content_sha256, server)
            ).fetchall()
            begun = [name for name, state in same if state in BEFORE]
            if begun:
                return _found(db, "shard_hash = ?", begun[0])[0]
            (n,) = db.execute("SELECT count(*) FROM batch WHERE content_sha256 = ?", (content_sha256,)).fetchone()
            name = hashlib.sha256(f"{content_sha256}:{n}".encode()).hexdigest() if n else content_sha256
            db.execute(
                "INSERT INTO batch (shard_hash, content_sha256, server, model, state, n_requests, created_at)"
                " VALUES (?, ?, ?, ?, 'intended', ?, ?)",
                (name, content_sha256, server, model, n_requests, _now_us()),
            )
            return _found(db, "shard_hash = ?", name)[0]

        return self._file.ask(write)

    def uploaded(self, shard_hash: str, file_id: str) -> None:
        """The file lies at the server; nothing is paid for it."""
        self._update(shard_hash, state="uploaded", file_id=file_id)

    def announce(self, shard_hash: str, intents: Sequence[Intent]) -> None:
        """An attempt of every request, and the batch as `creating`, in one transaction: now it may be created.

        Raises:
            AlreadyAnsweredError: one of them was answered before; none is announced.
        """

        def write(db: sqlite3.Connection) -> None:
            for start in range(0, len(intents), _AT_ONCE):
                some = intents[start : start + _AT_ONCE]
                for (request, _, _), n in zip(some, announce(db, some), strict=True):
                    if isinstance(n, Exception):
                        raise n
                    db.execute("INSERT INTO batch_request VALUES (?, ?, ?)", (shard_hash, request.key, n))
            db.execute(
                "UPDATE batch SET state = 'creating', announced_at = ? WHERE shard_hash = ?", (_now_us(), shard_hash)
            )

        self._file.ask(write)

    def submitted(self, shard_hash: str, batch_id: str) -> None:
        """The server has created it under this id."""
        self._update(shard_hash, state="submitted", batch_id=batch_id)

    def seen(self, shard_hash: str, status: str, completed: int, failed: int) -> None:
        """What the server said last."""
        self._update(shard_hash, status=status, completed=completed, failed=failed, seen_at=_now_us())

    def close(self, shard_hash: str, state: str) -> None:
        """The batch has come to an end, or its results are `gone`."""
        self._update(shard_hash, state=state)

    def release(self) -> int:
        """How many requests may be paid again: those of batches whose results are gone."""

        def write(db: sqlite3.Connection) -> int:
            gone = [row[0] for row in db.execute("SELECT shard_hash FROM batch WHERE state = 'gone'").fetchall()]
            db.execute("UPDATE batch SET state = 'released' WHERE state = 'gone'")
            return sum(n is not None for name in gone for _, n in db.execute(_MEMBERS, (name,)).fetchall())

        return self._file.ask(write)

    def open_at(self, server: str) -> list[Batch]:
        """Batches of this server that may hold answers not collected yet, oldest first."""
        marks = ", ".join("?" * len(OPEN))
        return self._file.ask(lambda db: _found(db, f"server = ? AND state IN ({marks})", server, *OPEN))

    def rows(self) -> list[Batch]:
        """Every batch, oldest first; none in a ledger written before there were batches."""

        def read(db: sqlite3.Connection) -> list[Batch]:
            there = db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'batch'").fetchone()
            return _found(db, "true") if there else []

        return self._file.ask(read)

    def members(self, shard_hash: str) -> dict[str, int | None]:
        """{key: the number of its attempt while that is unsettled, else None} of the batch's requests."""
        return self._file.ask(lambda db: dict(db.execute(_MEMBERS, (shard_hash,)).fetchall()))

    def set_aside(self, shard_hash: str, lines: Sequence[tuple[str, bytes]]) -> None:
        """Keeps (reason, line) of what the server sent and no request of the batch can take."""
        rows = [(shard_hash, reason, line) for reason, line in lines]

        def write(db: sqlite3.Connection) -> None:
            # a harvest that was cut off reads the same lines again
            db.execute("DELETE FROM batch_aside WHERE shard_hash = ?", (shard_hash,))
            db.executemany("INSERT INTO batch_aside VALUES (?, ?, ?)", rows)

        self._file.ask(write)

    def aside(self, shard_hash: str) -> list[tuple[str, bytes]]:
        """The lines set aside, with their reasons."""
        query = "SELECT reason, line FROM batch_aside WHERE shard_hash = ? ORDER BY rowid"
        return self._file.ask(lambda db: db.execute(query, (shard_hash,)).fetchall())

    def _update(self, shard_hash: str, **facts: object) -> None:
        columns = ", ".join(f"{name} = ?" for name in facts)
        values = (*facts.values(), shard_hash)
        self._file.ask(lambda db: db.execute(f"UPDATE batch SET {columns} WHERE shard_hash = ?", values).rowcount)


def _found(db: sqlite3.Connection, condition: str, *values: object) -> list[Batch]:
    query = f"SELECT {_COLUMNS} FROM batch WHERE {condition} ORDER BY created_at, rowid"
    return [Batch(*row) for row in db.execute(query, values).fetchall()]


def _now_us() -> int:
    return int(datetime.now(UTC).timestamp() * 1_000_000)
