"""Completions through files: requests written as one JSONL for another program to answer, its results read back."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Literal

from pydantic import field_validator

from providers.chat_body import request_line, request_of_line
from providers.chat_model import ChatModel, TokenLimitField
from providers.completion import Completion, Journal, OnProgress, Outcome, Progress, Request
from providers.envelope import completion_of, read_envelope
from providers.errors import UnansweredRequestsError
from providers.openai_chat import counted
from providers.prices import Price, PriceOverride, price_of
from providers.result_lines import BAD_LINE, outcome_of, read_result

_MAX_LINE_BYTES = 4 * 1024 * 1024
_SETTLED_AT_ONCE = 256


class RequestFileConfig(ChatModel):
    """Settings of the exchange through files. Requests have the keys that `openai` gives them.

    Args:
        requests_path: written here; OpenAI Batch, `vllm run-batch` and our own engines read it.
        results_path: read from here, a file or a pattern such as "results*.jsonl".
        price: of the tokens of a reply; without one the cost is unknown, for whoever answers may charge.
    """

    name: Literal["file"] = "file"
    requests_path: Path
    results_path: Path
    token_limit_field: TokenLimitField = "max_tokens"
    price: PriceOverride | None = None

    @field_validator("results_path")
    @classmethod
    def _another_file(cls, results_path: Path, info: object) -> Path:
        if results_path == getattr(info, "data", {}).get("requests_path"):
            raise ValueError("expected another file than requests_path")
        return results_path

    @property
    def paid(self) -> bool:
        """True: nothing is sent from here, so no cap is asked for, and what the answers cost is not known to be 0."""
        return True

    def known_price(self) -> Price | None:
        return price_of(self.model, self.price) if self.price else None

    def open(self) -> RequestFileEngine:
        return RequestFileEngine(self)


def read_requests(path: Path) -> Iterator[Request]:
    """The requests of a file that this engine wrote, for any engine that answers requests.

    Raises:
        ValueError: a line that is no request, or whose custom_id is not the key of what it asks; with its number.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield request_of_line(line)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: {type(error).__name__}: {error}") from error


@dataclass
class _Found:
    """Where the results of a key lie: the first line with a reply, and the first with a fault."""

    replies: dict[str, tuple[int, int]] = field(default_factory=dict)
    faults: dict[str, tuple[int, int]] = field(default_factory=dict)
    strange: list[tuple[str, tuple[int, int]]] = field(default_factory=list)


class RequestFileEngine:
    """Answers what the results file holds and writes the rest out as requests."""

    def __init__(self, config: RequestFileConfig) -> None:
        self._config = config
        self._price = config.known_price()

    def complete(
        self, requests: Iterable[Request], journal: Journal | None = None, on_progress: OnProgress | None = None
    ) -> Iterator[Completion]:
        """One completion a request that was answered. Lines with errors count once nothing else is missing.

        Raises:
            UnansweredRequestsError: at the end, when the request file holds what is still to be answered.
        """
        if journal is None:
            raise TypeError("replies are kept: hand this engine a journal such as warehouse.Ledger")
        return self._stream(requests, journal, on_progress)

    def _stream(
        self, requests: Iterable[Request], journal: Journal, on_progress: OnProgress | None
    ) -> Iterator[Completion]:
        progress = Progress(usd=None if self._price is None else 0.0)
        paths = sorted(Path(name) for name in glob.glob(str(self._config.results_path)))
        files = [path.open("rb") for path in paths]
        partial = self._config.requests_path.with_name(self._config.requests_path.name + ".partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as unanswered:
                reading = _Reading(self._config, journal, files, unanswered, self._price)
                for completion in reading.completions(requests):
                    progress = counted(progress, completion)
                    if on_progress is not None:
                        on_progress(progress)
                    yield completion
                unanswered.flush()
                os.fsync(unanswered.fileno())
            note = reading.set_aside()
            if note and on_progress is not None:
                on_progress(replace(progress, note=note))
            if reading.n_unanswered:
                os.replace(partial, self._config.requests_path)
                raise UnansweredRequestsError(
                    self._config.model,
                    reading.n_unanswered,
                    self._config.requests_path,
                    self._config.results_path,
                    reading.n_failed,
                )
        finally:
            partial.unlink(missing_ok=True)
            for file in files:
                file.close()

    def __enter__(self) -> RequestFileEngine:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class _Reading:
    """One pass: the results indexed by key, the requests walked once, neither held in memory whole."""

    def __init__(
        self,
        config: RequestFileConfig,
        journal: Journal,
        files: Sequence[IO[bytes]],
        unanswered: IO[bytes],
        price: Price | None,
    ) -> None:
        self.n_unanswered = self.n_failed = 0
        self._config, self._journal, self._files, self._unanswered, self._price = (
            config,
            journal,
            files,
            unanswered,
            price,
        )
        self._found = _indexed(files)
        self._used: set[str] = set()
        self._written: set[str] = set()
        self._failed: dict[str, list[Request]] = {}

    def completions(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Those of every answered request; of failed ones only when nothing is unanswered."""
        group: dict[str, list[Request]] = {}
        for request in requests:
            key = request.key
            if key in group:
                group[key].append(request)
            elif (answer := self._journal.answered(key)) is not None:
                self._used.add(key)
                yield _completion(request, answer.body)
            elif key in self._found.replies:
                group[key] = [request]
            else:
                self._miss(request)
            if len(group) >= _SETTLED_AT_ONCE:
                yield from self._settled(group, self._found.replies)
                group = {}
        yield from self._settled(group, self._found.replies)
        if self.n_unanswered == len(self._failed):
            self.n_unanswered = 0
            yield from self._settled(self._failed, self._found.faults)
        self.n_failed = len(self._failed)

    def set_aside(self) -> str | None:
        """Writes lines that belong to no request beside the results; what was written, or None."""
        known = self._used | self._written
        strange = list(self._found.strange)
        for places in (self._found.replies, self._found.faults):
            strange += [
                ("unknown_id", place)
                for key, place in places.items()
                if key not in known and self._journal.answered(key) is None
            ]
        if not strange:
            return None
        path = self._config.requests_path.with_name(self._config.requests_path.name + ".aside.jsonl")
        with path.open("wb") as aside:
            for _, place in strange:
                aside.write(self._line(place) + b"\n")
        return f"{len(strange):,} result lines belong to no request or cannot be read; they are in {path}"

    def _miss(self, request: Request) -> None:
        key = request.key
        if key in self._found.faults:
            self._failed.setdefault(key, []).append(request)
        if key not in self._written:
            self._written.add(key)
            self.n_unanswered += 1
            self._unanswered.write(request_line(request, self._config.token_limit_field))

    def _settled(self, group: dict[str, list[Request]], places: dict[str, tuple[int, int]]) -> Iterator[Completion]:
        if not group:
            return
        results = {key: outcome_of(read_result(self._line(places[key])), 0, self._price)[0] for key in group}
        keys = list(group)
        numbers = self._journal.submit(intents=[(group[key][0], None, None) for key in keys]).result().numbers
        settlements = [(key, _or_raise(n), results[key]) for key, n in zip(keys, numbers, strict=True)]
        for refusal in self._journal.submit(settlements=settlements).result().refusals:
            if refusal is not None:
                raise refusal
        self._used.update(group)
        for key, requests in group.items():
            first = _outcome_completion(requests[0], results[key])
            yield first
            for twin in requests[1:]:
                yield replace(first, request=twin, cached=True, tokens_in=None, tokens_out=None, usd=None)

    def _line(self, place: tuple[int, int]) -> bytes:
        number, offset = place
        self._files[number].seek(offset)
        return self._files[number].readline(_MAX_LINE_BYTES).rstrip(b"\n")


def _indexed(files: Sequence[IO[bytes]]) -> _Found:
    found = _Found()
    for number, file in enumerate(files):
        offset = 0
        while line := file.readline():
            place, offset = (number, offset), offset + len(line)
            if not line.strip():
                continue
            result = read_result(line[:_MAX_LINE_BYTES])
            if result.custom_id is None:
                found.strange.append((BAD_LINE, place))
            elif result.body is None:
                found.faults.setdefault(result.custom_id, place)
            elif result.custom_id in found.replies:
                found.strange.append(("duplicate", place))
            else:
                found.replies[result.custom_id] = place
    for key in found.replies:
        found.faults.pop(key, None)
    return found


def _or_raise(number: int | Exception) -> int:
    if isinstance(number, Exception):
        raise number
    return number


def _completion(request: Request, body: bytes) -> Completion:
    return completion_of(request, read_envelope(body))


def _outcome_completion(request: Request, outcome: Outcome) -> Completion:
    if outcome.body is not None:
        answered = replace(_completion(request, outcome.body), cached=False, calls=1)
        return replace(answered, tokens_in=outcome.tokens_in, tokens_out=outcome.tokens_out, usd=outcome.usd)
    code, _, detail = (outcome.error or "unknown").partition(": ")
    return Completion(request, None, error_code=code, detail=detail or None)
