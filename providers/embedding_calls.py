"""Texts to vectors by paid calls: grouped into requests, what is refused taken apart, no text paid for twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, cast

from providers.completion import Completion, Journal, OnProgress
from providers.embedding_reply import WRONG_WIDTH, TextsRequest, read_vectors
from providers.encoding import EncoderIdentity, OnEncoded
from providers.errors import CircuitOpenError, EmptyTextError, WrongWidthError
from providers.spending import BYTES_PER_TOKEN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from providers.openai_chat import OpenAIEngine
    from providers.openai_embeddings import OpenAIEmbeddingsConfig

MOST_TOKENS_A_CALL = 300_000
BAD_VECTOR = "bad_vector"
_ALONE = "alone"  # the attempt class of a text whose vector was no use among others
_MAYBE_TOO_LONG = frozenset({"http_400", "http_413", "http_422", "http_500"})
_ALL_REFUSED = 20  # texts refused alone and none answered: the settings are refused, not the texts


class EmbeddedBook(Protocol):
    """Which text lies where in which stored reply; each method is durable when it returns."""

    def enlist(self, encoder: str, calls: Iterable[tuple[str, Sequence[str]]], /) -> None:
        """(key, hashes of the texts in their order) of requests that may now be sent."""
        ...

    def find(self, encoder: str, text_hashes: Sequence[str], /) -> Mapping[str, Sequence[tuple[str, int]]]:
        """{key of an answered request: (hash, place in its reply)} of these texts."""
        ...


class EmbeddingJournal(Journal, Protocol):
    """A journal that knows embedded texts too."""

    @property
    def embedded(self) -> EmbeddedBook: ...


@dataclass(frozen=True)
class SetAside:
    """Why a text has no vector."""

    code: str
    detail: str


@dataclass
class Taken:
    """What an encoder's calls took; `usd` is None where a price is unknown.

    Args:
        calls: that were sent, those included that brought nothing.
        replies: new ones that are kept.
        cached: replies that lay in the journal.
    """

    calls: int = 0
    replies: int = 0
    cached: int = 0
    tokens_in: int = 0
    usd: float | None = 0.0


class OpenAIEncoder:
    """Vectors by a server; open it once a run, as a context manager.

    Attributes:
        set_aside: text → why it has no vector, after `encode`.
        taken: what all calls so far took.
    """

    def __init__(
        self,
        config: OpenAIEmbeddingsConfig,
        engine: OpenAIEngine,
        journal: EmbeddingJournal,
        on_progress: OnProgress | None = None,
        width: int | None = None,
    ) -> None:
        self.identity: EncoderIdentity = config.describe()
        self.set_aside: dict[str, SetAside] = {}
        self.taken = Taken()
        self._config = config
        self._engine = engine
        self._journal = journal
        self._on_progress = on_progress
        self._width = config.dim or width

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.__exit__()

    @property
    def key(self) -> str:
        return self.identity.key

    @property
    def short_name(self) -> str:
        return self.identity.short_name

    @property
    def dim(self) -> int:
        """Numbers in a vector; 0 where the model is unknown and no reply has come yet."""
        return self._width or 0

    def encode(self, texts: Sequence[str], on_progress: OnEncoded | None = None) -> NDArray[np.float32]:
        """float32 [n, dim], each row of length 1, or NaN where `set_aside` says why there is none.

        Texts that any earlier run paid for come out of the journal.

        Raises:
            EmptyTextError: a text has no visible character.
            WrongWidthError: the server gives vectors of another length than was asked for, or than it gave before.
            StoppedEarlyError: cap, quota, a refused key, a server that is down; every reply received is kept.
        """
        import numpy as np

        for index, text in enumerate(texts):
            if not text.strip():
                raise EmptyTextError(index)
        sent = {text: shown(text, self._config.max_tokens) for text in texts}
        work = _Work(list(dict.fromkeys(sent.values())))
        self._ask(work, self._read_stored(work), on_progress)
        self.set_aside |= {text: work.aside[cut] for text, cut in sent.items() if cut in work.aside}
        row_of = {text: row for row, text in enumerate(work.texts)}
        matrix = work.matrix if work.matrix is not None else np.full((len(work.texts), self.dim), np.nan, np.float32)
        return matrix[[row_of[sent[text]] for text in texts]]

    def _read_stored(self, work: _Work) -> list[int]:
        """Rows whose vector came out bad before, in whatever company, and nowhere good."""
        found = self._journal.embedded.find(self._config.series, work.hashes)
        row_of = {hashed: row for row, hashed in enumerate(work.hashes)}
        bad: set[int] = set()
        for key, places in found.items():
            answer = self._journal.answered(key)
            vectors = None if answer is None else read_vectors(answer.body, None, self._width).vectors
            if vectors is not None and self._fits(vectors):
                self.taken.cached += 1
                inside = [(row_of[hashed], place) for hashed, place in places if place < len(vectors)]
                bad.update(work.put([row for row, _ in inside], vectors[[place for _, place in inside]]))
        return sorted(bad.intersection(work.missing()))

    def _ask(self, work: _Work, bad: list[int], on_progress: OnEncoded | None) -> None:
        """Round after round: what was refused in company is asked in halves, what came out bad is asked alone."""
        unasked = [row for row in work.missing() if row not in set(bad)]
        waiting = [self._request(work, rows) for rows in grouped(unasked, work.texts, self._config.texts_per_call)]
        waiting += [self._request(work, [row], _ALONE) for row in bad]
        n_refused = 0
        while waiting:
            # until anything was answered one refusal is followed to its end: it may be the settings, not a text
            n_now = 1 if n_refused and not work.done else len(waiting)
            now, waiting = waiting[-n_now:], waiting[:-n_now]
            self._journal.embedded.enlist(
                self._config.series, [(asked.key, [work.hashes[row] for row in asked.rows]) for asked in now]
            )
            for completion in self._engine.complete(iter(now), self._journal, self._on_progress):
                self._count(completion)
                again = self._take(work, completion)
                n_refused += completion.vectors is None
                waiting += again
                if on_progress is not None:
                    on_progress(work.done, len(work.texts))
            if not work.done and len(work.aside) >= _ALL_REFUSED:
                last = list(work.aside.values())[-1]
                facts = f"{last.code}: {last.detail}", self.taken.calls, self._config.section
                raise CircuitOpenError(self._config.model, len(work.aside), *facts)

    def _request(self, work: _Work, rows: Sequence[int], attempt_class: str = "first") -> TextsRequest:
        return self._config.request([work.texts[row] for row in rows], rows, attempt_class)

    def _take(self, work: _Work, completion: Completion) -> list[TextsRequest]:
        """What is still to be asked after this reply."""
        request = cast(TextsRequest, completion.request)
        rows = request.rows
        vectors = completion.vectors
        if completion.error_code == WRONG_WIDTH or (vectors is not None and not self._fits(vectors)):
            if len(rows) > 1 or not work.done:  # else it is this one text that gives another length
                raise WrongWidthError(self._config.model, self._config.dimensions, self._mismatch(completion))
            bad, aside = list(rows), SetAside(BAD_VECTOR, self._mismatch(completion))
        elif vectors is not None:
            bad = work.put(rows, vectors)
            if request.attempt_class != _ALONE:
                return [self._request(work, [row], _ALONE) for row in bad]
            aside = SetAside(BAD_VECTOR, "its vector has no length, or numbers that are not finite")
        elif len(rows) > 1:
            half = len(rows) // 2
            return [self._request(work, part, request.attempt_class) for part in (rows[half:], rows[:half])]
        else:
            code, detail = completion.error_code or "no_reply", completion.detail or ""
            hint = "; embeddings.max_tokens cuts texts that are too long" if code in _MAYBE_TOO_LONG else ""
            bad, aside = list(rows), SetAside(code, f"{detail}{hint}")
        work.aside |= {work.texts[row]: aside for row in bad}
        return []

    def _fits(self, vectors: NDArray[np.float32]) -> bool:
        """Whether vectors are as wide as all of this encoder; the first usable ones say how wide that is."""
        if not _usable(vectors).any():
            return True
        self._width = self._width or vectors.shape[1]
        return vectors.shape[1] == self._width

    def _mismatch(self, completion: Completion) -> str:
        if completion.vectors is None:
            return completion.detail or WRONG_WIDTH
        return f"the vectors have {completion.vectors.shape[1]} numbers, expected {self._width}"

    def _count(self, completion: Completion) -> None:
        taken = self.taken
        taken.cached += completion.cached
        if completion.cached:
            return
        taken.calls += completion.calls
        taken.replies += completion.vectors is not None
        taken.tokens_in += completion.tokens_in or 0
        # an answer that is an error is not charged, and a server on this machine charges nothing
        is_free = not self._config.paid or (completion.error_code or "").startswith("http_")
        usd = 0.0 if is_free and completion.usd is None else completion.usd
        taken.usd = None if taken.usd is None or usd is None else taken.usd + usd


class _Work:
    """The distinct texts that one `encode` sends, and the vectors that are there so far."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.aside: dict[str, SetAside] = {}
        self.hashes = [text_hash(text) for text in texts]
        self.matrix: NDArray[np.float32] | None = None
        self.done = 0
        self._has = bytearray(len(texts))

    def missing(self) -> list[int]:
        return [row for row, there in enumerate(self._has) if not there]

    def put(self, rows: Sequence[int], vectors: NDArray[np.float32]) -> list[int]:
        """Keeps vectors of these rows; returns the rows whose vector is of no use."""
        import numpy as np

        usable = _usable(vectors)
        if usable.any():
            if self.matrix is None:
                self.matrix = np.full((len(self.texts), vectors.shape[1]), np.nan, np.float32)
            chosen = np.asarray(rows)[usable]
            self.matrix[chosen] = vectors[usable]
            for row in chosen:
                self.done += not self._has[row]
                self._has[row] = 1
        return np.asarray(rows)[~usable].tolist()


def _usable(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    import numpy as np

    return np.isfinite(vectors).all(axis=1) & (vectors.shape[1] > 0)


def grouped(rows: Sequence[int], texts: Sequence[str], texts_per_call: int) -> list[list[int]]:
    """Rows in their order, cut into calls of at most so many texts and 300,000 tokens."""
    groups: list[list[int]] = []
    room = 0
    for row in rows:
        tokens = estimated_tokens(texts[row])
        if not groups or len(groups[-1]) == texts_per_call or tokens > room:
            groups.append([])
            room = MOST_TOKENS_A_CALL
        groups[-1].append(row)
        room -= tokens
    return groups


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has; English has a quarter fewer."""
    return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)


def shown(text: str, max_tokens: int | None) -> str:
    """What is sent of a text: the beginning that has so many tokens, at three bytes each and never half a character."""
    if max_tokens is None:
        return text
    return text.encode()[: BYTES_PER_TOKEN * max_tokens].decode("utf-8", "ignore")


def text_hash(text: str) -> str:
    """sha256 of a text as it is sent."""
    return hashlib.sha256(text.encode()).hexdigest()
