"""Completions from any server of the OpenAI protocol, every attempt written down before and after."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from providers.completion import (
    Completion,
    FieldText,
    Journal,
    Message,
    OnProgress,
    Progress,
    Request,
)
from providers.errors import MissingCapError, MissingKeyError, UnknownPriceError, UnusableKeyError
from providers.pacing import Limits
from providers.prices import PRICES, Price, PriceOverride, price_of
from providers.spending import Budget, Cap

if TYPE_CHECKING:
    from providers.executor import Executor

_LOUD_LOGGERS = ("httpx2", "httpcore2")


class OpenAIConfig(BaseModel):
    """Settings of a server of the OpenAI protocol; its key comes from the environment only.

    Args:
        max_tokens: the longest reply; what a run may spend in all is `cap`.
        token_limit_field: newer hosted models want "max_completion_tokens".
        price: wins over the dated table.
        concurrency: calls in flight at most; fewer while the server says that it has too many.
        deadline_s: for one call from the first byte sent to the last received.
        max_attempts: how often a request is sent in one run when faults of the network or the server eat the reply.
        max_attempts_ever: the same in all runs together, counted from the ledger, so that no unlucky request is sent
            again by every run for ever; it then ends as `exhausted`, with a detail that names this setting.
        backoff_s: the longest first pause before a request is sent again; it doubles each time, to 30 s.
        drain_s: how long calls in flight are waited for when a run is stopped from outside; what comes in this time is
            kept. A run that stops by itself, at a cap or a quota, waits for them as long as `deadline_s` allows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["openai"] = "openai"
    model: str = Field(min_length=1)
    base_url: str = "https://api.openai.com/v1"
    api_key_env: str = Field(default="OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    temperature: float | None = Field(default=0.2, ge=0, le=2)
    max_tokens: int = Field(default=700, gt=0)
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    concurrency: int = Field(default=16, gt=0, le=1024)
    deadline_s: float = Field(default=120, gt=0)
    max_attempts: int = Field(default=5, gt=0, le=100)
    max_attempts_ever: int = Field(default=10, gt=0)
    backoff_s: float = Field(default=0.5, ge=0, le=30)
    drain_s: float = Field(default=10, ge=0)
    limits: Limits = Limits()
    max_bytes: int = Field(default=4 * 1024 * 1024, gt=0)
    cap: Cap = Cap()
    price: PriceOverride | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_key_in_settings(cls, settings: Any) -> Any:
        if isinstance(settings, Mapping) and "api_key" in settings:
            raise ValueError("`api_key` is never read from settings; set the environment variable OPENAI_API_KEY")
        return settings

    @field_validator("base_url")
    @classmethod
    def _https_or_loopback(cls, base_url: str) -> str:
        url = urlsplit(base_url)
        if url.username or url.password or url.query or url.fragment or not url.hostname:
            raise ValueError("expected an address such as https://host/v1 without user, password, query or fragment")
        if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(url.hostname)):
            raise ValueError(f"expected https, or http on this machine only; got {url.scheme}://{url.hostname}")
        return base_url.rstrip("/")

    @property
    def source(self) -> str:
        return self.model

    @property
    def paid(self) -> bool:
        return not _is_loopback(urlsplit(self.base_url).hostname or "")

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling parameters, as they enter a request's key."""
        chosen = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return {name: value for name, value in chosen.items() if value is not None}

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "model": self.model, "sampling": self.sampling}

    def request(
        self,
        *,
        messages: tuple[Message, ...],
        schema: Mapping[str, Any],
        kind: str,
        entity_id: str,
        fields: tuple[FieldText, ...] = (),
    ) -> Request:
        return Request(self.model, messages, schema, self.sampling, kind, entity_id, fields)

    def known_price(self) -> Price | None:
        """The user's price; else, for a paid server, the listed one; else None, which is not 0."""
        return price_of(self.model, self.price) if self.paid or self.price else None

    def open(self) -> OpenAIEngine:
        """The engine with a fresh budget: open it once a run.

        Raises:
            MissingCapError: the server may cost money and nothing limits it.
            UnknownPriceError: the cap is in USD and the model has no price.
            MissingKeyError: a server away from this machine, and no key in the environment.
        """
        price = self.known_price()
        if self.paid and not self.cap.is_set:
            raise MissingCapError(self.model, self.base_url)
        if self.cap.usd is not None and price is None:
            raise UnknownPriceError(self.model, tuple(listed.model for listed in PRICES))
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and self.paid:
            raise MissingKeyError(self.api_key_env, self.base_url)
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UnusableKeyError(self.api_key_env)
        import httpx2  # noqa: F401  (half a second of import, here so that nothing waits for it in mid-run)

        for name in _LOUD_LOGGERS:  # below WARNING these print requests and headers
            logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger(name).level))
        return OpenAIEngine(self, SecretStr(key or "not-needed"), price)


class OpenAIEngine:
    """Keeps up to `concurrency` calls in flight and hands completions on as they are durable."""

    def __init__(self, config: OpenAIConfig, key: SecretStr, price: Price | None) -> None:
        self._config = config
        self._key = key
        self._price = price
        self._budget = Budget(config.cap)
        self._running: list[tuple[Executor, threading.Thread]] = []

    @property
    def source(self) -> str:
        return self._config.source

    @property
    def paid(self) -> bool:
        return self._config.paid

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

        inbox: queue.SimpleQueue[Completion | None] = queue.SimpleQueue()
        executor = Executor(self._config, self._key, self._price, self._budget, journal, inbox)
        thread = threading.Thread(target=executor.run, args=(requests,), name="openai-engine", daemon=True)
        self._running.append((executor, thread))
        thread.start()
        progress = Progress(usd=None if self._price is None else 0.0)
        try:
            while (completion := inbox.get()) is not None:
                progress = _count(progress, completion)
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


def _count(progress: Progress, completion: Completion) -> Progress:
    return replace(
        progress,
        done=progress.done + 1,
        cached=progress.cached + completion.cached,
        failed=progress.failed + (completion.error_code is not None),
        tokens_in=progress.tokens_in + (completion.tokens_in or 0),
        tokens_out=progress.tokens_out + (completion.tokens_out or 0),
        usd=None if progress.usd is None else progress.usd + (completion.usd or 0.0),
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
