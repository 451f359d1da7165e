"""The ledger: every paid request, announced before it is sent and kept for ever once it is answered."""

from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from warehouse.batches import Batches
from warehouse.embedded import EmbeddedTexts
from warehouse.ledger_entries import (
    Announced,
    Answer,
    Intent,
    Receipt,
    Settled,
    Settlement,
    announce,
    forget_entity,
    record,
    standings,
    written_bytes,
)
from warehouse.ledger_file import RESTORE, LedgerFile, backup_into

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

_CALLS = """
SELECT key, n, state, status, model, tokens_in, tokens_out, usd, started_at, latency_ms, kind, entity_id, error,
  worst_tokens, worst_usd
FROM attempt ORDER BY rowid
"""
_SPENT = """
SELECT count(*), coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0), coalesce(sum(usd), 0.0),
  count(*) FILTER (WHERE usd IS NULL)
FROM attempt
"""
# An answer that is an error costs nothing; silence, and a reply that does not say what it took, may cost the worst.
_COMMITTED = """
SELECT count(*),
  coalesce(sum(CASE WHEN tokens_in IS NOT NULL AND tokens_out IS NOT NULL THEN tokens_in + tokens_out
    WHEN status NOT BETWEEN 200 AND 299 THEN 0 ELSE worst_tokens END), 0),
  coalesce(sum(CASE WHEN usd IS NOT NULL THEN usd
    WHEN status NOT BETWEEN 200 AND 299 THEN 0.0 ELSE worst_usd END), 0.0)
FROM attempt WHERE started_at >= ?
"""
_UNCERTAIN_COST = """
SELECT count(*), coalesce(sum(worst_tokens), 0), coalesce(sum(worst_usd), 0.0),
  count(*) FILTER (WHERE worst_usd IS NULL)
FROM attempt WHERE state = 'sent'
"""


@dataclass(frozen=True)
class Spent:
    """What all attempts took; `usd` is the sum of the known prices, `unpriced` counts the calls without one."""

    calls: int
    tokens_in: int
    tokens_out: int
    usd: float
    unpriced: int


@dataclass(frozen=True)
class Committed:
    """What attempts have taken or may still take: each at its real cost, or at its worst case while that is unknown."""

    calls: int
    tokens: int
    usd: float


@dataclass(frozen=True)
class UncertainCost:
    """The most that attempts without a certain outcome can have cost; `unpriced` counts those of unknown price."""

    attempts: int
    tokens: int
    usd: float
    unpriced: int


class Ledger:
    """Requests, attempts and raw replies in one SQLite file, written by one thread on one connection.

    Every method may be called from any number of threads; each returns when what it says is on disk. What arrives
    while a commit is under way shares the next one.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._file = LedgerFile(path, read_only=read_only)
        self.batches = Batches(self._file)
        self.embedded = EmbeddedTexts(self._file)

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
        (standing,) = self.submit(keys=[key]).result().standings
        return _or_raise(standing).answer

    def intend(self, request: Announced, worst_tokens: int | None = None, worst_usd: float | None = None) -> int:
        """The number of the attempt that may now be sent, counted from 1; on disk before it is returned.

        Args:
            worst_tokens, worst_usd: what the attempt can cost at most; None where nobody knows.

        Raises:
            AlreadyAnsweredError: the request was answered before; sending it again would pay twice.
            DiskFullError: nothing was recorded, so nothing may be sent.
        """
        (number,) = self.submit(intents=[(request, worst_tokens, worst_usd)]).result().numbers
        return _or_raise(number)

    def settle(self, key: str, number: int, outcome: Settled) -> None:
        """Attempt and reply are on disk, in one transaction, when this returns.

        Raises:
            UnknownAttemptError: the attempt was never announced, or was settled before.
        """
        (refusal,) = self.submit(settlements=[(key, number, outcome)]).result().refusals
        if refusal is not None:
            raise refusal

    def submit(
        self, *, keys: Sequence[str] = (), intents: Sequence[Intent] = (), settlements: Sequence[Settlement] = ()
    ) -> "Future[Receipt]":
        """A whole batch in one commit, without waiting: the receipt comes when all of it is on disk.

        An entry that is refused leaves its neighbours alone and gives its error in the receipt. Hundreds of entries
        cost hardly more statements than one.
        """
        path = str(self.path)
        return self._file.submit(
            lambda db: Receipt(
                refusals=record(db, settlements),
                standings=standings(db, keys, path, RESTORE),
                numbers=announce(db, intents),
            ),
            n_bytes=written_bytes(intents, settlements),
        )

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

    def committed(self, since_us: int = 0) -> Committed:
        """What the attempts announced since then (microseconds since 1970, UTC) took, or may still have taken."""
        return Committed(*self._file.ask(lambda db: db.execute(_COMMITTED, (since_us,)).fetchone()))

    def uncertain(self) -> int:
        """How many attempts were sent and have no certain outcome: maybe paid."""
        return self.uncertain_cost().attempts

    def uncertain_cost(self) -> UncertainCost:
        """What the attempts without a certain outcome can have cost at most."""
        return UncertainCost(*self._file.ask(lambda db: db.execute(_UNCERTAIN_COST).fetchone()))

    def rejected(self, key: str) -> list[bytes]:
        """The bodies that came for a key and were no reply, oldest first, each cut at 64 KiB."""
        query = "SELECT body FROM rejected WHERE key = ? ORDER BY n"
        return [body for (body,) in self._file.ask(lambda db: db.execute(query, (key,)).fetchall())]

    def forget(
        self,
        kind: str,
        entity_id: str,
        around: Collection[tuple[str, str]] = (),
        kept: Collection[str] = (),
    ) -> int:
        """How many bodies went; the file is written anew.

        What the calls took stays on record, without whom they were about and what was said of them.

        Args:
            around: other entities, as (kind, id), whose replies may quote this one: they go too.
            kept: keys of replies that are known not to; these stay, whomever they are about but the entity itself.
        """
        count = self._file.ask(lambda db: forget_entity(db, kind, entity_id, around, kept))
        self._file.ask(lambda db: db.execute("VACUUM") and None, alone=True)
        return count

    def mark(self) -> int:
        """The high-water mark: grows with every announced attempt."""
        return self._file.ask(lambda db: db.execute("SELECT coalesce(max(rowid), 0) FROM attempt").fetchone()[0])

    def backup(self, keep: int = 3) -> Path:
        """A whole copy under `backups/` beside the ledger, on disk; the newest `keep` stay."""
        folder = self.path.parent / "backups"
        return self._file.ask(lambda db: backup_into(db, folder, keep), alone=True)


def _or_raise(value: T | Exception) -> T:
    if isinstance(value, Exception):
        raise value
    return value
