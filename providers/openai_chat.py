"""Completions from any server of the OpenAI protocol, every attempt written down before and after."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field, SecretStr

from providers.chat_model import HostedModel
from providers.completion import Completion, Journal, OnProgress, Progress, Request
from providers.pacing import Limits
from providers.prices import Price
from providers.public_text import quieten
from providers.spending import Budget

if TYPE_CHECKING:
    from providers.executor import Executor

LOUD_LOGGERS = ("httpx2", "httpcore2")


class OpenAIConfig(HostedModel):
    """Settings of a server of the OpenAI protocol that is asked one request a call.

    Args:
        concurrency: calls in flight at most; fewer while the server says that it has too many.
        deadline_s: for one call from the first byte sent to the last received.
        max_attempts: how often a request is sent in one run when faults of the network or the server eat the reply.
        max_attempts_ever: the same in all runs together, counted from the ledger, so that no unlucky request is sent
            again by every run for ever; it then ends as `exhausted`, with a detail that names this setting.
        backoff_s: the longest first pause before a request is sent again; it doubles each time, to 30 s.
        drain_s: how long calls in flight are waited for when a run is stopped from outside; what comes in this time is
            kept. A run that stops by itself, at a cap or a quota, waits for them as long as `deadline_s` allows.
        max_bytes: the longest body that is read.
    """

    name: Literal["openai"] = "openai"
    concurrency: int = Field(default=16, gt=0, le=1024)
    deadline_s: float = Field(default=120, gt=0)
    max_attempts: int = Field(default=5, gt=0, le=100)
    max_attempts_ever: int = Field(default=10, gt=0)
    backoff_s: float = Field(default=0.5, ge=0, le=30)
    drain_s: float = Field(default=10, ge=0)
    limits: Limits = Limits()
    max_bytes: int = Field(default=4 * 1024 * 1024, gt=0)

    def open(self) -> OpenAIEngine:
        """The engine with a fresh budget: open it once a run.

        Raises:
            MissingCapError, UnknownPriceError, MissingKeyError, UnusableKeyError: see `checked_key`.
        """
        key = self.checked_key()
        import httpx2  # noqa: F401  (half a second of import, here so that nothing waits for it in mid-run)

        quieten(*LOUD_LOGGERS)
        return OpenAIEngine(self, key, self.known_price())


class OpenAIEngine:
    """Keeps up to `concurrency` calls in flight and hands completions on as they are durable."""

    def __init__(self, config: OpenAIConfig, key: SecretStr, price: Price | None) -> None:
        self._config = config
        self._key = key
        self._price = price
        self._budget = Budget(config.cap)
        self._running: list[tuple[Executor, threading.Thread]] = []

    def complete(
        self, requests: Iterable[Request], journal: Journal | None = None, on_progress: OnProgress | None = None
    ) -> Iterator[Completion]:
        """One completion a request, in any order; calls go out while the caller works on earlier completions.

        `requests` is walked through in another thread. Closing the iterator admits no further request and waits for
        the calls in flight, so that no paid reply is dropped.

        Raises:
            BudgetReachedError, EngineStoppedError, CircuitOpenError: at the end, after every reply received was
                handed on.
        """
        if journal is None:
            raise TypeError("this engine spends money or time: hand it a journal such as warehouse.Ledger")
        return self._stream(requests, journal, on_progress)

    def _stream(
        self, requests: Iterable[Request], journal: Journal, on_progress: OnProgress | None
    ) -> Iterator[Completion]:
        from providers.executor import Executor

        inbox: queue.SimpleQueue[Completion | str | None] = queue.SimpleQueue()
        executor = Executor(self._config, self._key, self._price, self._budget, journal, inbox)
        thread = threading.Thread(target=executor.run, args=(requests,), name="openai-engine", daemon=True)
        self._running.append((executor, thread))
        thread.start()
        progress = Progress(usd=None if self._price is None else 0.0)
        try:
            while (completion := inbox.get()) is not None:
                if isinstance(completion, str):
                    if on_progress is not None:
                        on_progress(replace(progress, note=completion))
                    continue
                progress = counted(progress, completion)
                if on_progress is not None:
                    on_progress(progress)
                yield completion
        finally:
            executor.stop()
            thread.join()
            self._running.remove((executor, thread))
        if executor.failure is not None:
            raise executor.failure

    def __enter__(self) -> OpenAIEngine:
        return self

    def __exit__(self, *_: object) -> None:
        """Drains what still runs: an error elsewhere may leave an iterator behind that nobody closed."""
        for executor, thread in list(self._running):
            executor.stop()
            thread.join()


def counted(progress: Progress, completion: Completion) -> Progress:
    """The counts with one more completion."""
    return replace(
        progress,
        done=progress.done + 1,
        cached=progress.cached + completion.cached,
        failed=progress.failed + (completion.error_code is not None),
        tokens_in=progress.tokens_in + (completion.tokens_in or 0),
        tokens_out=progress.tokens_out + (completion.tokens_out or 0),
        usd=None if progress.usd is None else progress.usd + (completion.usd or 0.0),
    )
