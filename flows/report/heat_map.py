"""A matrix of shares as a figure of coloured cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.report.charts import Tick


@dataclass(frozen=True)
class Cell:
    """One cell of a heat map; `strength` 0..1 is how much of its colour it shows."""

    x: float
    y: float
    strength: float
    value: str


@dataclass(frozen=True)
class HeatMap:
    """A matrix as coloured cells; rows and columns are labelled with what stands for them."""

    title: str
    width: float
    height: float
    size: float
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]
    cells: tuple[Cell, ...]


def heat_map(plan: Sequence[Sequence[float]], title: str) -> HeatMap:
    """A plan as shares of each row: what goes from interest to theme, a full cell for all of it."""
    size, left, top = 54.0, 78.0, 26.0
    cells = []
    for row, masses in enumerate(plan):
        whole = sum(masses) or 1.0
        for column, mass in enumerate(masses):
            share = mass / whole
            cells.append(Cell(left + size * column, top + size * row, round(share, 3), f"{100 * share:.0f} %"))
    n_columns = max(map(len, plan), default=0)
    return HeatMap(
        title, left + size * n_columns + 4, top + size * len(plan) + 4, size,
        tuple(Tick(top + size * (row + 0.5), f"interest {row + 1}") for row in range(len(plan))),
        tuple(Tick(left + size * (column + 0.5), f"{column + 1}") for column in range(n_columns)),
        tuple(cells),
    )  # fmt: skip
