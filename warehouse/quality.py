"""Whether a snapshot's rows can be trusted: checks that return the rows that break them, and drift between versions.

A check is a file of `sql/checks/`: its first line says `-- error:` or `-- warning:` and what is wrong, its query
returns (kind, entity_id, detail). Each is a macro too: `FROM check_profile_blank()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from warehouse.catalogue import Catalogue


@dataclass(frozen=True)
class RowCheck:
    """A rule about rows."""

    name: str
    level: Literal["error", "warning"]
    says: str
    sql: str

    @property
    def macro(self) -> str:
        """The name under which a query can ask for the rows that break it."""
        return f"check_{self.name}"


@dataclass(frozen=True)
class Finding:
    """A check that some rows break, with the first of them as (kind, id, detail)."""

    check: RowCheck
    n_rows: int
    examples: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Drift:
    """A measure of the published version beside that of the version before.

    Args:
        change: now / before - 1.
        same_recipe: False where the model, prompt or encoder changed too, so that a change is no surprise.
    """

    measure: str
    before: float
    now: float
    change: float
    same_recipe: bool


@cache
def quality_checks() -> tuple[RowCheck, ...]:
    """Every check there is, by name."""
    return tuple(sorted(_read(), key=lambda check: check.name))


def findings(catalogue: Catalogue, n_examples: int = 3) -> list[Finding]:
    """The checks that rows of a snapshot break, errors first."""
    found = []
    for check in quality_checks():
        rows = catalogue.query(f"SELECT *, count(*) OVER () AS n FROM {check.macro}() ORDER BY ALL LIMIT {n_examples}")
        broken = rows.to_pylist()
        if broken:
            examples = tuple((row["kind"], row["entity_id"], row["detail"]) for row in broken)
            found.append(Finding(check, broken[0]["n"], examples))
    return sorted(found, key=lambda finding: finding.check.level)


def drift(catalogue: Catalogue) -> list[Drift]:
    """What changed since the version before; nothing where there is none."""
    return [Drift(**row) for row in catalogue.query("FROM drift()").to_pylist()]


def _read() -> Iterator[RowCheck]:
    for source in files("warehouse").joinpath("sql", "checks").iterdir():
        if not source.name.endswith(".sql"):
            continue
        head, _, sql = source.read_text(encoding="utf-8").partition("\n")
        level, _, says = head.removeprefix("-- ").partition(": ")
        if level not in ("error", "warning"):
            raise ValueError(f"{source.name}: the first line says `-- error: …` or `-- warning: …`, got {head!r}")
        yield RowCheck(source.name.removesuffix(".sql"), level, says, sql.strip())
