"""What a language-model engine is asked and answers: requests, their keys, completions, and the journal between."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from providers.prices import Price

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Message: TypeAlias = tuple[str, str]
"""(role, content)"""

FieldText: TypeAlias = tuple[str, str]
"""(label, text); the label of a leading name such as a title is empty"""

NO_TEXT = "no_text"


def canonical_json(value: object) -> bytes:
    """One and the same bytes for equal values: sorted keys, no spaces, UTF-8, no NaN, independent of locale."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def request_key(
    *,
    model: str,
    messages: Iterable[Message],
    schema: Mapping[str, Any],
    sampling: Mapping[str, Any],
    attempt_class: str = "first",
) -> str:
    """64 hex digits naming what is asked, and nothing about where or how fast: a key is paid once."""
    asked = {
        "model": model,
        "messages": [{"role": role, "content": content} for role, content in messages],
        "schema": schema,
        "sampling": sampling,
        "attempt_class": attempt_class,
    }
    return hashlib.sha256(canonical_json(asked)).hexdigest()


@dataclass(frozen=True)
class Request:
    """One rendered question. `fields` are its attributes as text, for engines that use no model."""

    model: str
    messages: tuple[Message, ...]
    schema: Mapping[str, Any]
    sampling: Mapping[str, Any]
    kind: str
    entity_id: str
    fields: tuple[FieldText, ...] = ()
    attempt_class: str = "first"

    @property
    def key(self) -> str:
        """The sha256 of what is asked; entity and fields are no part of it, so equal questions are asked once."""
        return self._key

    @cached_property
    def _key(self) -> str:
        return request_key(
            model=self.model,
            messages=self.messages,
            schema=self.schema,
            sampling=self.sampling,
            attempt_class=self.attempt_class,
        )


@dataclass(frozen=True)
class Completion:
    """What came back for one request: text or vectors, or the code of why there are none.

    Args:
        cached: true when no call was made for this request (the journal knew, or an equal request was asked).
        verbatim: true when `text` is the profile itself; false when it is a model's reply, still to be parsed.
        detail: one line about the failure, never a secret.
        answered_by: the model's name as the reply gives it, which need not be the one that was asked for.
        calls: how many times the server was asked for this completion in this run, where `cached` is false.
        vectors: [texts, width] of a request of texts, each row of length 1, or NaN where its vector was no use.
    """

    request: Request
    text: str | None
    error_code: str | None = None
    cached: bool = False
    tokens_in: int | None = None
    tokens_out: int | None = None
    usd: float | None = None
    detail: str | None = None
    verbatim: bool = False
    answered_by: str | None = None
    calls: int = 1
    vectors: NDArray[np.float32] | None = field(default=None, compare=False)

    def unpaid(self) -> Completion:
        """The same for another request of equal key, or out of the journal: no call was made for it."""
        return replace(self, cached=True, tokens_in=None, tokens_out=None, usd=None, calls=0)


@dataclass(frozen=True)
class Progress:
    """Counts since the start of one `complete`; `usd` is None while the price is unknown.

    Args:
        note: one line the user should read now, such as what a batch is doing; most reports have none.
    """

    done: int = 0
    cached: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float | None = None
    note: str | None = None


OnProgress: TypeAlias = Callable[[Progress], None]


class Answer(Protocol):
    """A stored reply: the raw body as the server sent it."""

    @property
    def body(self) -> bytes: ...


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended, as the journal keeps it.

    Args:
        state: "sent" means that the reply never came whole: the call may have been paid.
        error: code, colon, one line of detail; None when the reply is a usable one.
        body: the raw reply when it is a chat reply at all, refusals included; its key is never asked again.
        rejected: the raw body of a success that was no chat reply, for whoever looks into it.
        usage: canonical JSON of the server's own count, with its system_fingerprint where it gave one.
    """

    state: Literal["ok", "retryable", "terminal", "sent"]
    latency_ms: int
    status: int | None = None
    error: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    usd: float | None = None
    model: str | None = None
    body: bytes | None = None
    rejected: bytes | None = None
    finish_reason: str | None = None
    usage: str | None = None


class Standing(Protocol):
    """Where a key stands: its reply, if there is one, how often it was announced in all runs, who else asks for it."""

    @property
    def answer(self) -> Answer | None: ...
    @property
    def attempts(self) -> int: ...
    @property
    def held_by(self) -> str | None:
        """The id of a batch that may still bring the reply: asking for it elsewhere would pay twice."""
        ...


class Receipt(Protocol):
    """What became of a batch, each list in the order of its entries; a refused entry gives its error."""

    @property
    def standings(self) -> Sequence[Standing | Exception]: ...
    @property
    def numbers(self) -> Sequence[int | Exception]: ...
    @property
    def refusals(self) -> Sequence[Exception | None]: ...


class Promise(Protocol):
    """A receipt to come, as concurrent.futures.Future has it."""

    def result(self) -> Receipt: ...
    def add_done_callback(self, fn: Callable[[Any], object], /) -> None: ...


class Committed(Protocol):
    """What attempts took or may still take: each at its real cost, or at its worst case while that is unknown."""

    @property
    def calls(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def usd(self) -> float: ...


class Journal(Protocol):
    """Where engines write before and after they spend. Every method may be called from several threads."""

    def answered(self, key: str, /) -> Answer | None:
        """The stored reply of this key, or None."""
        ...

    def intend(self, request: Request, worst_tokens: int | None = None, worst_usd: float | None = None, /) -> int:
        """The number of the attempt now recorded as sent, with its worst case; durable when this returns."""
        ...

    def settle(self, key: str, n: int, outcome: Outcome, /) -> None:
        """Records how attempt n ended, reply included, in one step; durable when this returns."""
        ...

    def submit(
        self,
        *,
        keys: Sequence[str] = (),
        intents: Sequence[tuple[Request, int | None, float | None]] = (),
        settlements: Sequence[tuple[str, int, Outcome]] = (),
    ) -> Promise:
        """The three above for many entries in one step, without waiting; durable when the promise is kept."""
        ...

    def committed(self, since_us: int = 0, /) -> Committed:
        """What the attempts announced since then (microseconds since 1970, UTC) took or may still have taken."""
        ...


def standing_of(journal: Journal, key: str) -> Standing:
    """Where one key stands.

    Raises:
        Exception: what the journal says of a reply that is not what was received.
    """
    (standing,) = journal.submit(keys=[key]).result().standings
    if isinstance(standing, Exception):
        raise standing
    return standing


class Engine(Protocol):
    """Answers requests, in any order, one completion each."""

    def complete(
        self, requests: Iterable[Request], journal: Journal | None = None, on_progress: OnProgress | None = None
    ) -> Iterator[Completion]:
        """One completion for every request, equal requests included, in any order."""
        ...


class EngineSettings(Protocol):
    """What every engine's config offers without importing anything heavy."""

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> str:
        """What a profile row says it comes from: a model's name, or "attributes"."""
        ...

    @property
    def paid(self) -> bool:
        """True when calls may cost money."""
        ...

    def identity(self) -> dict[str, Any]:
        """The settings that change replies; speed, caps, addresses and the way of asking are no part of it."""
        ...

    def known_price(self) -> Price | None:
        """What this engine's tokens cost; None where nobody knows, which is not 0."""
        ...

    def request(
        self,
        *,
        messages: tuple[Message, ...],
        schema: Mapping[str, Any],
        kind: str,
        entity_id: str,
        fields: tuple[FieldText, ...] = (),
    ) -> Request:
        """The request of one entity, with this engine's model and sampling."""
        ...

    def open(self) -> AbstractContextManager[Engine]:
        """The engine, ready to answer; refuses here, before anything is sent, when settings do not allow it."""
        ...
