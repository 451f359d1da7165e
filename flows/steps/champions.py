"""Which model serves, which served before it, and how that came: the rows of `promotions`, read in their order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.steps.rows import records

if TYPE_CHECKING:
    from warehouse import Snapshot, Warehouse

FIRST, BLESSED, NOT_BLESSED, BY_HAND, ROLLED_BACK, KEPT = (
    "FIRST", "BLESSED", "NOT_BLESSED", "BY_HAND", "ROLLED_BACK", "KEPT",
)  # fmt: skip
# The registry's word for a model that was deleted because a user in it was forgotten.
RETRAIN = "retrain_required"


@dataclass(frozen=True)
class Champion:
    """A model that serves or served: its label and the ids of its seeds, the first of which makes the lists."""

    label: str
    model_ids: tuple[str, ...]

    @property
    def model_id(self) -> str:
        return self.model_ids[0]


def decisions(snapshot: Snapshot | None) -> list[dict[str, Any]]:
    """The rows of `promotions` that a version knows of, oldest first."""
    return sorted(records(snapshot.read("promotions")), key=lambda row: row["n"]) if snapshot else []


def champions(rows: list[dict[str, Any]]) -> list[Champion]:
    """Those that a rollback can reach, the one that serves last: whoever was rolled back is not among them."""
    line: list[Champion] = []
    for row in rows:
        promoted = Champion(row["model"], tuple(row["model_ids"]))
        if row["verdict"] == FIRST:
            line = [promoted]
        elif row["verdict"] in (BLESSED, BY_HAND):
            line.append(promoted)
        elif row["verdict"] == ROLLED_BACK and len(line) > 1:
            line.pop()
    return line


def champion_of(snapshot: Snapshot | None) -> Champion | None:
    """The model that serves by what a version remembers; None where none was promoted."""
    line = champions(decisions(snapshot))
    return line[-1] if line else None


def rolled_back(rows: list[dict[str, Any]]) -> dict[tuple[str, ...], str]:
    """model ids → in words, of the models that somebody took out and nobody put back."""
    out: dict[tuple[str, ...], str] = {}
    for row in rows:
        if row["verdict"] == ROLLED_BACK:
            when = row["decided_at"].strftime("%Y-%m-%d")
            out[tuple(row["champion_ids"])] = f"it was rolled back on {when}, and nobody put it back by hand"
        elif row["verdict"] == BY_HAND:
            out.pop(tuple(row["model_ids"]), None)
    return out


def judged_versions(warehouse: Warehouse) -> Iterator[Snapshot]:
    """Kept versions with a verdict that the published one knows of, newest first.

    A switch that was killed before it was published leaves a version whose decision never came true. To begin from it
    would carry that decision into the history, beside the one that took its number.
    """
    known = {_named(row) for row in decisions(warehouse.current())}
    for snapshot in warehouse.snapshots():
        if "promote" in snapshot.stages and known.issuperset(map(_named, decisions(snapshot))):
            yield snapshot


def _named(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["n"], row["run_id"], row["snapshot"], row["model"]


def version_of(warehouse: Warehouse, model_ids: tuple[str, ...]) -> Snapshot | None:
    """The newest kept version in which these models make the lists and were not refused."""
    for snapshot in judged_versions(warehouse):
        said = snapshot.stages["promote"]["summary"]
        if tuple(said.get("model_ids", ())) == model_ids and said.get("verdict") != NOT_BLESSED:
            return snapshot
    return None


def needed_for_rollback(warehouse: Warehouse) -> set[str]:
    """Ids of the versions that a rollback would publish, which garbage collection leaves alone."""
    reachable = champions(decisions(warehouse.current()))[:-1]
    found = [version_of(warehouse, champion.model_ids) for champion in reachable[-2:]]
    return {snapshot.id for snapshot in found if snapshot is not None}
