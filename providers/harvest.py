"""What an ended batch brought, joined on custom_id: out of order, twice, unknown or unreadable as it may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from providers.batch_server import BatchAtServer, BatchServer, MissingAtServerError
from providers.completion import Outcome
from providers.prices import Price
from providers.result_lines import BAD_LINE, NO_LINE, ResultLine, outcome_of, read_result

Settled = tuple[str, int, Outcome]


class Harvest:
    """The books of one harvest.

    Args:
        members: {key: attempt number while unsettled, else None} of the batch.
        latency_ms: since the batch was announced.

    Attributes:
        aside: (reason, line) of lines that no request of the batch can take.
        n_settled: outcomes given so far.
    """

    def __init__(self, members: Mapping[str, int | None], latency_ms: int, price: Price | None) -> None:
        self.aside: list[tuple[str, bytes]] = []
        self.n_settled = 0
        self._members, self._latency_ms, self._price = members, latency_ms, price
        self._taken: set[str] = set()
        self._faults: dict[str, ResultLine] = {}
        self._n_told = 0  # lines that tell how a request ended, readable or not

    @property
    def missing(self) -> list[tuple[str, int]]:
        """(key, attempt number) of the requests without an outcome."""
        return [(key, n) for key, n in self._members.items() if n is not None and key not in self._taken]

    def outcomes(self, server: BatchServer, batch: BatchAtServer, at_once: int) -> Iterator[list[Settled]]:
        """Groups of at most `at_once`: first every reply, then what the lines say of the other requests.

        A completed batch has said its last word: a request without a line gets an outcome here, too. Where a batch
        expired or was cancelled such requests stay `missing`.

        Raises:
            MissingAtServerError: a result file is gone, or some results are; after every outcome that is there.
        """
        group: list[Settled] = []
        for line in self._lines(server, batch):
            settled = self._placed(line, read_result(line))
            if settled is not None:
                group.append(settled)
            if len(group) >= at_once:
                yield self._counted(group)
                group = []
        is_whole = self._n_told >= batch.completed
        group += self._last_words(has_ended=batch.status == "completed" and is_whole)
        for start in range(0, len(group), at_once):
            yield self._counted(group[start : start + at_once])
        if not is_whole:
            raise MissingAtServerError(f"{batch.completed} requests were completed, {self._n_told} results are there")

    def _lines(self, server: BatchServer, batch: BatchAtServer) -> Iterator[bytes]:
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is not None:
                yield from (line for line in server.lines(file_id) if line.strip())

    def _placed(self, line: bytes, result: ResultLine) -> Settled | None:
        """The outcome of a line with a reply; a line with a fault waits until every reply is read."""
        self._n_told += not result.unfinished
        key = result.custom_id
        if key is None or key not in self._members:
            self.aside.append((BAD_LINE if key is None else "unknown_id", line))
            return None
        n = self._members[key]
        if n is None:
            return None  # settled by a harvest that was cut off
        if key in self._taken:
            self.aside.append(("duplicate", line))
            return None
        if result.body is None:
            self._faults.setdefault(key, result)
            return None
        return self._taking(key, n, result)

    def _last_words(self, *, has_ended: bool) -> list[Settled]:
        unread = any(reason == BAD_LINE for reason, _ in self.aside)
        why = "among the lines that cannot be read" if unread else "the batch ended without a line for it"
        no_line = ResultLine(None, error=f"{BAD_LINE if unread else NO_LINE}: {why}") if has_ended else None
        told = [(key, n, self._faults.get(key, no_line)) for key, n in self.missing]
        return [self._taking(key, n, fault) for key, n, fault in told if fault is not None and not fault.unfinished]

    def _taking(self, key: str, n: int, result: ResultLine) -> Settled:
        self._taken.add(key)
        return key, n, outcome_of(result, self._latency_ms, self._price)[0]

    def _counted(self, group: list[Settled]) -> list[Settled]:
        self.n_settled += len(group)
        return group
