"""One pass over requests in batches: recover, fill, poll, harvest; every step written down before the next."""

from __future__ import annotations

import hashlib
import io
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from providers.batch_book import BatchJournal, BatchRow, Intent
from providers.batch_server import BatchAtServer, BatchServer, MissingAtServerError, UncertainError
from providers.chat_body import request_line
from providers.completion import Completion, OnProgress, Outcome, Progress, Request, standing_of
from providers.envelope import completion_of, read_envelope
from providers.errors import (
    BatchCancelledError,
    BatchRefusedError,
    BudgetReachedError,
    EngineStoppedError,
    HeldByBatchError,
    ResultsGoneError,
)
from providers.harvest import Harvest
from providers.openai_chat import counted
from providers.spending import Budget, Ticket, worst_case

if TYPE_CHECKING:
    from providers.openai_batch import OpenAIBatchConfig

_CREATIONS = 5
_REFUSALS = 20
_LONGEST_BACKOFF_S = 600.0
_SETTLED_AT_ONCE = 256


@dataclass
class _OpenBatch:
    """A batch at the server; `was_running` once this run has seen it at work."""

    shard_hash: str
    batch_id: str
    announced_at_s: float
    was_running: bool = False
    was_gone: bool = False
    said: str = ""


class BatchRun:
    """The state of one `complete`."""

    def __init__(
        self,
        config: OpenAIBatchConfig,
        server: BatchServer,
        journal: BatchJournal,
        budget: Budget,
        on_progress: OnProgress | None,
    ) -> None:
        self.n_ended = 0
        self._config, self._server, self._journal, self._budget = config, server, journal, budget
        self._book = journal.batches
        self._price = config.known_price()
        self._on_progress = on_progress
        self._progress = Progress(usd=None if self._price is None else 0.0)
        self._failure: Exception | None = None
        self._exhausted = False
        self._open: dict[str, _OpenBatch] = {}
        self._held: set[str] = set()  # keys in batches of earlier runs
        self._elsewhere: dict[str, str] = {}  # key -> batch at another address
        self._gone: dict[str, str] = {}  # key -> shard whose results the server has lost
        self._asked_gone: set[str] = set()
        self._waiting: dict[str, list[Request]] = {}  # every request without a completion, by its key
        self._again: deque[Request] = deque()
        self._packing: list[tuple[Request, bytes]] = []
        self._packed_bytes = 0
        self._tickets: dict[str, Ticket] = {}
        self._tries: Counter[str] = Counter()
        self._failed: dict[str, Completion] = {}
        self._fresh: dict[str, Outcome] = {}  # collected in this run before anybody asked
        self._most_requests = config.shard_requests
        self._refusals = 0
        self._not_before = 0.0

    @property
    def is_waiting(self) -> bool:
        """Is any request still without a completion or a reason?"""
        return bool(self._waiting)

    @property
    def n_open(self) -> int:
        return len(self._open)

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    def recover(self) -> Iterator[Completion]:
        """Finds every batch of earlier runs again, creates what provably was not, collects what has ended."""
        self._budget.open_day(self._journal.committed)
        for row in self._book.open_at(self._config.base_url):
            batch_id = row.batch_id or self._adopted(row)
            if batch_id is not None:
                announced_at_s = row.announced_at_s or time.time()
                was_gone = row.state == "gone"
                self._open[row.shard_hash] = _OpenBatch(row.shard_hash, batch_id, announced_at_s, was_gone=was_gone)
                self._held |= {key for key, n in self._book.members(row.shard_hash).items() if n}
        yield from self.poll()

    def fill(self, walking: Iterator[Request]) -> Iterator[Completion]:
        """Packs and submits as many requests as there may be at the server; answers what the journal knows."""
        while self._has_room():
            if self._again:
                self._pack(self._again.popleft())
                continue
            request = next(walking, None) if self._failure is None and not self._exhausted else None
            if request is None:
                self._exhausted = True
                break
            completion = self._admit(request)
            if completion is not None:
                yield self._told(completion)
        if self._exhausted and not self._again and self._has_room():
            self._submit()

    def poll(self) -> Iterator[Completion]:
        """Looks at every open batch once and collects those that have ended."""
        for batch in list(self._open.values()):
            try:
                found = self._server.retrieve(batch.batch_id)
            except MissingAtServerError:
                self._lose(batch)
                continue
            if batch.was_gone:  # and is back: it was looked for with another key, perhaps
                batch.was_gone = False
                self._book.submitted(batch.shard_hash, batch.batch_id)
            said = f"{found.status}, {found.completed + found.failed:,} of {found.total:,} requests"
            if said != batch.said:
                batch.said = said
                self._book.seen(batch.shard_hash, found.status, found.completed, found.failed)
                self._say(f"batch {batch.batch_id}: {said}")
            if not found.has_ended:
                batch.was_running |= found.status != "cancelling"
            elif found.status == "failed":
                self._refused(batch, found)
            else:
                yield from self._collect(batch, found)

    def finish(self) -> None:
        """Raises what ended the pass early, if anything did."""
        if self._failure is not None:
            raise self._failure
        if self._asked_gone:
            raise ResultsGoneError(len(self._asked_gone), tuple(sorted({self._gone[key] for key in self._asked_gone})))
        if self._elsewhere:
            raise HeldByBatchError(self._config.model, len(self._elsewhere), tuple({*self._elsewhere.values()}))

    def _has_room(self) -> bool:
        return len(self._open) < self._config.open_batches and time.monotonic() >= self._not_before

    def _admit(self, request: Request) -> Completion | None:
        key = request.key
        if key in self._waiting:
            self._waiting[key].append(request)
            return None
        standing = standing_of(self._journal, key)
        if standing.answer is not None:
            return self._known(request, standing.answer.body)
        if key in self._failed:
            return replace(self._failed[key].unpaid(), request=request)
        if key in self._gone:
            self._asked_gone.add(key)
            return None
        if standing.held_by is not None and key not in self._held:
            self._elsewhere[key] = standing.held_by
            return None
        self._waiting[key] = [request]
        if key not in self._held:
            self._pack(request)
        return None

    def _known(self, request: Request, body: bytes) -> Completion:
        fresh = self._fresh.pop(request.key, None)
        completion = completion_of(request, read_envelope(body))
        if fresh is None:
            return completion
        cost = {"tokens_in": fresh.tokens_in, "tokens_out": fresh.tokens_out, "usd": fresh.usd}
        return replace(completion, cached=False, calls=1, **cost)

    def _pack(self, request: Request) -> None:
        booking = worst_case(request, self._config.max_tokens, self._price)
        try:
            ticket = self._budget.book(booking)
        except BudgetReachedError as error:
            self._failure = self._failure or error
            del self._waiting[request.key]
            return
        self._tickets[request.key] = ticket
        line = request_line(request, self._config.token_limit_field)
        if self._packing and self._packed_bytes + len(line) > self._config.shard_bytes:
            self._submit()
        self._packing.append((request, line))
        self._packed_bytes += len(line)
        if len(self._packing) >= self._most_requests:
            self._submit()

    def _submit(self) -> None:
        """Intent first: the file's name, then the file, then an attempt of each request, then the batch."""
        if not self._packing:
            return
        requests = [request for request, _ in self._packing]
        content = b"".join(line for _, line in self._packing)
        self._packing, self._packed_bytes = [], 0
        name = hashlib.sha256(content).hexdigest()
        row = self._book.begin(name, self._config.base_url, self._config.model, len(requests))
        file_id = row.file_id
        if file_id is None or not self._server.has_file(file_id):
            file_id = self._server.upload(row.shard_hash, io.BytesIO(content))
            self._book.uploaded(row.shard_hash, file_id)
        self._book.announce(row.shard_hash, [self._intent(request) for request in requests])
        self._tries.update(request.key for request in requests)
        batch_id = self._created(row.shard_hash, file_id, time.time(), in_doubt=False)
        self._open[row.shard_hash] = _OpenBatch(row.shard_hash, batch_id, time.time())
        self._say(f"batch {batch_id}: {len(requests):,} requests submitted")

    def _intent(self, request: Request) -> Intent:
        booking = self._tickets[request.key].booking
        return request, booking.tokens, 0.0 if booking.usd is None and not self._config.paid else booking.usd

    def _adopted(self, row: BatchRow) -> str | None:
        """The id of a batch whose creation was not recorded; None when there is nothing left to create it from."""
        announced_at_s = row.announced_at_s or 0.0
        found = self._server.find(row.shard_hash, row.file_id, announced_at_s)
        remaining_s = announced_at_s + self._config.adopt_wait_s - time.time()
        if found is None and remaining_s > 0:  # the call of a killed process may still be on its way
            time.sleep(remaining_s)
            found = self._server.find(row.shard_hash, row.file_id, announced_at_s)
        if found is not None:
            self._book.submitted(row.shard_hash, found.batch_id)
            self._say(f"batch {found.batch_id}: created by an earlier run, adopted")
            return found.batch_id
        if row.file_id is None or not self._server.has_file(row.file_id):
            self._withdraw(row.shard_hash, "not_sent: the batch was never created and its file is gone")
            return None
        return self._created(row.shard_hash, row.file_id, announced_at_s, in_doubt=False)

    def _created(self, shard_hash: str, file_id: str, since_s: float, *, in_doubt: bool) -> str:
        reason = ""
        for _ in range(_CREATIONS):
            found = self._server.find(shard_hash, file_id, since_s) if in_doubt else None
            try:
                found = found or self._server.create(shard_hash, file_id)
            except UncertainError as error:
                in_doubt, reason = True, str(error)
                time.sleep(self._config.adopt_wait_s)
                continue
            except EngineStoppedError as error:
                self._withdraw(shard_hash, f"not_sent: {error.detail}")
                raise
            self._book.submitted(shard_hash, found.batch_id)
            return found.batch_id
        raise EngineStoppedError(self._config.model, 0, reason, self._budget.calls)

    def _withdraw(self, shard_hash: str, error: str) -> None:
        """A batch that does not exist: its attempts cost nothing and its keys are free."""
        members = self._book.members(shard_hash)
        self._settle_all([(key, n, _free(error)) for key, n in members.items() if n])
        self._book.close(shard_hash, "failed")

    def _collect(self, batch: _OpenBatch, found: BatchAtServer) -> Iterator[Completion]:
        latency_ms = max(0, round((time.time() - batch.announced_at_s) * 1000))
        harvest = Harvest(self._book.members(batch.shard_hash), latency_ms, self._price)
        try:
            for outcomes in harvest.outcomes(self._server, found, _SETTLED_AT_ONCE):
                self._settle_all(outcomes)
                for key, _, outcome in outcomes:
                    yield from self._completions(key, outcome)
        except MissingAtServerError:
            self._lose(batch)
            return
        missing = harvest.missing
        self._settle_all([(key, n, _free(f"batch_{found.status}: it ended first", latency_ms)) for key, n in missing])
        self._book.set_aside(batch.shard_hash, harvest.aside)
        self._end(batch, "harvested")
        aside = f", {len(harvest.aside):,} lines set aside" if harvest.aside else ""
        self._say(f"batch {batch.batch_id}: {harvest.n_settled:,} collected, {len(missing):,} unanswered{aside}")
        yield from self._unanswered([key for key, _ in missing], batch, found)

    def _unanswered(self, keys: list[str], batch: _OpenBatch, found: BatchAtServer) -> Iterator[Completion]:
        for key in keys:
            self._correct(key, 0, None)
        asked = [key for key in keys if key in self._waiting]
        if found.status == "cancelled" and batch.was_running and asked:
            self._failure = self._failure or BatchCancelledError(batch.batch_id, len(asked))
            for key in asked:
                del self._waiting[key]
            return
        for key in asked:
            if self._tries[key] < self._config.submissions:
                self._again.append(self._waiting[key][0])
            else:
                error = f"exhausted: {self._tries[key]} batches ended without it"
                yield from self._completions(key, _free(error))

    def _refused(self, batch: _OpenBatch, found: BatchAtServer) -> None:
        """Failed at validation: a full queue wants smaller shards later, anything else a person."""
        members = self._book.members(batch.shard_hash)
        n_requests = len(members)
        words = "; ".join(f"{code}: {message}" for code, message in found.errors[:3]) or "without a reason"
        self._settle_all([(key, n, _free(f"batch_failed: {words}")) for key, n in members.items() if n])
        for key in members:
            self._correct(key, 0, None)
        self._end(batch, "failed")
        self._refusals += 1
        queue_full = any("token_limit" in code or "enqueued token" in said.casefold() for code, said in found.errors)
        asked = [key for key in members if key in self._waiting]
        if not queue_full or self._refusals > _REFUSALS:
            for key in asked:
                self._failure = self._failure or BatchRefusedError(batch.batch_id, n_requests, found.errors)
                del self._waiting[key]
            return
        self._most_requests = max(1, min(self._most_requests, (n_requests + 1) // 2))
        backoff_s = min(self._config.poll_s * 2 ** (self._refusals - 1), _LONGEST_BACKOFF_S)
        self._not_before = time.monotonic() + backoff_s
        self._tries.subtract(asked)
        self._again.extend(self._waiting[key][0] for key in asked)
        self._say(
            f"batch {batch.batch_id} was refused ({words}); batches of at most {self._most_requests:,} requests from"
            f" here on, the next in {backoff_s:,.0f} s"
        )

    def _lose(self, batch: _OpenBatch) -> None:
        lost = [key for key, n in self._book.members(batch.shard_hash).items() if n]
        self._gone |= dict.fromkeys(lost, batch.shard_hash)
        for key in lost:
            if self._waiting.pop(key, None) is not None:
                self._asked_gone.add(key)
        self._end(batch, "gone")

    def _end(self, batch: _OpenBatch, state: str) -> None:
        self._book.close(batch.shard_hash, state)
        self._held -= self._book.members(batch.shard_hash).keys()
        del self._open[batch.shard_hash]
        self.n_ended += 1

    def _settle_all(self, outcomes: list[tuple[str, int, Outcome]]) -> None:
        for start in range(0, len(outcomes), _SETTLED_AT_ONCE):
            some = outcomes[start : start + _SETTLED_AT_ONCE]
            for refusal in self._journal.submit(settlements=some).result().refusals:
                if refusal is not None:
                    raise refusal

    def _completions(self, key: str, outcome: Outcome) -> Iterator[Completion]:
        """Those of every request of this key; the first carries the cost."""
        if outcome.tokens_in is not None and outcome.tokens_out is not None:  # else it may have cost the worst
            self._correct(key, outcome.tokens_in + outcome.tokens_out, outcome.usd)
        requests = self._waiting.pop(key, None)
        if outcome.body is not None:
            if requests is None:
                self._fresh[key] = replace(outcome, body=None)
                return
            self._fresh[key] = outcome
            completions = [self._known(request, outcome.body) for request in requests]
        else:
            code, _, detail = (outcome.error or "unknown").partition(": ")
            failed = Completion(_nobody(key), None, error_code=code, detail=detail or None)
            self._failed[key] = failed
            completions = [
                replace(failed.unpaid() if n else failed, request=request) for n, request in enumerate(requests or ())
            ]
        for completion in completions:
            yield self._told(completion)

    def _correct(self, key: str, tokens: int, usd: float | None) -> None:
        ticket = self._tickets.pop(key, None)
        if ticket is not None:
            self._budget.correct(ticket, tokens, usd)

    def _told(self, completion: Completion) -> Completion:
        self._progress = counted(self._progress, completion)
        if self._on_progress is not None:
            self._on_progress(self._progress)
        return completion

    def _say(self, note: str) -> None:
        if self._on_progress is not None:
            self._on_progress(replace(self._progress, note=note))


def _nobody(key: str) -> Request:
    return Request("", (), {}, {}, "", key)


def _free(error: str, latency_ms: int = 0) -> Outcome:
    return Outcome("retryable", latency_ms, error=error, tokens_in=0, tokens_out=0, usd=0.0)
