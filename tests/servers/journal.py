"""A journal in memory that keeps the order of what happened, for tests of engines alone."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StoredAnswer:
    body: bytes


@dataclass(frozen=True)
class StoredStanding:
    answer: StoredAnswer | None
    attempts: int
    held_by: str | None = None


@dataclass(frozen=True)
class StoredReceipt:
    standings: list[Any]
    numbers: list[Any]
    refusals: list[Any]


@dataclass(frozen=True)
class StoredTotal:
    calls: int = 0
    tokens: int = 0
    usd: float = 0.0


class MemoryJournal:
    """Meets providers.Journal; `events` holds (what, key, n) in order, `outcomes` every settled attempt."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, int]] = []
        self.outcomes: dict[tuple[str, int], Any] = {}
        self.bodies: dict[str, bytes] = {}
        self.intents: Counter[str] = Counter()
        self.batches = MemoryBatches(self)
        self.embedded = MemoryEmbedded(self)
        self.worst: dict[tuple[str, int], tuple[int | None, float | None]] = {}
        self.today = StoredTotal()
        self._lock = threading.Lock()

    def answered(self, key: str) -> StoredAnswer | None:
        with self._lock:
            return StoredAnswer(self.bodies[key]) if key in self.bodies else None

    def intend(self, request: Any, worst_tokens: int | None = None, worst_usd: float | None = None) -> int:
        with self._lock:
            self.intents[request.key] += 1
            n = self.intents[request.key]
            self.worst[request.key, n] = (worst_tokens, worst_usd)
            self.events.append(("intend", request.key, n))
            return n

    def settle(self, key: str, n: int, outcome: Any) -> None:
        with self._lock:
            self.events.append(("settle", key, n))
            self.outcomes[key, n] = outcome
            if outcome.body is not None:
                assert key not in self.bodies, "a key is answered once"
                self.bodies[key] = outcome.body

    def submit(
        self, *, keys: Sequence[str] = (), intents: Sequence[Any] = (), settlements: Sequence[Any] = ()
    ) -> Future[StoredReceipt]:
        kept: Future[StoredReceipt] = Future()
        try:
            refusals = [self.settle(*settlement) for settlement in settlements]
            standings = [StoredStanding(self.answered(key), self.intents[key]) for key in keys]
            kept.set_result(StoredReceipt(standings, [self.intend(*intent) for intent in intents], refusals))
        except Exception as error:
            kept.set_exception(error)
        return kept

    def committed(self, since_us: int = 0) -> StoredTotal:
        return self.today


class MemoryEmbedded:
    """Meets providers.EmbeddedBook."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal
        self._places: list[tuple[str, str, str, int]] = []

    def enlist(self, encoder: str, calls: Iterable[tuple[str, Sequence[str]]]) -> None:
        self._places += [(encoder, hashed, key, place) for key, hashes in calls for place, hashed in enumerate(hashes)]

    def find(self, encoder: str, text_hashes: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
        wanted, found = set(text_hashes), {}
        for of, hashed, key, place in self._places:
            if of == encoder and hashed in wanted and key in self._journal.bodies:
                found.setdefault(key, []).append((hashed, place))
        return found


@dataclass
class StoredBatch:
    shard_hash: str
    server: str
    n_requests: int
    state: str = "intended"
    announced_at_s: float | None = None
    file_id: str | None = None
    batch_id: str | None = None
    numbers: dict[str, int] = field(default_factory=dict)


class MemoryBatches:
    """Meets providers.BatchBook."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal
        self._rows: dict[str, StoredBatch] = {}
        self.lines_aside: dict[str, list[tuple[str, bytes]]] = {}

    def begin(self, content_sha256: str, server: str, model: str, n_requests: int) -> StoredBatch:
        row = StoredBatch(f"{content_sha256}-{len(self._rows)}", server, n_requests)
        self._rows[row.shard_hash] = row
        return row

    def uploaded(self, shard_hash: str, file_id: str) -> None:
        self._rows[shard_hash].state, self._rows[shard_hash].file_id = "uploaded", file_id

    def announce(self, shard_hash: str, intents: Any) -> None:
        row = self._rows[shard_hash]
        row.numbers = {intent[0].key: self._journal.intend(*intent) for intent in intents}
        row.state, row.announced_at_s = "creating", time.time()

    def submitted(self, shard_hash: str, batch_id: str) -> None:
        self._rows[shard_hash].state, self._rows[shard_hash].batch_id = "submitted", batch_id

    def seen(self, shard_hash: str, status: str, completed: int, failed: int) -> None:
        return None

    def close(self, shard_hash: str, state: str) -> None:
        self._rows[shard_hash].state = state

    def open_at(self, server: str) -> list[StoredBatch]:
        return [
            row
            for row in self._rows.values()
            if row.server == server and row.state in ("creating", "submitted", "gone")
        ]

    def members(self, shard_hash: str) -> dict[str, int | None]:
        numbers = self._rows[shard_hash].numbers
        return {key: None if (key, n) in self._journal.outcomes else n for key, n in numbers.items()}

    def set_aside(self, shard_hash: str, lines: Any) -> None:
        self.lines_aside[shard_hash] = list(lines)
