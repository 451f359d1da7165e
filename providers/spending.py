"""A cap that is kept before spending: every call is booked at its worst case first, at its real cost afterwards."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat

from providers.completion import Request, canonical_json
from providers.errors import BudgetReachedError
from providers.prices import Price

_BYTES_PER_TOKEN = 3  # English has about 4, so this books a little more than is used
_TOKENS_AROUND_A_MESSAGE = 8


class Cap(BaseModel):
    """The most one run may commit; whatever is left out is not limited."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usd: PositiveFloat | None = None
    tokens: NonNegativeInt | None = None
    calls: NonNegativeInt | None = None

    @property
    def is_set(self) -> bool:
        return self.usd is not None or self.tokens is not None or self.calls is not None


@dataclass(frozen=True)
class Booking:
    """The worst case of one call."""

    tokens_in: int
    tokens_out: int
    usd: float | None


def worst_case(request: Request, max_tokens: int, price: Price | None) -> Booking:
    """What this request can cost at most: its text counted generously, its reply at full length."""
    n_bytes = sum(len(content.encode("utf-8", "replace")) for _, content in request.messages)
    n_bytes += len(canonical_json(request.schema))  # servers count the schema as part of the question
    tokens_in = -(-n_bytes // _BYTES_PER_TOKEN) + _TOKENS_AROUND_A_MESSAGE * (len(request.messages) + 1)
    return Booking(tokens_in, max_tokens, price.cost(tokens_in, max_tokens) if price else None)


class Budget:
    """What has been committed against a cap; safe to use from several threads."""

    def __init__(self, cap: Cap) -> None:
        self._cap = cap
        self._lock = threading.Lock()
        self.calls = 0
        self.tokens = 0
        self.usd = 0.0

    def book(self, booking: Booking) -> None:
        """Commits the worst case of one more call, or raises BudgetReachedError and commits nothing."""
        tokens, usd = booking.tokens_in + booking.tokens_out, booking.usd or 0.0
        with self._lock:
            for limit, cap, committed, more in (
                ("calls", self._cap.calls, self.calls, 1),
                ("tokens", self._cap.tokens, self.tokens, tokens),
                ("usd", self._cap.usd, self.usd, usd),
            ):
                if cap is not None and committed + more > cap:
                    raise BudgetReachedError(limit, cap, committed, self.calls)
            self.calls += 1
            self.tokens += tokens
            self.usd += usd

    def correct(self, booking: Booking, tokens: int, usd: float | None) -> None:
        """Replaces a worst case by what the call really took."""
        with self._lock:
            self.tokens += tokens - booking.tokens_in - booking.tokens_out
            self.usd += (usd or 0.0) - (booking.usd or 0.0)
