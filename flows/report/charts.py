"""Geometry of the report's drawings: values in, coordinates out; the template writes the SVG."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from flows.report.analysed import Collapse
from flows.report.content import (
    ACTIVE,
    CohortMap,
    GroupGain,
    LatentActivity,
    MaskDrift,
    ModelResult,
    SharingCurve,
    Sweep,
)
from flows.report.wording import MINUS, measure, signed

WIDTH = 720
"""Drawings are 720 units wide and scale with the page."""


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """Values to be drawn as one line; `ranges` gives a point its low and high."""

    label: str
    points: tuple[tuple[float, float], ...]
    ranges: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Dot:
    """A point of a curve with its interval."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """One line; `series` is the colour's number from 1, `best` its highest point in words, or how high a level is."""

    label: str
    series: int
    points: tuple[tuple[float, float], ...]
    best_x: float
    best_y: float
    best: str
    end_x: float
    end_y: float
    label_y: float
    dots: tuple[Dot, ...] = ()
    level: bool = False
    """Whether all of it is equally high, so that no point of it is the best."""

    @property
    def path(self) -> str:
        """SVG path syntax."""
        return "M" + " L".join(f"{x} {y}" for x, y in self.points)


@dataclass(frozen=True)
class CurveChart:
    """Curves over one axis, such as validation recall by epoch."""

    title: str
    x_label: str
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Curve, ...]
    marked: str = "highest"
    narrow: bool = False
    """Whether it is drawn for a phone; see `flows.report.narrow`."""


@dataclass(frozen=True)
class Span:
    """A value with its interval, and the quartiles where it is a distribution's median."""

    label: str
    value: float
    low: float
    high: float
    quartiles: tuple[float, float] | None = None
    role: str = "model"
    shown: str | None = None


@dataclass(frozen=True)
class Whisker:
    """One span on a common scale."""

    label: str
    role: str
    y: float
    x: float
    low: float
    high: float
    value: str
    box: tuple[float, float] | None = None


@dataclass(frozen=True)
class WhiskerChart:
    """Values with their intervals, one line each; `zero` is what they are read against, if the scale passes it."""

    title: str
    width: float
    height: float
    left: float
    right: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    rows: tuple[Whisker, ...]
    zero: float | None = None
    narrow: bool = False


@dataclass(frozen=True)
class Mark:
    """A point of a map; `series` is the colour's number from 1."""

    x: float
    y: float
    series: int


@dataclass(frozen=True)
class MapChart:
    """Points of several groups on a plane without scales; `legend` is name, series and height of each."""

    title: str
    width: float
    height: float
    right: float
    marks: tuple[Mark, ...]
    legend: tuple[tuple[str, int, float], ...]


Chart = CurveChart | WhiskerChart | MapChart


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) that cover [low, high]."""
    high = max(high, low + max(1e-4, 1e-6 * abs(low)))  # a flat line still has a scale
    raw = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _label(value: float) -> str:
    return (f"{value:.6f}".rstrip("0").rstrip(".") or "0").replace("-", MINUS)


def curve_chart(models: Sequence[ModelResult], by: Literal["epoch", "second"] = "epoch") -> CurveChart | None:
    """The validation curves of all models trained in epochs, or None when there are none."""
    lines = []
    for model in models:
        clock = itertools.accumulate(row.seconds or 0.0 for row in model.history)
        at = [row.epoch for row in model.history] if by == "epoch" else list(clock)
        points = tuple(
            (place, row.recall) for place, row in zip(at, model.history, strict=True) if row.recall is not None
        )
        if points:
            lines.append(Line(model.label, points))
    words = ("epoch", "at epoch {:.0f}") if by == "epoch" else ("seconds of training", "after {:.1f} s")
    return line_chart(lines, f"Validation recall by {by}", *words)


def line_chart(
    lines: Sequence[Line], title: str, x_label: str, best_at: str, from_zero: bool = True, marked: str = "highest"
) -> CurveChart | None:
    """Lines on common axes, or None where there is nothing to draw.

    Args:
        best_at: how the place of the marked point is told, with one `{}` for it.
        from_zero: whether the horizontal axis begins at 0, as time does.
        marked: the `highest` or the `lowest` point of each line.
    """
    if not lines:
        return None
    left, right, top, bottom = 56.0, WIDTH - max(150.0, _room([line.label for line in lines])), 14.0, 284.0
    places = [x for line in lines for x, _ in line.points]
    heights = [y for line in lines for _, y in line.points] + [
        y for line in lines for ends in line.ranges for y in ends
    ]
    x_values = nice_ticks(0 if from_zero else min(places), max(places) or 1, 6)
    y_values = nice_ticks(min(heights), max(heights), 5)

    def x_of(place: float) -> float:
        return round(left + (right - left) * (place - x_values[0]) / (x_values[-1] - x_values[0]), 2)

    def y_of(height: float) -> float:
        return round(bottom - (bottom - top) * (height - y_values[0]) / (y_values[-1] - y_values[0]), 2)

    curves = []
    for series, line in enumerate(lines, start=1):
        best_place, best = (max if marked == "highest" else min)(line.points, key=lambda point: point[1])
        points = tuple((x_of(x), y_of(y)) for x, y in line.points)
        end_place, end = line.points[-1]
        level = len(points) > 1 and len({y for _, y in points}) == 1
        best_words = measure(best) if level else f"{measure(best)} {best_at.format(best_place)}"
        marks = (x_of(best_place), y_of(best), best_words, x_of(end_place), y_of(end), y_of(end))
        dots = tuple(
            Dot(x_of(x), y_of(y), y_of(low), y_of(high))
            for (x, y), (low, high) in zip(line.points, line.ranges, strict=False)
        )
        curves.append(Curve(line.label, series, points, *marks, dots, level))
    return CurveChart(
        title, x_label, WIDTH, 330.0, left, right, top, bottom,
        tuple(Tick(x_of(value), _label(value)) for value in x_values),
        tuple(Tick(y_of(value), _label(value)) for value in y_values),
        tuple(_apart(curves)), marked,
    )  # fmt: skip


def _room(labels: Sequence[str]) -> float:
    """Units that the longest label takes, up to half of a drawing."""
    return min(WIDTH / 2, 50 + 8.2 * max(map(len, labels)))


def _apart(curves: list[Curve], gap: float = 16.0) -> list[Curve]:
    """The curves in their order, with end labels moved down until none overlaps another."""
    moved: dict[int, Curve] = {}
    lowest = -math.inf
    for curve in sorted(curves, key=lambda row: row.label_y):
        lowest = max(curve.label_y, lowest + gap)
        moved[curve.series] = replace(curve, label_y=lowest)
    return [moved[curve.series] for curve in curves]


def whisker_chart(models: Sequence[ModelResult], metric: str | None) -> WhiskerChart | None:
    """Every model's mean and interval on one metric, or None when nobody has it."""
    spans = [
        Span(
            model.label,
            row.value,
            row.value if row.low is None else row.low,
            row.value if row.high is None else row.high,
            role=model.role,
        )
        for model in models
        for row in model.metrics
        if row.metric == metric
    ]
    return span_chart(spans, str(metric))


def span_chart(spans: Sequence[Span], title: str, from_zero: bool = True, against: float = 0.0) -> WhiskerChart | None:
    """Spans under each other on one scale, or None without any; from zero, lengths may be compared.

    Args:
        against: the value that the others are read against, marked where the scale passes it.
    """
    if not spans:
        return None
    left, right, line = max(190.0, _room([span.label for span in spans])), WIDTH - 76.0, 34.0
    least = min(span.low for span in spans)
    values = nice_ticks(min(0.0, least) if from_zero else least, max(span.high for span in spans), 5)

    def x_of(value: float) -> float:
        return round(left + (right - left) * (value - values[0]) / (values[-1] - values[0]), 2)

    rows = tuple(
        Whisker(
            span.label,
            span.role,
            24 + line * place,
            x_of(span.value),
            x_of(span.low),
            x_of(span.high),
            measure(span.value) if span.shown is None else span.shown,
            (x_of(span.quartiles[0]), x_of(span.quartiles[1])) if span.quartiles else None,
        )
        for place, span in enumerate(spans)
    )
    bottom = 24 + line * len(spans) - 8
    ticks = tuple(Tick(x_of(value), _label(value)) for value in values)
    zero = x_of(against) if values[0] < against < values[-1] else None
    return WhiskerChart(title, WIDTH, bottom + 30, left, right, bottom, ticks, rows, zero)


def group_chart(gains: Sequence[GroupGain], metric: str) -> WhiskerChart | None:
    """What each model gains over its reference in each activity group; zero is marked."""
    several = len({gain.model for gain in gains}) > 1
    spans = [
        Span(
            f"{f'{gain.model}, ' if several else ''}{gain.group} ({gain.n_users:,})",
            gain.difference,
            gain.low,
            gain.high,
            role="model" if gain.low > 0 else "base" if gain.high < 0 else "baseline",
            shown=signed(gain.difference),
        )
        for gain in gains
    ]
    return span_chart(spans, f"{metric} gained by users with so many training interactions")


def latent_chart(latents: Sequence[LatentActivity]) -> WhiskerChart | None:
    """Log activity of every latent dimension as a box from quartile to quartile."""
    spans = []
    for latent in latents:
        low, first, median, third, high = latent.quantiles
        role = {"decoded": "model", "language": "base"}.get(latent.part, "baseline")
        spans.append(Span(f"{latent.model}, {latent.part}", median, low, high, (first, third), role, _short(median)))
    return span_chart(spans, "log of latent activity", from_zero=False, against=math.log(ACTIVE))


def sweep_chart(sweep: Sweep, metric: str, reference: tuple[str, float] | None = None) -> CurveChart | None:
    """Validation and test by the value of one option; the reference, which has no such option, is a level line."""
    points = sorted(sweep.points, key=lambda point: point.value)
    test = Line(
        "test",
        tuple((point.value, point.test) for point in points),
        tuple((point.low, point.high) for point in points if point.low is not None and point.high is not None),
    )
    lines = [test]
    valid = tuple((point.value, point.valid) for point in points if point.valid is not None)
    lines += [Line("validation", valid)] if valid else []
    if reference is not None:
        label, level = reference
        lines.append(Line(f"{label}, test", ((points[0].value, level), (points[-1].value, level))))
    return line_chart(lines, f"{metric} of {sweep.model} by {sweep.option}", sweep.option, "at {:g}", from_zero=False)


def mask_chart(drifts: Sequence[MaskDrift]) -> WhiskerChart | None:
    """Variance over masks and drift from the centroid, a box over users each."""
    spans = [
        Span(f"{drift.model}, {part}", median, low, high, (first, third), role, _short(median))
        for drift in drifts
        for part, role, (low, first, median, third, high) in (
            ("variance", "model", drift.variance),
            ("drift", "base", drift.drift),
        )
    ]
    return span_chart(spans, "moved by masks, over the variance between users")


def _short(value: float) -> str:
    return f"{value:.2f}".replace("-", MINUS)


def sharing_chart(curves: Sequence[SharingCurve]) -> CurveChart | None:
    """Latent distance by distance in rows."""
    lines = [Line(curve.model, curve.points) for curve in curves]
    return line_chart(lines, "latent distance by items that differ", "items that one of two users has", "at {:.0f}")


def collapse_chart(collapses: Sequence[Collapse], figure: str) -> CurveChart | None:
    """A figure of the predicted ratings by validation pass, of the models that tell it more than once."""
    told = {one.model: tuple((row["epoch"], row[figure]) for row in one.epochs if figure in row) for one in collapses}
    lines = [Line(model, points) for model, points in told.items() if len(points) > 1]
    marked = "lowest" if figure == "rating_kl" else "highest"
    return line_chart(lines, f"validation {figure} by epoch", "epoch", "at epoch {:.0f}", marked=marked)


def map_chart(cohorts: CohortMap) -> MapChart | None:
    """The users of a map, or None without any."""
    if not cohorts.points:
        return None
    side, right, top = 400.0, 420.0, 10.0
    lows = [min(point[axis] for point in cohorts.points) for axis in (0, 1)]
    spans = [max(point[axis] for point in cohorts.points) - lows[axis] or 1.0 for axis in (0, 1)]
    marks = tuple(
        Mark(
            round(top + (side - top) * (x - lows[0]) / spans[0], 2),
            round(top + (side - top) * (y - lows[1]) / spans[1], 2),
            place + 1,
        )
        for x, y, place in cohorts.points
    )
    legend = tuple((name, place + 1, 24.0 * (place + 1)) for place, name in enumerate(cohorts.cohorts))
    title = f"{cohorts.model}: users by items in their row"
    return MapChart(title, WIDTH, side + 2 * top, right, marks, legend)
