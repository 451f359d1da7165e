"""Answers in quarantine: which question each is about, and which of them a person means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.errors import NotInQuarantineError
from flows.steps.rows import records
from flows.workspace import PROFILE, AskedRow

if TYPE_CHECKING:
    from warehouse import Snapshot


def asked(row: Mapping[str, Any]) -> AskedRow | None:
    """The question that a row in quarantine is about; None where no language model was asked."""
    what = PROFILE if row["stage"] == PROFILE else row["aspect"]
    return AskedRow(what, row["kind"], row["entity_id"]) if what else None


def answers_aside(snapshot: Snapshot) -> frozenset[AskedRow]:
    """Every question without a usable answer."""
    return frozenset(_questions(records(snapshot.read("quarantine"))))


def chosen_answers(snapshot: Snapshot, ids: Sequence[str], code: str | None) -> frozenset[AskedRow]:
    """Those of some ids, or of all; under one code, or under any.

    Raises:
        NotInQuarantineError: an id or code that no such row has.
    """
    rows = [row for row in records(snapshot.read("quarantine")) if asked(row)]
    known = sorted({row["entity_id"] for row in rows})
    for entity_id in ids:
        if entity_id not in known:
            raise NotInQuarantineError(f"id {entity_id!r}", snapshot.id, known[:10])
    codes = sorted({row["code"] for row in rows})
    if (code is not None and code not in codes) or not rows:
        raise NotInQuarantineError(f"code {code!r}" if code else "anything", snapshot.id, codes)
    meant = [row for row in rows if (not ids or row["entity_id"] in ids) and (code is None or row["code"] == code)]
    return frozenset(_questions(meant))


def aspects_to_redo(snapshot: Snapshot, chosen: Iterable[AskedRow]) -> tuple[str, ...]:
    """All that the snapshot has answers of, where any of it is chosen: the stage asks for everything or nothing."""
    beyond = any(row.asked != PROFILE for row in chosen)
    return tuple(snapshot.stages["augment"]["summary"]["content"]) if beyond else ()


def _questions(rows: Iterable[Mapping[str, Any]]) -> list[AskedRow]:
    return [row for row in map(asked, rows) if row is not None]
