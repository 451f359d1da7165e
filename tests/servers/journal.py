"""A journal in memory that keeps the order of what happened, for tests of engines alone."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StoredAnswer:
    body: bytes


class MemoryJournal:
    """Meets providers.Journal; `events` holds (what, key, n) in order, `outcomes` every settled attempt."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, int]] = []
        self.outcomes: dict[tuple[str, int], Any] = {}
        self.bodies: dict[str, bytes] = {}
        self.intents: Counter[str] = Counter()
        self._lock = threading.Lock()

    def answered(self, key: str) -> StoredAnswer | None:
        with self._lock:
            return StoredAnswer(self.bodies[key]) if key in self.bodies else None

    def intend(self, request: Any) -> int:
        with self._lock:
            self.intents[request.key] += 1
            n = self.intents[request.key]
            self.events.append(("intend", request.key, n))
            return n

    def settle(self, key: str, n: int, outcome: Any) -> None:
        with self._lock:
            self.events.append(("settle", key, n))
            self.outcomes[key, n] = outcome
            if outcome.body is not None:
                assert key not in self.bodies, "a key is answered once"
                self.bodies[key] = outcome.body
