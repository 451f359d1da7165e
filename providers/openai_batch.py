"""Completions from the Batch API: half the price, hours of waiting, and never two batches of one shard."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat, SecretStr

from providers.batch_book import BatchJournal
from providers.chat_model import HostedModel
from providers.completion import Completion, Journal, OnProgress, Request
from providers.errors import BatchesPendingError
from providers.openai_chat import LOUD_LOGGERS
from providers.prices import BATCH_FACTOR, Price, batch_price
from providers.public_text import quieten
from providers.spending import Budget

if TYPE_CHECKING:
    from providers.batch_run import BatchRun
    from providers.batch_server import BatchServer

_POLL_GROWTH = 1.5


class OpenAIBatchConfig(HostedModel):
    """Settings of a server's Batch API. Requests have the keys that `openai` gives them.

    Args:
        shard_requests, shard_bytes: the most one batch holds.
        open_batches: the most that are at the server at once; requests beyond them are not even read.
        batch_factor: what a request in a batch costs of `price` or of the listed price.
        submissions: how often in one run a request is put into a batch that ends without it.
        poll_s, poll_most_s: the first pause between looks, and the longest.
        wait_s: the longest this run waits; the batches go on without it, and the next run collects. None waits.
        adopt_wait_s: how long a batch of doubtful creation is looked for before it is created again.
        transfer_s: the longest one file may be on its way.
    """

    name: Literal["openai-batch"] = "openai-batch"
    shard_requests: int = Field(default=50_000, gt=0, le=50_000)
    shard_bytes: int = Field(default=100_000_000, gt=0, le=200_000_000)
    open_batches: int = Field(default=4, gt=0, le=100)
    batch_factor: float = Field(default=BATCH_FACTOR, gt=0, le=1)
    submissions: int = Field(default=5, gt=0)
    poll_s: float = Field(default=5, gt=0)
    poll_most_s: float = Field(default=60, gt=0)
    wait_s: NonNegativeFloat | None = None
    adopt_wait_s: float = Field(default=15, ge=0)
    deadline_s: float = Field(default=60, gt=0)
    transfer_s: float = Field(default=1800, gt=0)
    max_bytes: int = Field(default=4 * 1024 * 1024, gt=0)
    max_file_bytes: int = Field(default=1024**3, gt=0)

    def known_price(self) -> Price | None:
        """What a request in a batch costs."""
        return batch_price(super().known_price(), self.batch_factor)

    def open(self) -> OpenAIBatchEngine:
        """The engine with a fresh budget: open it once a run.

        Raises:
            MissingCapError, UnknownPriceError, MissingKeyError, UnusableKeyError: see `checked_key`.
        """
        return OpenAIBatchEngine(self, self.checked_key())

    @contextmanager
    def server(self, key: SecretStr | None = None) -> Iterator[BatchServer]:
        """The server's Batch API, to look at batches and to cancel them; neither costs anything."""
        key = key or self.key_of_environment()
        from providers.batch_server import BatchServer

        quieten("openai", *LOUD_LOGGERS)
        server = BatchServer(
            base_url=self.base_url,
            model=self.model,
            key=key,
            deadline_s=self.deadline_s,
            transfer_s=self.transfer_s,
            max_bytes=self.max_bytes,
            max_file_bytes=self.max_file_bytes,
            pause_s=min(1.0, self.poll_s),
        )
        try:
            yield server
        finally:
            server.close()


class OpenAIBatchEngine:
    """Packs requests into shards, submits each as one batch, collects what comes back, submits only what is missing."""

    def __init__(self, config: OpenAIBatchConfig, key: SecretStr) -> None:
        self._config = config
        self._key = key
        self.budget = Budget(config.cap)

    def complete(
        self, requests: Iterable[Request], journal: Journal | None = None, on_progress: OnProgress | None = None
    ) -> Iterator[Completion]:
        """One completion a request, in any order, as batches end. Batches of earlier runs are collected first.

        Closing the iterator leaves the batches at the server; the next run finds them in the journal.

        Raises:
            BudgetReachedError, BatchRefusedError, BatchCancelledError, BatchesPendingError, ResultsGoneError,
            EngineStoppedError: after every reply received was handed on; all of them resumable.
        """
        if not isinstance(journal, BatchJournal):
            raise TypeError("this engine spends money: hand it a journal that keeps batches, such as warehouse.Ledger")
        return self._stream(requests, journal, on_progress)

    def _stream(
        self, requests: Iterable[Request], journal: BatchJournal, on_progress: OnProgress | None
    ) -> Iterator[Completion]:
        from providers.batch_run import BatchRun

        with self._config.server(self._key) as server:
            run = BatchRun(self._config, server, journal, self.budget, on_progress)
            yield from run.recover()
            walking = iter(requests)
            started, pause_s = time.monotonic(), self._config.poll_s
            while True:
                yield from run.fill(walking)
                if not run.is_waiting:
                    break
                ended = run.n_ended
                yield from run.poll()
                pause_s = self._config.poll_s if run.n_ended > ended else pause_s
                if run.n_ended == ended:
                    self._rest(run, started, pause_s)
                    pause_s = min(pause_s * _POLL_GROWTH, max(self._config.poll_most_s, self._config.poll_s))
            run.finish()

    def _rest(self, run: BatchRun, started: float, pause_s: float) -> None:
        waited_s = time.monotonic() - started
        if self._config.wait_s is not None and waited_s + pause_s > self._config.wait_s:
            raise BatchesPendingError(run.n_open, run.n_waiting, waited_s)
        time.sleep(pause_s)

    def __enter__(self) -> OpenAIBatchEngine:
        return self

    def __exit__(self, *_: object) -> None:
        return None
