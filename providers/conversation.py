"""One pass over requests: intent, commit, call, settle, only then read. Runs in a thread and loop of its own."""

from __future__ import annotations

import asyncio
import json
import queue
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import httpx2
import openai

from providers.capped_http import CompressedReplyError, ReplyTooLargeError, capped_client
from providers.completion import Completion, Journal, Outcome, Request
from providers.envelope import Envelope, read_envelope
from providers.errors import BudgetReachedError, EngineStoppedError
from providers.prices import Price
from providers.spending import Booking, Budget, worst_case

if TYPE_CHECKING:
    from pydantic import SecretStr

    from providers.openai_chat import OpenAIConfig

_DETAIL_CHARS = 200
_FATAL_STATUSES = frozenset({401, 402, 403, 404})
_PASSING_STATUSES = frozenset({408, 409, 425, 429})
_KEY_SHAPES = re.compile(r"(?i)\bbearer\s+\S+|\bsk-[\w*-]{4,}")


class Conversation:
    """The calls of one `complete`; `failure` is what ended it early, if anything did."""

    def __init__(
        self,
        config: OpenAIConfig,
        key: SecretStr,
        price: Price | None,
        budget: Budget,
        journal: Journal,
        inbox: queue.SimpleQueue[Completion | None],
    ) -> None:
        self.failure: BaseException | None = None
        self._config = config
        self._key = key
        self._price = price
        self._budget = budget
        self._journal = journal
        self._inbox = inbox
        self._stopping = threading.Event()
        self._twins: dict[str, list[Request]] = {}  # equal requests waiting for the one in flight
        self._failed: dict[str, Completion] = {}  # failed keys are not asked again in this pass

    def stop(self) -> None:
        """Admits nothing more; what is in flight is waited for and settled."""
        self._stopping.set()

    def run(self, requests: Iterable[Request]) -> None:
        """Answers all requests into the inbox, then puts None there, whatever happened."""
        try:
            asyncio.run(self._converse(requests))
        except BaseException as error:  # handed to the thread that reads the inbox, which raises it
            self.failure = error
        finally:
            self._inbox.put(None)

    async def _converse(self, requests: Iterable[Request]) -> None:
        http = capped_client(
            max_bytes=self._config.max_bytes,
            connections=self._config.concurrency,
            timeout_s=self._config.deadline_s,
        )
        async with http:
            client = openai.AsyncOpenAI(
                api_key=self._key.get_secret_value(), base_url=self._config.base_url, max_retries=0, http_client=http
            )
            in_flight: set[asyncio.Task[None]] = set()
            try:
                for request in requests:
                    if self._stopping.is_set():
                        break
                    if request.key in self._twins:
                        self._twins[request.key].append(request)
                        continue
                    self._twins[request.key] = []
                    in_flight.add(asyncio.create_task(self._answer(client, request)))
                    while len(in_flight) >= self._config.concurrency:
                        in_flight = await self._settle_some(in_flight)
            finally:
                await self._drain(in_flight)
        if self.failure is not None:
            raise self.failure

    async def _settle_some(self, in_flight: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
        done, pending = await asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is not None:
                self._halt(error)
        return pending

    async def _drain(self, in_flight: set[asyncio.Task[None]]) -> None:
        """A paid reply on its way is never thrown away, even while an error travels up."""
        while in_flight:
            in_flight = await self._settle_some(in_flight)

    def _halt(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self._stopping.set()

    async def _answer(self, client: openai.AsyncOpenAI, request: Request) -> None:
        failed = self._failed.get(request.key)
        completion = _unpaid(failed) if failed is not None else await self._remember(request)
        if completion is None:
            completion = await self._ask(client, request)
        twins = self._twins.pop(request.key)
        if completion is None:
            return
        if completion.error_code is not None:
            self._failed[request.key] = completion
        self._inbox.put(replace(completion, request=request))
        for twin in twins:
            self._inbox.put(replace(_unpaid(completion), request=twin))

    async def _remember(self, request: Request) -> Completion | None:
        answer = await asyncio.to_thread(self._journal.answered, request.key)
        if answer is None:
            return None
        return _unpaid(_completion(request, read_envelope(answer.body), usd=None))

    async def _ask(self, client: openai.AsyncOpenAI, request: Request) -> Completion | None:
        """The completion of a new call; None when the call was not allowed or the server takes no more calls."""
        if self._stopping.is_set():
            return None
        booking = worst_case(request, self._config.max_tokens, self._price)
        try:
            self._budget.book(booking)
        except BudgetReachedError as error:
            self._halt(error)
            return None
        n = await asyncio.to_thread(self._journal.intend, request)
        outcome, envelope = await self._call(client, request, booking)
        await asyncio.to_thread(self._journal.settle, request.key, n, outcome)
        if envelope is None and _is_fatal(outcome):
            self._halt(EngineStoppedError(request.model, outcome.status or 0, outcome.error or "", self._budget.calls))
            return None
        if envelope is None:
            code, _, detail = (outcome.error or "unknown").partition(": ")
            return Completion(request, None, error_code=code, detail=detail or None)
        return _completion(request, envelope, outcome.usd)

    async def _call(
        self, client: openai.AsyncOpenAI, request: Request, booking: Booking
    ) -> tuple[Outcome, Envelope | None]:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._config.deadline_s):
                body = await self._send(client, request)
        except (TimeoutError, openai.OpenAIError, httpx2.HTTPError) as error:
            outcome = self._outcome_of(error, started)
            if outcome.status is not None:  # an answer that is an error is not charged; silence may be
                self._budget.correct(booking, 0, None)
            return outcome, None
        return self._outcome_of_body(body, booking, started)

    async def _send(self, client: openai.AsyncOpenAI, request: Request) -> bytes:
        sampling = dict(request.sampling)
        if "max_tokens" in sampling:
            sampling[self._config.token_limit_field] = sampling.pop("max_tokens")
        messages: Any = [{"role": role, "content": content} for role, content in request.messages]
        form: Any = {"type": "json_schema", "json_schema": {"name": "profile", "schema": dict(request.schema)}}
        async with client.chat.completions.with_streaming_response.create(
            model=request.model, messages=messages, response_format=form, **sampling
        ) as response:
            return b"".join([chunk async for chunk in response.iter_bytes()])

    def _outcome_of_body(self, body: bytes, booking: Booking, started: float) -> tuple[Outcome, Envelope]:
        envelope = read_envelope(body)
        tokens_in = booking.tokens_in if envelope.tokens_in is None else envelope.tokens_in
        tokens_out = booking.tokens_out if envelope.tokens_out is None else envelope.tokens_out
        counted = envelope.tokens_in is not None and envelope.tokens_out is not None
        usd = self._price.cost(tokens_in, tokens_out) if self._price else None
        self._budget.correct(booking, tokens_in + tokens_out, usd)
        error = None if envelope.error_code is None else self._public(f"{envelope.error_code}: {envelope.detail}")
        outcome = Outcome(
            state="ok" if error is None else ("terminal" if envelope.is_reply else "retryable"),
            latency_ms=_since_ms(started),
            status=200,
            error=error,
            tokens_in=envelope.tokens_in,
            tokens_out=envelope.tokens_out,
            usd=usd if counted else None,
            model=envelope.model,
            body=body if envelope.is_reply else None,
            finish_reason=envelope.finish_reason,
            usage=None if envelope.usage is None else json.dumps(envelope.usage, sort_keys=True),
        )
        return outcome, envelope

    def _outcome_of(self, error: Exception, started: float) -> Outcome:
        state, status, code = _classified(error)
        detail = self._public(_described(error))
        return Outcome(state=state, latency_ms=_since_ms(started), status=status, error=f"{code}: {detail}")

    def _public(self, text: str) -> str:
        """One short line without the key, whatever a server echoed."""
        hidden = _KEY_SHAPES.sub("[key]", text.replace(self._key.get_secret_value(), "[key]"))
        line = "".join(char if char.isprintable() else " " for char in hidden)
        return " ".join(line.split())[:_DETAIL_CHARS]


def _classified(error: Exception) -> tuple[Literal["retryable", "terminal", "sent"], int | None, str]:
    """(state, HTTP status, code) of a call that brought no body to read."""
    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        if status == 429 and "insufficient_quota" in (error.code, error.type):
            return "terminal", status, "insufficient_quota"
        passing = status in _PASSING_STATUSES or status >= 500
        return "retryable" if passing else "terminal", status, f"http_{status}"
    if isinstance(error, TimeoutError | openai.APITimeoutError | httpx2.TimeoutException):
        return "sent", None, "deadline"
    if isinstance(error, ReplyTooLargeError):
        return "retryable", None, "too_large"
    if isinstance(error, CompressedReplyError) or isinstance(error.__cause__, CompressedReplyError):
        return "retryable", None, "compressed_reply"
    return "retryable", None, "connection"


def _described(error: Exception) -> str:
    cause = f" ({type(error.__cause__).__name__})" if error.__cause__ is not None else ""
    return f"{type(error).__name__}{cause} {error}"


def _is_fatal(outcome: Outcome) -> bool:
    """Would every further call end the same way: a key, quota, model or address that is refused, or a redirect."""
    status = outcome.status or 0
    quota = (outcome.error or "").startswith("insufficient_quota")
    return quota or status in _FATAL_STATUSES or 300 <= status < 400


def _completion(request: Request, envelope: Envelope, usd: float | None) -> Completion:
    return Completion(
        request,
        envelope.text,
        error_code=envelope.error_code,
        tokens_in=envelope.tokens_in,
        tokens_out=envelope.tokens_out,
        usd=usd,
        detail=envelope.detail,
    )


def _unpaid(completion: Completion) -> Completion:
    return replace(completion, cached=True, tokens_in=None, tokens_out=None, usd=None)


def _since_ms(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
