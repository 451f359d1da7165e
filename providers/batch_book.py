"""What the batch engine writes down beside its attempts, so that no crash can make it forget a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from providers.completion import Journal, Request

Intent: TypeAlias = tuple[Request, int | None, float | None]
"""(request, its worst case in tokens, its worst case in USD)"""


class BatchRow(Protocol):
    """One shard as the book keeps it; see `BatchBook` for the states."""

    @property
    def shard_hash(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def n_requests(self) -> int: ...
    @property
    def announced_at_s(self) -> float | None: ...
    @property
    def file_id(self) -> str | None: ...
    @property
    def batch_id(self) -> str | None: ...


class BatchBook(Protocol):
    """States: intended → uploaded → creating → submitted → harvested; or failed, or gone → released.

    Each method is durable when it returns. `announce` records an attempt of every request and the state `creating` in
    one step, before the server is asked to create: from there on a batch may exist and may cost.
    """

    def begin(self, content_sha256: str, server: str, model: str, n_requests: int, /) -> BatchRow: ...
    def uploaded(self, shard_hash: str, file_id: str, /) -> None: ...
    def announce(self, shard_hash: str, intents: Sequence[Intent], /) -> None: ...
    def submitted(self, shard_hash: str, batch_id: str, /) -> None: ...
    def seen(self, shard_hash: str, status: str, completed: int, failed: int, /) -> None: ...
    def close(self, shard_hash: str, state: str, /) -> None: ...
    def open_at(self, server: str, /) -> Sequence[BatchRow]: ...
    def members(self, shard_hash: str, /) -> Mapping[str, int | None]:
        """{key: the number of its attempt while that is unsettled, else None} of the batch's requests."""
        ...

    def set_aside(self, shard_hash: str, lines: Sequence[tuple[str, bytes]], /) -> None: ...


@runtime_checkable
class BatchJournal(Journal, Protocol):
    """A journal that keeps batches too."""

    @property
    def batches(self) -> BatchBook: ...
