"""The pacer under a clock of the test's own: places, halving, pauses, rates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from providers.pacing import Limits, Pacer, TokenBucket


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose sleeps take no time: its clock jumps to the next thing to do."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def time(self) -> float:
        return self.now_s

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        if not ready and scheduled:
            self.now_s = max(self.now_s, scheduled[0].when())
        super()._run_once()  # type: ignore[misc]


def in_virtual_time(play: Callable[[VirtualLoop], Awaitable[Any]]) -> Any:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(play(loop))
    finally:
        loop.close()


async def sent_at(loop: VirtualLoop, pacer: Pacer, tokens: list[int], seconds_a_call: float = 0.0) -> list[float]:
    """When each call went out, each taking so long."""
    times: list[float] = []

    async def call(need: int) -> None:
        assert await pacer.enter(need)
        times.append(loop.time())
        await asyncio.sleep(seconds_a_call)
        pacer.leave()

    await asyncio.gather(*(call(need) for need in tokens))
    return times


def test_never_more_calls_are_out_than_there_are_places():
    async def play(loop: VirtualLoop) -> list[float]:
        return await sent_at(loop, Pacer(4, Limits(), loop.time), [1] * 12, seconds_a_call=1.0)

    assert in_virtual_time(play) == [0.0] * 4 + [1.0] * 4 + [2.0] * 4


def test_calls_that_were_turned_away_together_halve_the_places_once_and_good_rounds_bring_them_back():
    async def play(loop: VirtualLoop) -> list[int]:
        pacer, seen = Pacer(16, Limits(), loop.time), []
        for _ in range(16):
            pacer.overloaded(sent_s=0.0)
        seen.append(pacer.places)
        await asyncio.sleep(1)
        pacer.overloaded(sent_s=0.5)
        seen.append(pacer.places)
        for _ in range(4 + 5 + 1):
            pacer.went_well()
        seen.append(pacer.places)
        for _ in range(1000):
            pacer.went_well()
        seen.append(pacer.places)
        for _ in range(100):
            await asyncio.sleep(1)
            pacer.overloaded(sent_s=loop.time())
        return [*seen, pacer.places]

    assert in_virtual_time(play) == [8, 4, 6, 16, 1]


def test_a_pause_holds_everybody_back_and_nobody_longer():
    async def play(loop: VirtualLoop) -> list[float]:
        pacer = Pacer(2, Limits(), loop.time)
        pacer.pause(7.0)
        pacer.pause(3.0)
        return await sent_at(loop, pacer, [1] * 3)

    assert in_virtual_time(play) == [7.0] * 3


def test_whoever_waits_when_it_closes_is_turned_away():
    async def play(loop: VirtualLoop) -> list[bool]:
        pacer = Pacer(1, Limits(), loop.time)
        first = await pacer.enter(1)
        waiting = asyncio.ensure_future(pacer.enter(1))
        await asyncio.sleep(0)
        pacer.close()
        return [first, await waiting, await pacer.enter(1)]

    assert in_virtual_time(play) == [True, False, False]


@given(
    per_minute=st.integers(1, 6_000),
    needs=st.lists(st.integers(1, 3_000), min_size=1, max_size=40),
)
def test_no_minute_carries_more_than_its_limit_and_one_call(per_minute, needs):
    async def play(loop: VirtualLoop) -> list[float]:
        return await sent_at(loop, Pacer(64, Limits(tokens_per_minute=per_minute), loop.time), needs)

    times = in_virtual_time(play)
    room = max(1.0, per_minute / 60)
    for start in times:
        within = [need for need, sent in zip(needs, times, strict=True) if start <= sent < start + 60]
        assert sum(within[:-1]) <= per_minute + room + 1e-6


def test_requests_are_spread_over_the_minute():
    async def play(loop: VirtualLoop) -> list[float]:
        return await sent_at(loop, Pacer(64, Limits(requests_per_minute=120), loop.time), [1] * 10)

    assert [round(time, 3) for time in in_virtual_time(play)] == [0, 0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]


def test_tokens_that_were_not_used_come_back_but_never_beyond_the_store():
    bucket = TokenBucket(per_minute=600, now_s=0.0)
    bucket.take(10)
    assert bucket.wait_s(5, 0.0) == 0.5
    bucket.give_back(8)
    assert bucket.wait_s(5, 0.0) == 0.0
    bucket.give_back(1_000)
    bucket.take(10)
    assert bucket.wait_s(1, 0.0) > 0
