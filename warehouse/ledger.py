"""The ledger: every paid request, announced before it is sent and kept for ever once it is answered."""

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from warehouse.batches import Batches
from warehouse.errors import AlreadyAnsweredError, CorruptFileError, UnknownAttemptError
from warehouse.ledger_file import RESTORE, LedgerFile, backup_into

if TYPE_CHECKING:
    import pyarrow as pa

_ANSWER = "SELECT body, sha256, model, finish_reason, usage FROM response WHERE key = ?"
_INTEND = "INSERT INTO attempt (key, n, state, started_at, model, kind, entity_id) VALUES (?, ?, 'sent', ?, ?, ?, ?)"
_SETTLE = """
UPDATE attempt SET state = ?, latency_ms = ?, status = ?, error = ?, tokens_in = ?, tokens_out = ?, usd = ?,
  model = coalesce(?, model)
WHERE key = ? AND n = ?
"""
# the first reply stands: a second one to the same key is counted in its attempt and not kept
_RESPOND = """
INSERT INTO response (key, body, sha256, model, finish_reason, usage) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO NOTHING
"""
_CALLS = """
SELECT key, n, state, status, model, tokens_in, tokens_out, usd, started_at, latency_ms, kind, entity_id, error
FROM attempt ORDER BY rowid
"""
_SPENT = """
SELECT count(*), coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0), coalesce(sum(usd), 0.0),
  count(*) FILTER (WHERE usd IS NULL)
FROM attempt
"""


class Announced(Protocol):
    """What the ledger reads of a request."""

    @property
    def key(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def entity_id(self) -> str: ...


class Settled(Protocol):
    """What the ledger reads of an attempt's outcome; a response row is kept when `body` is there."""

    @property
    def state(self) -> str: ...
    @property
    def status(self) -> int | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def latency_ms(self) -> float | None: ...
    @property
    def tokens_in(self) -> int | None: ...
    @property
    def tokens_out(self) -> int | None: ...
    @property
    def usd(self) -> float | None: ...
    @property
    def model(self) -> str | None: ...
    @property
    def body(self) -> bytes | None: ...
    @property
    def finish_reason(self) -> str | None: ...
    @property
    def usage(self) -> "Mapping[str, object] | str | None": ...


@dataclass(frozen=True)
class Answer:
    """A stored reply: the raw body as it came, proved against its hash."""

    key: str
    body: bytes
    sha256: str
    model: str | None
    finish_reason: str | None
    usage: str | None


@dataclass(frozen=True)
class Spent:
    """What all attempts took; `usd` is the sum of the known prices, `unpriced` counts the calls without one."""

    calls: int
    tokens_in: int
    tokens_out: int
    usd: float
    unpriced: int


class Ledger:
    """Requests, attempts and raw replies in one SQLite file, written by one thread on one connection.

    `answered`, `intend` and `settle` may be called from any number of threads; each returns when what it says is on
    disk. Calls that arrive while a commit is under way share the next one.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._file = LedgerFile(path, read_only=read_only)
        self.batches = Batches(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Everything handed in before is on disk; the file is closed."""
        self._file.close()

    def answered(self, key: str) -> Answer | None:
        """The stored reply to a request, None where it was never answered.

        Raises:
            CorruptFileError: the stored body is not what was received.
        """
        row = self._file.ask(lambda db: db.execute(_ANSWER, (key,)).fetchone())
        if row is None:
            return None
        body, sha256, model, finish_reason, usage = row
        if hashlib.sha256(body).hexdigest() != sha256:
            raise CorruptFileError(str(self.path), f"the reply to {key} does not match its sha256", RESTORE)
        return Answer(key, body, sha256, model, finish_reason, usage)

    def intend(self, request: Announced) -> int:
        """The number of the attempt that may now be sent, counted from 1; on disk before it is returned.

        Raises:
            AlreadyAnsweredError: the request was answered before; sending it again would pay twice.
            DiskFullError: nothing was recorded, so nothing may be sent.
        """
        key, model, kind, entity_id = request.key, request.model, request.kind, request.entity_id
        started_us = int(datetime.now(UTC).timestamp() * 1_000_000)

        def announce(db: sqlite3.Connection) -> int:
            if db.execute("SELECT 1 FROM response WHERE key = ?", (key,)).fetchone():
                raise AlreadyAnsweredError(key)
            (last,) = db.execute("SELECT max(n) FROM attempt WHERE key = ?", (key,)).fetchone()
            number = (last or 0) + 1
            db.execute(_INTEND, (key, number, started_us, model, kind, entity_id))
            return number

        return self._file.ask(announce)

    def settle(self, key: str, number: int, outcome: Settled) -> None:
        """Attempt and reply are on disk, in one transaction, when this returns.

        Raises:
            UnknownAttemptError: the attempt was never announced, or was settled before.
        """
        usage = outcome.usage
        usage_text = usage if usage is None or isinstance(usage, str) else json.dumps(dict(usage), sort_keys=True)
        facts = (
            outcome.state,
            # a latency is what tells a settled attempt from an announced one
            outcome.latency_ms if outcome.latency_ms is not None else 0.0,
            outcome.status,
            outcome.error,
            outcome.tokens_in,
            outcome.tokens_out,
            outcome.usd,
            outcome.model,
        )
        body, finish_reason, model = outcome.body, outcome.finish_reason, outcome.model

        def record(db: sqlite3.Connection) -> None:
            row = db.execute("SELECT latency_ms FROM attempt WHERE key = ? AND n = ?", (key, number)).fetchone()
            if row is None:
                raise UnknownAttemptError(key, number, "it was never announced")
            if row[0] is not None:
                raise UnknownAttemptError(key, number, "it was settled before")
            db.execute(_SETTLE, (*facts, key, number))
            if body is not None:
                sha256 = hashlib.sha256(body).hexdigest()
                db.execute(_RESPOND, (key, body, sha256, model, finish_reason, usage_text))

        self._file.ask(record)

    def calls(self) -> "pa.Table":
        """Every attempt as rows of `llm_calls`, oldest first, without bodies."""
        import pyarrow as pa

        from warehouse.tables import LLM_CALLS

        rows = self._file.ask(lambda db: db.execute(_CALLS).fetchall())
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(LLM_CALLS.schema)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, LLM_CALLS.schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=LLM_CALLS.schema)

    def spent(self) -> Spent:
        """What all attempts together took."""
        return Spent(*self._file.ask(lambda db: db.execute(_SPENT).fetchone()))

    def uncertain(self) -> int:
        """How many attempts were sent and have no certain outcome: maybe paid."""
        return self._file.ask(lambda db: db.execute("SELECT count(*) FROM attempt WHERE state = 'sent'").fetchone()[0])

    def mark(self) -> int:
        """The high-water mark: grows with every announced attempt."""
        return self._file.ask(lambda db: db.execute("SELECT coalesce(max(rowid), 0) FROM attempt").fetchone()[0])

    def backup(self, keep: int = 3) -> Path:
        """A whole copy under `backups/` beside the ledger, on disk; the newest `keep` stay."""
        folder = self.path.parent / "backups"
        return self._file.ask(lambda db: backup_into(db, folder, keep), alone=True)
