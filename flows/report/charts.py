"""Geometry of the report's drawings: values in, coordinates out; the template writes the SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flows.report.content import ModelResult
from flows.report.wording import measure

WIDTH = 720
"""Drawings are 720 units wide and scale with the page."""


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Curve:
    """One model's validation curve; `path` is SVG path syntax, `series` the colour's number from 1."""

    label: str
    series: int
    path: str
    best_x: float
    best_y: float
    best: str
    end_x: float
    end_y: float
    label_y: float


@dataclass(frozen=True)
class CurveChart:
    """Validation recall by epoch."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Whisker:
    """One model's mean and interval on a common scale."""

    label: str
    role: str
    y: float
    x: float
    low: float
    high: float
    value: str


@dataclass(frozen=True)
class WhiskerChart:
    """Means with their intervals, one line a model."""

    width: float
    height: float
    left: float
    right: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    rows: tuple[Whisker, ...]


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) that cover [low, high]."""
    high = max(high, low + max(1e-4, 1e-6 * abs(low)))  # a flat line still has a scale
    raw = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _label(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".") or "0"


def curve_chart(models: Sequence[ModelResult]) -> CurveChart | None:
    """The validation curves of all models trained in epochs, or None when there are none."""
    traced = []
    for model in models:
        points = [(row.epoch, row.recall) for row in model.history if row.recall is not None]
        if points:
            traced.append((model, points))
    if not traced:
        return None
    left, right, top, bottom = 56.0, WIDTH - max(150.0, _room([model.label for model, _ in traced])), 14.0, 284.0
    recalls = [recall for _, points in traced for _, recall in points]
    x_values = nice_ticks(0, max(max(epoch for epoch, _ in points) for _, points in traced) or 1, 6)
    y_values = nice_ticks(min(recalls), max(recalls), 5)

    def x_of(epoch: float) -> float:
        return round(left + (right - left) * epoch / x_values[-1], 2)

    def y_of(recall: float) -> float:
        return round(bottom - (bottom - top) * (recall - y_values[0]) / (y_values[-1] - y_values[0]), 2)

    curves = []
    for series, (model, points) in enumerate(traced, start=1):
        best_epoch, best = max(points, key=lambda point: point[1])
        path = "M" + " L".join(f"{x_of(epoch)} {y_of(recall)}" for epoch, recall in points)
        end_epoch, end = points[-1]
        curves.append(
            Curve(
                model.label,
                series,
                path,
                x_of(best_epoch),
                y_of(best),
                f"{measure(best)} at epoch {best_epoch}",
                x_of(end_epoch),
                y_of(end),
                y_of(end),
            )
        )
    return CurveChart(
        WIDTH, 330.0, left, right, top, bottom,
        tuple(Tick(x_of(value), _label(value)) for value in x_values),
        tuple(Tick(y_of(value), _label(value)) for value in y_values),
        tuple(_apart(curves)),
    )  # fmt: skip


def _room(labels: Sequence[str]) -> float:
    """Units that the longest label takes, up to half of a drawing."""
    return min(WIDTH / 2, 24 + 8.6 * max(map(len, labels)))


def _apart(curves: list[Curve], gap: float = 16.0) -> list[Curve]:
    """The curves in their order, with end labels moved down until none overlaps another."""
    moved: dict[int, Curve] = {}
    lowest = -math.inf
    for curve in sorted(curves, key=lambda row: row.label_y):
        lowest = max(curve.label_y, lowest + gap)
        moved[curve.series] = Curve(**{**vars(curve), "label_y": lowest})
    return [moved[curve.series] for curve in curves]


def whisker_chart(models: Sequence[ModelResult], metric: str | None) -> WhiskerChart | None:
    """Every model's mean and interval on one metric, or None when nobody has it."""
    found = [(model, row) for model in models for row in model.metrics if row.metric == metric]
    if not found:
        return None
    left, right, line = max(190.0, _room([model.label for model, _ in found])), WIDTH - 76.0, 34.0
    lows = [row.value if row.low is None else row.low for _, row in found]
    highs = [row.value if row.high is None else row.high for _, row in found]
    values = nice_ticks(min(0.0, *lows), max(highs), 5)  # from zero: lengths may be compared

    def x_of(value: float) -> float:
        return round(left + (right - left) * (value - values[0]) / (values[-1] - values[0]), 2)

    rows = tuple(
        Whisker(model.label, model.role, 24 + line * place, x_of(row.value), x_of(low), x_of(high), measure(row.value))
        for place, ((model, row), low, high) in enumerate(zip(found, lows, highs, strict=True))
    )
    bottom = 24 + line * len(found) - 8
    return WhiskerChart(WIDTH, bottom + 30, left, right, bottom, tuple(Tick(x_of(v), _label(v)) for v in values), rows)
