"""A cap that is kept before spending: every call is booked at its worst case first, at its real cost afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat

from providers.completion import Committed, Request, canonical_json
from providers.errors import BudgetReachedError
from providers.prices import Price

BYTES_PER_TOKEN = 3  # English has about 4, so this books a little more than is used
_TOKENS_AROUND_A_MESSAGE = 8
_DAY_S = 86_400


class DayCap(BaseModel):
    """The most that may be committed in one day of UTC by all runs over one ledger, whatever the engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usd: PositiveFloat | None = None
    tokens: NonNegativeInt | None = None
    calls: NonNegativeInt | None = None

    @property
    def is_set(self) -> bool:
        return self.usd is not None or self.tokens is not None or self.calls is not None


class Cap(DayCap):
    """The most one run may commit; whatever is left out is not limited.

    Args:
        day: the same for the day (UTC), counted from the ledger: an attempt whose end nobody knows counts at its
            worst case. A call of unknown price adds nothing to `day.usd`, but all to `day.tokens` and `day.calls`.
    """

    day: DayCap = DayCap()

    @property
    def is_set(self) -> bool:
        return super().is_set or self.day.is_set


@dataclass(frozen=True)
class Booking:
    """The worst case of one call."""

    tokens_in: int
    tokens_out: int
    usd: float | None

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out


@dataclass(frozen=True)
class Ticket:
    """A booking that was accepted, and the day it counts for."""

    booking: Booking
    day: int


def worst_case(request: Request, max_tokens: int, price: Price | None) -> Booking:
    """What this request can cost at most: its text counted generously, its reply at full length."""
    n_bytes = sum(len(content.encode("utf-8", "replace")) for _, content in request.messages)
    n_bytes += len(canonical_json(request.schema))  # servers count the schema as part of the question
    max_tokens = request.sampling.get("max_tokens", max_tokens)  # a second question may have more room than the first
    tokens_in = -(-n_bytes // BYTES_PER_TOKEN) + _TOKENS_AROUND_A_MESSAGE * (len(request.messages) + 1)
    return Booking(tokens_in, max_tokens, price.cost(tokens_in, max_tokens) if price else None)


@dataclass
class _Total:
    calls: int = 0
    tokens: int = 0
    usd: float = 0.0

    def passed(self, cap: DayCap, tokens: int, usd: float) -> tuple[str, float, float] | None:
        """(limit, cap, committed so far) of the limit that one more call would pass."""
        for limit, most, committed, more in (
            ("calls", cap.calls, self.calls, 1),
            ("tokens", cap.tokens, self.tokens, tokens),
            ("usd", cap.usd, self.usd, usd),
        ):
            if most is not None and committed + more > most:
                return limit, most, committed
        return None

    def add(self, calls: int, tokens: int, usd: float) -> None:
        self.calls += calls
        self.tokens += tokens
        self.usd += usd


class Budget:
    """What has been committed against a cap, by this run and today; safe to use from several threads.

    Args:
        clock: seconds since 1970.
        section: of the settings, where the cap stands.
    """

    def __init__(self, cap: Cap, clock: Callable[[], float] = time.time, section: str = "profiles.engine") -> None:
        self._cap = cap
        self._section = section
        self._clock = clock
        self._lock = threading.Lock()
        self._run = _Total()
        self._days: dict[int, _Total] = {}

    @property
    def calls(self) -> int:
        return self._run.calls

    @property
    def today(self) -> int:
        """The day of UTC, counted from 1970."""
        return int(self._clock() // _DAY_S)

    def carry(self, calls: int, tokens: int, usd: float) -> None:
        """Counts what this run committed before, through an engine that is closed by now."""
        with self._lock:
            self._run.add(calls, tokens, usd)

    def open_day(self, committed_since: Callable[[int], Committed]) -> None:
        """Takes over what was committed today already; asked for once a day, and only when a day is capped.

        Args:
            committed_since: gives what was committed since so many microseconds after 1970.
        """
        day = self.today
        if not self._cap.day.is_set or day in self._days:
            return
        before = committed_since(day * _DAY_S * 1_000_000)
        self._days[day] = _Total(before.calls, before.tokens, before.usd)

    def book(self, booking: Booking) -> Ticket:
        """Commits the worst case of one more call, or raises BudgetReachedError and commits nothing."""
        tokens, usd = booking.tokens, booking.usd or 0.0
        with self._lock:
            ticket = Ticket(booking, self.today)
            day = self._days.setdefault(ticket.day, _Total())  # after midnight nothing was committed yet
            for prefix, total, cap in (("", self._run, self._cap), ("day.", day, self._cap.day)):
                if reached := total.passed(cap, tokens, usd):
                    limit, most, committed = reached
                    raise BudgetReachedError(prefix + limit, most, committed, self._run.calls, self._section)
            for total in (self._run, day):
                total.add(1, tokens, usd)
        return ticket

    def correct(self, ticket: Ticket, tokens: int, usd: float | None) -> None:
        """Replaces a worst case by what the call really took."""
        booking = ticket.booking
        with self._lock:
            for total in (self._run, self._days[ticket.day]):
                total.add(0, tokens - booking.tokens, (usd or 0.0) - (booking.usd or 0.0))
