"""When the next call may go out: places, rates and pauses, shared by all calls of one engine."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, PositiveInt

_BURST_S = 1.0


class Limits(BaseModel):
    """What the server allows a minute; whatever is left out is not limited. Speed, no part of any key.

    Args:
        tokens_per_minute: question and reply together; booked at the worst case, corrected when the reply is there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: PositiveInt | None = None
    tokens_per_minute: PositiveInt | None = None


class TokenBucket:
    """A rate per minute with one second's worth of it in store; a need beyond the store is owed afterwards."""

    def __init__(self, per_minute: int, now_s: float) -> None:
        self._per_s = per_minute / 60
        self._room = max(1.0, self._per_s * _BURST_S)
        self._level, self._seen_s = self._room, now_s

    def wait_s(self, need: float, now_s: float) -> float:
        """Seconds until `need` may be taken; 0 when it may be taken now."""
        self._fill(now_s)
        missing = min(need, self._room) - self._level
        return missing / self._per_s if missing > 1e-9 else 0.0

    def take(self, need: float) -> None:
        """Takes it, going below zero for a need beyond the store."""
        self._level -= need

    def give_back(self, amount: float) -> None:
        """Returns what was taken and not used; a negative amount takes more."""
        self._level = min(self._room, self._level + amount)

    def _fill(self, now_s: float) -> None:
        self._level = min(self._room, self._level + (now_s - self._seen_s) * self._per_s)
        self._seen_s = now_s


class Pacer:
    """Places for calls, first come first served; must be used inside one event loop.

    The number of places starts at `concurrency`, is halved when the server says that it has too many calls, at most
    once for the calls that were out together, and grows by one for every round of calls that went well.
    """

    def __init__(self, concurrency: int, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = float(concurrency)
        self._places = self._most
        self._clock = clock
        now_s = clock()
        requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
        self._requests = None if requests is None else TokenBucket(requests, now_s)
        self._tokens = None if tokens is None else TokenBucket(tokens, now_s)
        self._taken = 0
        self._quiet_until_s = now_s
        self._halved_s = -1.0
        self._waiting: deque[tuple[asyncio.Future[bool], int]] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def places(self) -> int:
        """How many calls may be out now."""
        return int(self._places)

    async def enter(self, tokens: int) -> bool:
        """True when the caller has a place and may send; False when no call may go out any more.

        Args:
            tokens: the most the call can take, of `tokens_per_minute`.
        """
        if self._closed:
            return False
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, tokens))
        self._admit()
        return await turn

    def leave(self, unused_tokens: int = 0) -> None:
        """Gives the place back, and what the call did not take of its tokens."""
        self._taken -= 1
        if self._tokens is not None:
            self._tokens.give_back(unused_tokens)
        self._admit()

    def went_well(self) -> None:
        """One more place for every round of good calls."""
        self._places = min(self._most, self._places + 1.0 / self._places)

    def overloaded(self, sent_s: float) -> None:
        """Half the places, if the call that was turned away went out after the last halving (`sent_s`: the clock)."""
        if sent_s > self._halved_s:
            self._places = max(1.0, self._places / 2)
            self._halved_s = self._clock()

    def pause(self, seconds: float) -> None:
        """No call of anybody goes out before so many seconds have passed."""
        self._quiet_until_s = max(self._quiet_until_s, self._clock() + seconds)

    def close(self) -> None:
        """Whoever waits is turned away, and so is whoever comes."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        while self._waiting:
            turn, _ = self._waiting.popleft()
            if not turn.done():
                turn.set_result(False)

    def _admit(self) -> None:
        while self._waiting and self._taken < self.places:
            turn, tokens = self._waiting[0]
            if (wait_s := self._wait_s(tokens)) > 0:
                self._wake_in(wait_s)
                return
            self._waiting.popleft()
            if turn.done():
                continue
            for bucket, need in ((self._requests, 1), (self._tokens, tokens)):
                if bucket is not None:
                    bucket.take(need)
            self._taken += 1
            turn.set_result(True)

    def _wait_s(self, tokens: int) -> float:
        now_s = self._clock()
        waits = [self._quiet_until_s - now_s]
        waits += [
            bucket.wait_s(need, now_s)
            for bucket, need in ((self._requests, 1), (self._tokens, tokens))
            if bucket is not None
        ]
        return max(waits)

    def _wake_in(self, seconds: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(seconds, self._admit)
