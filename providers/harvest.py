"""What an ended batch brought, joined on custom_id: out of order, twice, unknown or unreadable as it may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from providers.batch_server import BatchAtServer, BatchServer
from providers.completion import Outcome
from providers.prices import Price
from providers.result_lines import BAD_LINE, NO_LINE, ResultLine, outcome_of, read_result

Settled = tuple[str, int, Outcome]


@dataclass
class Harvest:
    """The books of one harvest.

    Args:
        members: {key: attempt number while unsettled, else None} of the batch.
        aside: (reason, line) of lines that no request of the batch can take.
        n_replies: lines of the output file, readable or not: so many requests were answered and charged.
    """

    members: Mapping[str, int | None]
    aside: list[tuple[str, bytes]] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    n_replies: int = 0
    n_settled: int = 0

    @property
    def missing(self) -> list[tuple[str, int]]:
        """(key, attempt number) of the requests that nothing was said of."""
        return [(key, n) for key, n in self.members.items() if n is not None and key not in self.taken]


def harvested(
    server: BatchServer, batch: BatchAtServer, harvest: Harvest, latency_ms: int, price: Price | None, at_once: int
) -> Iterator[list[Settled]]:
    """Outcomes in groups of `at_once`: first every reply, then what the lines say of the others.

    A completed batch has said its last word: a request without a line gets an outcome here, too. Where a batch expired
    or was cancelled such requests stay `missing`.

    Raises:
        MissingAtServerError: a result file is gone.
    """
    faults: dict[str, ResultLine] = {}
    group: list[Settled] = []
    for file_id, is_output in ((batch.output_file_id, True), (batch.error_file_id, False)):
        for line in server.lines(file_id) if file_id else ():
            if not line.strip():
                continue
            harvest.n_replies += is_output
            settled = _placed(line, read_result(line), harvest, faults, latency_ms, price)
            if settled is not None:
                group.append(settled)
            if len(group) >= at_once:
                yield _counted(harvest, group)
                group = []
    for key, n in harvest.missing:
        fault = faults.get(key)
        if fault is None and batch.status == "completed":
            unread = any(reason == BAD_LINE for reason, _ in harvest.aside)
            why = "among the lines that cannot be read" if unread else "the batch ended without a line for it"
            fault = ResultLine(key, error=f"{BAD_LINE if unread else NO_LINE}: {why}")
        if fault is not None and not fault.unfinished:
            harvest.taken.add(key)
            group.append((key, n, outcome_of(fault, latency_ms, price)[0]))
    for start in range(0, len(group), at_once):
        yield _counted(harvest, group[start : start + at_once])


def _placed(
    line: bytes,
    result: ResultLine,
    harvest: Harvest,
    faults: dict[str, ResultLine],
    latency_ms: int,
    price: Price | None,
) -> Settled | None:
    """The outcome of a line with a reply; a line with a fault waits until every reply is read."""
    key = result.custom_id
    if key is None or key not in harvest.members:
        harvest.aside.append((BAD_LINE if key is None else "unknown_id", line))
        return None
    n = harvest.members[key]
    if n is None:
        return None  # settled by a harvest that was cut off
    if key in harvest.taken:
        harvest.aside.append(("duplicate", line))
        return None
    if result.body is None:
        faults.setdefault(key, result)
        return None
    harvest.taken.add(key)
    return key, n, outcome_of(result, latency_ms, price)[0]


def _counted(harvest: Harvest, group: list[Settled]) -> list[Settled]:
    harvest.n_settled += len(group)
    return group
