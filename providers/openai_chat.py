"""Completions from any server of the OpenAI protocol, every attempt written down before and after."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import SecretStr

from providers.chat_model import HostedModel
from providers.completion import Completion, Journal, OnProgress, Progress, Request
from providers.exchange import ChatExchange
from providers.hosted_server import CalledServer
from providers.prices import Price
from providers.public_text import quieten
from providers.spending import Budget

if TYPE_CHECKING:
    from providers.executor import Executor

LOUD_LOGGERS = ("httpx2", "httpcore2")


class OpenAIConfig(CalledServer, HostedModel):
    """Settings of a server of the OpenAI protocol that is asked one request a call."""

    name: Literal["openai"] = "openai"

    @property
    def exchange(self) -> ChatExchange:
        return ChatExchange(self.token_limit_field, self.max_tokens)

    def open(self) -> OpenAIEngine:
        """The engine with a fresh budget: open it once a run.

        Raises:
            MissingCapError, UnknownPriceError, MissingKeyError, UnusableKeyError: see `checked_key`.
        """
        return opened_engine(self)


def opened_engine(config: CalledServer) -> OpenAIEngine:
    """What asks this server, whatever its requests are, with a fresh budget.

    Raises:
        MissingCapError, UnknownPriceError, MissingKeyError, UnusableKeyError: see `checked_key`.
    """
    key = config.checked_key()
    import httpx2  # noqa: F401  (half a second of import, here so that nothing waits for it in mid-run)

    quieten(*LOUD_LOGGERS)
    return OpenAIEngine(config, key, config.known_price())


class OpenAIEngine:
    """Keeps up to `concurrency` calls in flight and hands completions on as they are durable."""

    def __init__(self, config: CalledServer, key: SecretStr, price: Price | None) -> None:
        self._config = config
        self._key = key
        self._price = price
        self.budget = Budget(config.cap, section=config.section)
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
        executor = Executor(self._config, self._key, self._price, self.budget, journal, inbox)
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
