"""The same drawings for a phone: half as wide, with labels above their lines or below the axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from flows.report.charts import CurveChart, Dot, Tick, WhiskerChart

WIDTH = 360.0
"""About a phone's width in pixels, so that letters keep their size."""
_MANY_TICKS = 5


def narrow_whiskers(chart: WhiskerChart) -> WhiskerChart:
    """Each label above its line rather than left of it."""
    left, right, line = 20.0, 288.0, 46.0
    at = _between(chart.left, chart.right, left, right)
    rows = tuple(
        replace(
            row,
            y=36.0 + line * place,
            x=at(row.x),
            low=at(row.low),
            high=at(row.high),
            box=(at(row.box[0]), at(row.box[1])) if row.box else None,
        )
        for place, row in enumerate(chart.rows)
    )
    bottom = 36.0 + line * len(rows) - 24
    return replace(
        chart,
        width=WIDTH,
        height=bottom + 30,
        left=left,
        right=right,
        bottom=bottom,
        x_ticks=_thinned(chart.x_ticks, at),
        rows=rows,
        zero=None if chart.zero is None else at(chart.zero),
        narrow=True,
    )


def narrow_curves(chart: CurveChart) -> CurveChart:
    """Labels under each other below the axis."""
    left, right, line = 52.0, WIDTH - 12, 22.0
    at = _between(chart.left, chart.right, left, right)
    curves = tuple(
        replace(
            curve,
            points=tuple((at(x), y) for x, y in curve.points),
            best_x=at(curve.best_x),
            end_x=at(curve.end_x),
            label_y=chart.bottom + 64 + line * place,
            dots=tuple(Dot(at(dot.x), dot.y, dot.low, dot.high) for dot in curve.dots),
        )
        for place, curve in enumerate(chart.curves)
    )
    return replace(
        chart,
        width=WIDTH,
        height=chart.bottom + 60 + line * len(curves),
        left=left,
        right=right,
        x_ticks=_thinned(chart.x_ticks, at),
        curves=curves,
        narrow=True,
    )


def _between(old_left: float, old_right: float, left: float, right: float) -> Callable[[float], float]:
    """Where a place of the wide drawing lies in the narrow one."""
    return lambda x: round(left + (right - left) * (x - old_left) / (old_right - old_left), 2)


def _thinned(ticks: Sequence[Tick], at: Callable[[float], float]) -> tuple[Tick, ...]:
    """Every second tick where there are many."""
    return tuple(Tick(at(tick.at), tick.label) for tick in ticks[:: 2 if len(ticks) > _MANY_TICKS else 1])
