"""A matrix of shares as a figure of coloured cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.report.charts import Tick
from flows.report.wording import signed


@dataclass(frozen=True)
class Cell:
    """One cell of a heat map; `strength` 0..1 is how much of its colour it shows, another colour below zero."""

    x: float
    y: float
    strength: float
    value: str
    negative: bool = False


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
    shares = [[mass / (sum(masses) or 1.0) for mass in masses] for masses in plan]
    return _drawn(title, [[(share, f"{100 * share:.0f} %") for share in row] for row in shares])


def signed_map(weights: Sequence[Sequence[float]], title: str) -> HeatMap:
    """Weights of either sign; the largest fills its cell."""
    largest = max((abs(weight) for row in weights for weight in row), default=0.0) or 1.0
    return _drawn(title, [[(weight / largest, signed(weight, 2)) for weight in row] for row in weights])


def _drawn(title: str, rows: Sequence[Sequence[tuple[float, str]]]) -> HeatMap:
    """Cells of (strength -1..1, what is written in them)."""
    size, left, top = 60.0, 84.0, 26.0
    n_columns = max(map(len, rows), default=0)
    return HeatMap(
        title, left + size * n_columns + 4, top + size * len(rows) + 4, size,
        tuple(Tick(top + size * (row + 0.5), f"interest {row + 1}") for row in range(len(rows))),
        tuple(Tick(left + size * (column + 0.5), f"theme {column + 1}") for column in range(n_columns)),
        tuple(
            Cell(left + size * column, top + size * row, round(abs(strength), 3), value, strength < 0)
            for row, cells in enumerate(rows)
            for column, (strength, value) in enumerate(cells)
        ),
    )  # fmt: skip
