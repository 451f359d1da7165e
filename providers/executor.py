"""One pass over requests: intent, commit, call, settle, only then read. The one place that asks again.

Runs in a thread and loop of its own, so that calls go out while the caller works on earlier completions.
"""

from __future__ import annotations

import asyncio
import queue
import random
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import httpx2

from providers.classify import Verdict, classify
from providers.completion import Completion, Journal, Outcome, Request
from providers.envelope import Envelope, completion_of
from providers.errors import (
    BudgetReachedError,
    CircuitOpenError,
    EngineStoppedError,
    HeldByBatchError,
    StoppedEarlyError,
)
from providers.journal_desk import JournalDesk
from providers.pacing import Pacer
from providers.prices import Price
from providers.response_form import FALLBACK_NOTE, ResponseForm, form_after_refusal, recorded_usage
from providers.spending import Booking, Budget, Ticket, worst_case
from providers.wire import Wire

if TYPE_CHECKING:
    from pydantic import SecretStr

    from providers.hosted_server import CalledServer

EXHAUSTED = "exhausted"
_BAD_ENVELOPES = 3  # the first and two more
_LOST_IN_A_ROW = 20
_LONGEST_BACKOFF_S = 30.0
_LOOK_AHEAD = 64  # requests that are looked up while all places are taken
_UNREAD = 2_000  # completions that wait for the caller before admission waits for them


@dataclass(frozen=True)
class _Attempt:
    verdict: Verdict
    usd: float | None
    form: ResponseForm


class Executor:
    """The calls of one `complete`; `failure` is what ended it early, if anything did.

    Bounded whatever the number of requests: held are those in flight, a look-ahead, and the keys that failed.
    """

    def __init__(
        self,
        config: CalledServer,
        key: SecretStr,
        price: Price | None,
        budget: Budget,
        journal: Journal,
        inbox: queue.SimpleQueue[Completion | str | None],
    ) -> None:
        self.failure: BaseException | None = None
        self._config = config
        self._exchange = config.exchange
        self._key = key
        self._price = price
        self._budget = budget
        self._journal = journal
        self._inbox = inbox
        self._stopping = threading.Event()
        self._twins: dict[str, list[Request]] = {}  # equal requests waiting for the one in flight
        self._failed: dict[str, tuple[str, str | None]] = {}  # keys that are not asked again in this pass
        self._held: dict[str, str] = {}  # keys that a batch of another engine may have paid for, and its id
        self._lost_in_a_row = 0
        self._booked = 0  # calls whose worst case may still turn out smaller
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Admits nothing more; what is in flight is waited for, at most `drain_s`, and settled. From any thread."""
        self._stopping.set()
        if (loop := self._loop) is not None:
            with suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(self._begin_drain, True)

    def run(self, requests: Iterable[Request]) -> None:
        """Answers all requests into the inbox, then puts None there, whatever happened."""
        try:
            asyncio.run(self._converse(requests))
        except BaseException as error:  # handed to the thread that reads the inbox, which raises it
            self.failure = error
        finally:
            self._inbox.put(None)

    async def _converse(self, requests: Iterable[Request]) -> None:
        self._budget.open_day(self._journal.committed)
        self._desk = JournalDesk(self._journal)
        self._pacer = Pacer(self._config.concurrency, self._config.limits)
        self._stopped = asyncio.Event()
        self._freed = asyncio.Event()
        self._limits: set[asyncio.Timeout] = set()
        self._cut: asyncio.TimerHandle | None = None
        self._is_cut = False
        async with Wire(self._config, self._key) as self._wire:
            self._loop = asyncio.get_running_loop()
            if self._stopping.is_set():
                self._begin_drain(True)
            tasks: set[asyncio.Task[None]] = set()
            try:
                await self._admit(requests, tasks)
            finally:
                # a paid reply on its way is never thrown away, even while an error travels up
                while tasks:
                    await asyncio.wait(tasks)
                if self._cut is not None:
                    self._cut.cancel()
                self._loop = None
        if self.failure is None and self._held:
            self.failure = HeldByBatchError(self._config.model, len(self._held), tuple({*self._held.values()}))
        if self.failure is not None:
            raise self.failure

    async def _admit(self, requests: Iterable[Request], tasks: set[asyncio.Task[None]]) -> None:
        window = asyncio.Semaphore(self._config.concurrency + _LOOK_AHEAD)

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            window.release()
            if (error := task.exception()) is not None:
                self._halt(error)

        try:
            for request in requests:
                if self._stopping.is_set():
                    return
                if request.key in self._twins:
                    self._twins[request.key].append(request)
                    continue
                self._twins[request.key] = []
                await window.acquire()
                task = asyncio.create_task(self._answer(request))
                tasks.add(task)
                task.add_done_callback(ended)
                await asyncio.sleep(0)  # rendering the next request takes the loop: let the sockets have a turn
                while self._inbox.qsize() > _UNREAD and not self._stopping.is_set():
                    await asyncio.sleep(0.01)
        except Exception as error:  # the caller's own rows
            self._halt(error)

    def _halt(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self._stopping.set()
        # whoever reached a cap is in no hurry: calls that are out and paid may take their own deadline
        self._begin_drain(not isinstance(error, StoppedEarlyError))

    def _begin_drain(self, in_a_hurry: bool) -> None:
        self._pacer.close()
        self._stopped.set()
        self._freed.set()
        if in_a_hurry and self._cut is None:
            self._cut = asyncio.get_running_loop().call_later(self._config.drain_s, self._cut_off)

    def _cut_off(self) -> None:
        """The drain has lasted long enough: calls still out end now and stay `sent`, maybe paid."""
        self._is_cut = True
        now_s = asyncio.get_running_loop().time()
        for limit in self._limits:
            limit.reschedule(now_s)

    async def _answer(self, request: Request) -> None:
        failed = self._failed.get(request.key)
        if failed is not None:
            completion = Completion(request, None, error_code=failed[0], detail=failed[1], cached=True)
        else:
            completion = await self._look_up_or_ask(request)
        twins = self._twins.pop(request.key)
        if completion is None:
            return
        if completion.error_code is not None:
            self._failed[request.key] = (completion.error_code, completion.detail)
        self._inbox.put(completion)
        for twin in twins:
            self._inbox.put(replace(completion.unpaid(), request=twin))

    async def _look_up_or_ask(self, request: Request) -> Completion | None:
        standing = await self._desk.look_up(request.key)
        if standing.answer is not None:
            return completion_of(request, self._exchange.read(request, standing.answer.body))
        if standing.held_by is not None:
            self._held[request.key] = standing.held_by
            return None
        return await self._ask(request, standing.attempts)

    async def _ask(self, request: Request, before: int) -> Completion | None:
        """The completion of as many calls as it takes; None when the run ends first, which leaves the row pending."""
        bad_envelopes, last = 0, ""
        for n_calls in range(1, self._config.max_attempts + 1):
            if before + n_calls > self._config.max_attempts_ever:
                return _given_up(request, n_calls - 1, _worn_out(before + n_calls - 1, last, self._config.section))
            attempt = await self._attempt(request)
            if attempt is None:
                return None
            verdict = attempt.verdict
            code, detail = verdict.code or "", self._wire.public(verdict.detail or "")
            if verdict.kind in ("answer", "content") and verdict.envelope is not None:
                self._lost_in_a_row = 0
                return _completion(request, verdict.envelope, attempt.usd, n_calls)
            if verdict.kind == "fatal_run":
                self._halt(
                    EngineStoppedError(
                        request.model,
                        verdict.status or 0,
                        f"{code}: {detail}",
                        self._budget.calls,
                        self._config.section,
                    )
                )
                return None
            if verdict.kind == "fatal_row" and self._falls_back(attempt.form, verdict):
                continue
            bad_envelopes += verdict.kind == "bad_envelope"
            last = f"{code}: {detail}"
            if verdict.kind == "fatal_row" or bad_envelopes == _BAD_ENVELOPES:
                refused = Completion(request, None, error_code=code, detail=detail or None, calls=n_calls)
                return refused if self._exchange.divisible(request) else self._lost(refused)
            if n_calls < self._config.max_attempts and not await self._back_off(n_calls):
                return None
        return self._lost(_given_up(request, self._config.max_attempts, f"the last of so many calls: {last}"))

    def _falls_back(self, form: ResponseForm, verdict: Verdict) -> bool:
        """Whether the refusal was of the form alone: from here on the run asks in the other one, and says so once."""
        other = form_after_refusal(form, verdict.status, verdict.detail or "")
        if other is None:
            return False
        if self._wire.form != other:
            self._wire.form = other
            self._inbox.put(FALLBACK_NOTE)
        return True

    async def _back_off(self, n_calls: int) -> bool:
        """Waits between nothing and twice as long as the last time at most; False when the run ends meanwhile."""
        longest_s = min(_LONGEST_BACKOFF_S, self._config.backoff_s * 2 ** (n_calls - 1))
        try:
            await asyncio.wait_for(self._stopped.wait(), random.uniform(0, longest_s))
        except TimeoutError:
            return True
        return False

    async def _attempt(self, request: Request) -> _Attempt | None:
        """One call, written down before and after; None when no call may go out any more."""
        booking = worst_case(request, self._exchange.reply_tokens, self._price)
        if not await self._pacer.enter(booking.tokens):
            return None
        used = 0
        try:
            ticket = await self._book(booking)
            if ticket is None:
                return None
            worst_usd = 0.0 if booking.usd is None and not self._config.paid else booking.usd
            n = await self._desk.intend(request, booking.tokens, worst_usd)
            started_s, form = time.monotonic(), self._wire.form
            verdict, body = await self._call(request)
            outcome, used = self._accounted(verdict, body, ticket, round((time.monotonic() - started_s) * 1000))
            outcome = replace(outcome, usage=recorded_usage(outcome.usage, form))
            self._heed(verdict, started_s)
            await self._desk.settle(request.key, n, outcome)
            return _Attempt(verdict, outcome.usd, form)
        finally:
            self._pacer.leave(unused_tokens=booking.tokens - used)

    async def _book(self, booking: Booking) -> Ticket | None:
        """A ticket within the cap; while calls in flight may still turn out cheaper than booked, it is waited for."""
        while not self._stopping.is_set():
            try:
                ticket = self._budget.book(booking)
            except BudgetReachedError as error:
                if self._booked == 0:
                    self._halt(error)
                    return None
                self._freed.clear()
                await self._freed.wait()
            else:
                self._booked += 1
                return ticket
        return None

    async def _call(self, request: Request) -> tuple[Verdict, bytes | None]:
        try:
            async with asyncio.timeout(0 if self._is_cut else self._config.deadline_s) as limit:
                self._limits.add(limit)
                try:
                    status, headers, body = await self._wire.ask(request)
                finally:
                    self._limits.discard(limit)
        except (OSError, httpx2.HTTPError) as error:
            return classify(None, {}, error), None
        return classify(status, headers, body, now_s=time.time(), read=partial(self._exchange.read, request)), body

    def _heed(self, verdict: Verdict, started_s: float) -> None:
        if verdict.kind in ("answer", "content"):
            self._pacer.went_well()
        if verdict.slow_down:
            self._pacer.overloaded(started_s)
        if verdict.wait_s is not None:
            self._pacer.pause(verdict.wait_s)

    def _accounted(self, verdict: Verdict, body: bytes | None, ticket: Ticket, latency_ms: int) -> tuple[Outcome, int]:
        """(what the journal keeps, tokens to count): the real cost where it is known, else the worst case."""
        booking, envelope = ticket.booking, verdict.envelope
        error = None if verdict.code is None else self._wire.public(f"{verdict.code}: {verdict.detail or ''}")
        outcome = Outcome(verdict.state, latency_ms, verdict.status, error)
        used, usd = booking.tokens, booking.usd
        if envelope is not None:
            tokens_in = booking.tokens_in if envelope.tokens_in is None else envelope.tokens_in
            tokens_out = booking.tokens_out if envelope.tokens_out is None else envelope.tokens_out
            counted = envelope.tokens_in is not None and envelope.tokens_out is not None
            used, usd = tokens_in + tokens_out, self._price.cost(tokens_in, tokens_out) if self._price else None
            outcome = replace(
                outcome,
                tokens_in=envelope.tokens_in,
                tokens_out=envelope.tokens_out,
                usd=usd if counted else None,
                model=envelope.model,
                body=body if envelope.is_reply else None,
                rejected=None if envelope.is_reply else body,
                finish_reason=envelope.finish_reason,
                usage=envelope.recorded_usage,
            )
        elif verdict.unsent:
            used, usd = 0, 0.0
            outcome = replace(outcome, tokens_in=0, tokens_out=0, usd=0.0)
        elif verdict.status is not None:  # an answer that is an error is not charged; silence may be
            used, usd = 0, 0.0
        self._budget.correct(ticket, used, usd)
        self._booked -= 1
        self._freed.set()
        return outcome, used

    def _lost(self, completion: Completion) -> Completion:
        """The completion of a row that is given up; the run stops when that happens to one row after the other."""
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= _LOST_IN_A_ROW:
            detail = f"{completion.error_code}: {completion.detail}"
            facts = completion.request.model, self._lost_in_a_row, detail, self._budget.calls
            self._halt(CircuitOpenError(*facts, self._config.section))
        return completion


def _given_up(request: Request, n_calls: int, detail: str) -> Completion:
    return Completion(request, None, error_code=EXHAUSTED, detail=detail, calls=n_calls, cached=n_calls == 0)


def _worn_out(attempts: int, last: str, section: str) -> str:
    ending = f"; the last time: {last}" if last else ""
    return f"asked {attempts} times in all runs without a reply ({section}.max_attempts_ever){ending}"


def _completion(request: Request, envelope: Envelope, usd: float | None, calls: int) -> Completion:
    counted = {"tokens_in": envelope.tokens_in, "tokens_out": envelope.tokens_out}
    return replace(completion_of(request, envelope), cached=False, usd=usd, calls=calls, **counted)
