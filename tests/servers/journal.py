"""A journal in memory that keeps the order of what happened, for tests of engines alone."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StoredAnswer:
    body: bytes


@dataclass(frozen=True)
class StoredStanding:
    answer: StoredAnswer | None
    attempts: int


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
