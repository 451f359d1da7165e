"""The Batch API of one server, call by call: each with a deadline in all and a byte cap, reads tried again."""

from __future__ import annotations

import asyncio
import random
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import httpx2
import openai
from pydantic import SecretStr

from providers.capped_http import capped_client
from providers.chat_body import ENDPOINT
from providers.errors import EngineStoppedError
from providers.public_text import public_line
from providers.result_lines import split_lines

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_TRIES = 5
_PAGES = 100
_CLOCK_SKEW_S = 86_400
_FAULTS = (TimeoutError, openai.OpenAIError, httpx2.HTTPError)

T = TypeVar("T")


class MissingAtServerError(LookupError):
    """The server does not know this batch or file (any more)."""


class UncertainError(RuntimeError):
    """The call may or may not have had its effect."""


@dataclass(frozen=True)
class BatchAtServer:
    """A batch as its server describes it."""

    batch_id: str
    status: str
    completed: int
    failed: int
    total: int
    output_file_id: str | None
    error_file_id: str | None
    input_file_id: str | None
    shard_hash: str | None
    created_at_s: float
    errors: tuple[tuple[str, str], ...]

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


class BatchServer:
    """A client with a loop and thread of its own, so that it serves any thread and no call outlives its deadline.

    Args:
        deadline_s: of one small call; `transfer_s` of one file's way up or down.
        max_bytes: of a small reply and of one line; `max_file_bytes` of a result file.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        key: SecretStr,
        deadline_s: float,
        transfer_s: float,
        max_bytes: int,
        max_file_bytes: int,
        pause_s: float,
    ) -> None:
        self._model, self._key = model, key
        self._deadline_s, self._transfer_s, self._pause_s = deadline_s, transfer_s, pause_s
        self._max_bytes = max_bytes
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="batch-server", daemon=True)
        self._thread.start()
        self._small, self._large = (
            openai.AsyncOpenAI(
                api_key=key.get_secret_value(),
                base_url=base_url,
                max_retries=0,
                timeout=timeout_s,
                http_client=capped_client(
                    max_bytes=most, connections=2, timeout_s=timeout_s, secret=key.get_secret_value()
                ),
            )
            for most, timeout_s in ((max_bytes, deadline_s), (max_file_bytes, transfer_s))
        )

    def close(self) -> None:
        """Connections are closed and the thread has ended."""

        async def both() -> None:
            await self._small.close()
            await self._large.close()

        asyncio.run_coroutine_threadsafe(both(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def upload(self, shard_hash: str, content: IO[bytes]) -> str:
        """The id of a file at the server; nothing is paid for it, so a doubtful upload is simply repeated."""

        async def send() -> str:
            content.seek(0)
            file = await self._large.files.create(file=(f"{shard_hash}.jsonl", content.read()), purpose="batch")
            return file.id

        return self._patiently(send, self._transfer_s)

    def has_file(self, file_id: str) -> bool:
        """Whether an uploaded file is still there."""

        async def look() -> bool:
            await self._small.files.retrieve(file_id)
            return True

        try:
            return self._patiently(look, self._deadline_s)
        except MissingAtServerError:
            return False

    def create(self, shard_hash: str, file_id: str) -> BatchAtServer:
        """The new batch, marked with the shard's name. Tried once: a second try could make a second batch.

        Raises:
            UncertainError: it may have been created; look for it before asking again.
            EngineStoppedError: the server refuses it, and it was not created.
        """

        async def ask() -> BatchAtServer:
            return _read(
                await self._small.batches.create(
                    completion_window="24h",
                    endpoint=ENDPOINT,
                    input_file_id=file_id,
                    metadata={"shard": shard_hash},
                )
            )

        try:
            return self._call(ask, self._deadline_s)
        except _FAULTS as error:
            if isinstance(error, openai.APIStatusError) and not _passes(error):
                raise self._stopped(error) from error
            raise UncertainError(self._words(error)) from error

    def find(self, shard_hash: str, file_id: str | None, since_s: float) -> BatchAtServer | None:
        """The batch that was made of this shard, the oldest if there are several, or None.

        Raises:
            EngineStoppedError: the server does not say what batches there are.
        """
        matches: list[BatchAtServer] = []
        after: str | None = None
        for _ in range(_PAGES):
            page, more = self._patiently(lambda after=after: self._page(after), self._deadline_s)
            matches += [
                batch
                for batch in page
                if batch.shard_hash == shard_hash or (file_id is not None and batch.input_file_id == file_id)
            ]
            if not page or not more or page[-1].created_at_s < since_s - _CLOCK_SKEW_S:
                break
            after = page[-1].batch_id
        return min(matches, key=lambda batch: batch.created_at_s, default=None)

    def retrieve(self, batch_id: str) -> BatchAtServer:
        """The batch as it is now.

        Raises:
            MissingAtServerError: it is no longer known.
        """

        async def look() -> BatchAtServer:
            return _read(await self._small.batches.retrieve(batch_id))

        return self._patiently(look, self._deadline_s)

    def cancel(self, batch_id: str) -> BatchAtServer:
        """The batch, asked to end; lines that were answered stay and are charged."""

        async def ask() -> BatchAtServer:
            return _read(await self._small.batches.cancel(batch_id))

        return self._patiently(ask, self._deadline_s)

    def lines(self, file_id: str) -> Iterator[bytes]:
        """The lines of a result file, the whole of it fetched first.

        Raises:
            MissingAtServerError: the file is gone.
        """
        with tempfile.TemporaryFile() as kept:

            async def fetch() -> None:
                kept.seek(0)
                kept.truncate()
                async with self._large.files.with_streaming_response.content(file_id) as response:
                    async for chunk in response.iter_bytes():
                        kept.write(chunk)

            self._patiently(fetch, self._transfer_s)
            kept.seek(0)
            yield from split_lines(iter(lambda: kept.read(1 << 20), b""), self._max_bytes)

    async def _page(self, after: str | None) -> tuple[list[BatchAtServer], bool]:
        page = await self._small.batches.list(limit=100, after=after or openai.omit)
        return [_read(batch) for batch in page.data], bool(page.has_more)

    def _call(self, ask: Callable[[], Awaitable[T]], deadline_s: float) -> T:
        async def limited() -> T:
            async with asyncio.timeout(deadline_s):
                return await ask()

        answer: Coroutine[Any, Any, T] = limited()
        future = asyncio.run_coroutine_threadsafe(answer, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # a signal in the waiting thread ends the call too
            raise

    def _patiently(self, ask: Callable[[], Awaitable[T]], deadline_s: float) -> T:
        """Of a call that may be repeated: its answer, after up to five tries."""
        for last in (*range(_TRIES - 1), None):
            try:
                return self._call(ask, deadline_s)
            except _FAULTS as error:
                if isinstance(error, openai.NotFoundError):
                    raise MissingAtServerError(self._words(error)) from error
                refused = isinstance(error, openai.APIStatusError) and not _passes(error)
                if refused or last is None:
                    raise self._stopped(error) from error
                time.sleep(self._pause_s * 2**last * random.uniform(0.5, 1.0))
        raise AssertionError("the last try returns or raises")

    def _stopped(self, error: Exception) -> EngineStoppedError:
        status = error.status_code if isinstance(error, openai.APIStatusError) else 0
        return EngineStoppedError(self._model, status, self._words(error), 0)

    def _words(self, error: Exception) -> str:
        return public_line(f"{type(error).__name__} {error}", self._key.get_secret_value())


def _passes(error: openai.APIStatusError) -> bool:
    """Is the refusal one that time may end, so that the call may be made again?"""
    if error.status_code == 429:
        return "insufficient_quota" not in (error.code, error.type)
    return error.status_code in (408, 409, 425) or error.status_code >= 500


def _read(batch: Any) -> BatchAtServer:
    """A batch as the SDK parsed it, which checks nothing: any field may be missing or of another type."""
    counts, errors = batch.request_counts, batch.errors
    listed = (errors.data or ()) if errors else ()
    metadata = batch.metadata if isinstance(batch.metadata, dict) else {}
    return BatchAtServer(
        batch_id=str(batch.id),
        status=str(batch.status),
        completed=int(counts.completed or 0) if counts else 0,
        failed=int(counts.failed or 0) if counts else 0,
        total=int(counts.total or 0) if counts else 0,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        input_file_id=batch.input_file_id,
        shard_hash=metadata.get("shard"),
        created_at_s=float(batch.created_at or 0),
        errors=tuple((public_line(str(error.code)), public_line(str(error.message))) for error in listed),
    )
