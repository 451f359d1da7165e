"""Caps of a run and of a day: booked at the worst case before sending, counted from what the ledger knows."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import BudgetReachedError, Cap, DayCap
from providers.spending import Booking, Budget

DAY_S = 86_400


@dataclass
class Clock:
    now_s: float = 1000.25 * DAY_S

    def __call__(self) -> float:
        return self.now_s


@dataclass(frozen=True)
class Before:
    calls: int = 0
    tokens: int = 0
    usd: float = 0.0


def test_the_day_begins_with_what_the_ledger_knows_of_it_and_is_asked_once():
    budget, asked = Budget(Cap(day=DayCap(calls=5)), Clock()), []

    def committed(since_us: int) -> Before:
        asked.append(since_us)
        return Before(calls=3)

    for _ in range(2):
        budget.open_day(committed)
    assert asked == [1000 * DAY_S * 1_000_000]
    for _ in range(2):
        budget.book(Booking(1, 1, None))
    with pytest.raises(BudgetReachedError, match=r"5 calls a day .* today: 5 calls; 2 calls in this run") as reached:
        budget.book(Booking(1, 1, None))
    assert reached.value.limit == "day.calls" and "profiles.engine.cap.day.calls" in str(reached.value)


def test_after_midnight_a_new_day_is_empty_and_what_ends_late_counts_for_the_day_it_began():
    clock = Clock()
    budget = Budget(Cap(day=DayCap(tokens=100)), clock)
    budget.open_day(lambda since_us: Before(tokens=90))
    late = budget.book(Booking(4, 6, None))
    clock.now_s += DAY_S
    tickets = [budget.book(Booking(40, 10, None)) for _ in range(2)]
    with pytest.raises(BudgetReachedError):
        budget.book(Booking(1, 0, None))
    budget.correct(late, 0, None)
    with pytest.raises(BudgetReachedError):
        budget.book(Booking(1, 0, None))
    budget.correct(tickets[0], 49, None)
    budget.book(Booking(1, 0, None))


def test_without_a_cap_of_the_day_the_ledger_is_not_asked():
    Budget(Cap(calls=1), Clock()).open_day(lambda since_us: pytest.fail("asked"))


def test_a_cap_of_the_day_alone_is_a_cap():
    assert Cap(day=DayCap(usd=1)).is_set and not Cap().is_set and not Cap(day=DayCap()).is_set


@given(
    caps=st.tuples(*[st.none() | st.integers(1, 400)] * 4),
    calls=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.floats(0, 1)), max_size=30),
)
def test_what_is_committed_never_passes_any_cap_at_any_time(caps, calls):
    tokens, usd, day_tokens, day_usd = caps
    cap = Cap(tokens=tokens, usd=usd, day=DayCap(tokens=day_tokens, usd=day_usd))
    budget, now = Budget(cap, Clock()), [0, 0.0]
    budget.open_day(lambda since_us: Before(tokens=7, usd=7.0))
    for tokens_in, tokens_out, used in calls:
        booking = Booking(tokens_in, tokens_out, float(tokens_in + tokens_out))
        try:
            ticket = budget.book(booking)
        except BudgetReachedError:
            continue
        assert all(most is None or now[0] + booking.tokens <= most for most in (tokens,))
        assert all(most is None or now[0] + booking.tokens + 7 <= most for most in (day_tokens,))
        assert all(most is None or now[1] + booking.tokens <= most + 1e-9 for most in (usd,))
        assert all(most is None or now[1] + booking.tokens + 7 <= most + 1e-9 for most in (day_usd,))
        real = int(used * booking.tokens)
        budget.correct(ticket, real, float(real))
        now = [now[0] + real, now[1] + real]
