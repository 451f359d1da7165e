"""The journal as the event loop sees it: what piles up during one commit is handed in as one batch for the next."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from providers.completion import Journal, Outcome, Receipt, Request, Standing


@dataclass
class _Batch:
    keys: list[str] = field(default_factory=list)
    intents: list[tuple[Request, int | None, float | None]] = field(default_factory=list)
    settlements: list[tuple[str, int, Outcome]] = field(default_factory=list)
    waiting: tuple[list[asyncio.Future[Any]], ...] = field(default_factory=lambda: ([], [], []))


class JournalDesk:
    """Look-ups, intents and outcomes of many calls at once; must be used inside one event loop.

    A batch costs the loop one call and one wake-up, however many entries it holds.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._next = _Batch()
        self._busy = False

    async def look_up(self, key: str) -> Standing:
        """Where the key stands: its stored reply and how often it was announced."""
        self._next.keys.append(key)
        return await self._turn(0)

    async def intend(self, request: Request, worst_tokens: int, worst_usd: float | None) -> int:
        """The number of the attempt that may now be sent; durable."""
        self._next.intents.append((request, worst_tokens, worst_usd))
        return await self._turn(1)

    async def settle(self, key: str, n: int, outcome: Outcome) -> None:
        """How attempt n ended; durable."""
        self._next.settlements.append((key, n, outcome))
        await self._turn(2)

    async def _turn(self, kind: int) -> Any:
        turn = self._loop.create_future()
        self._next.waiting[kind].append(turn)
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._hand_in)  # after everybody of this round of the loop has put something in
        return await turn

    def _hand_in(self) -> None:
        batch, self._next = self._next, _Batch()
        try:
            promise = self._journal.submit(keys=batch.keys, intents=batch.intents, settlements=batch.settlements)
        except Exception as error:
            self._deal_out(batch, error)
            return
        promise.add_done_callback(lambda kept: self._loop.call_soon_threadsafe(self._kept, batch, kept))

    def _kept(self, batch: _Batch, promise: Any) -> None:
        try:
            self._deal_out(batch, promise.result())
        except Exception as error:
            self._deal_out(batch, error)

    def _deal_out(self, batch: _Batch, receipt: Receipt | Exception) -> None:
        self._busy = any(self._next.waiting)
        if self._busy:
            self._loop.call_soon(self._hand_in)
        for kind, turns in enumerate(batch.waiting):
            values = receipt if isinstance(receipt, Exception) else _lists(receipt)[kind]
            for place, turn in enumerate(turns):
                value = values if isinstance(values, Exception) else values[place]
                if turn.done():
                    continue
                if isinstance(value, Exception):
                    turn.set_exception(value)
                else:
                    turn.set_result(value)


def _lists(receipt: Receipt) -> tuple[Any, Any, Any]:
    return receipt.standings, receipt.numbers, receipt.refusals
