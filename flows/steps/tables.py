"""A comparison as one table: cells that know their numbers and the models they came from, in any format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from flows.steps.scores import Comparison, Difference, ModelScore, cutoff

NOT_RUN = "not run"
NONE = "–"


@dataclass(frozen=True)
class Measure:
    """A mean with its 95 % interval over users and its standard deviation over seeds, where there are any."""

    mean: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None


@dataclass(frozen=True)
class Gain:
    """A paired difference to the reference; `p_holm` is corrected for all rows of the table."""

    difference: float
    relative: float | None
    low: float
    high: float
    p_value: float
    p_holm: float


Value = str | float | int | Measure | Gain | None


@dataclass(frozen=True)
class TableRow:
    """One model: `values` in the order of the columns, and the ids of what they were measured on."""

    values: tuple[Value, ...]
    model_ids: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()

    def trace(self) -> str:
        """Where the row comes from, in words."""
        if not self.model_ids:
            return NOT_RUN
        runs = f"; run {', '.join(self.runs)}" if self.runs else ""
        return f"models {', '.join(self.model_ids)}{runs}"


@dataclass(frozen=True)
class ComparisonTable:
    """A table that can stand alone: what it compares, under which facts, and notes to its signs."""

    title: str
    facts: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = field(default=())

    def kinds(self) -> Iterator[tuple[str, type]]:
        """Each column with the kind of its values; a column of nothing counts as words."""
        for place, name in enumerate(self.columns):
            found = (row.values[place] for row in self.rows)
            yield name, next((type(value) for value in found if value is not None and value != NOT_RUN), str)


def comparison_table(comparison: Comparison, reference: str, snapshot: str) -> ComparisonTable:
    """The table of a comparison; models that were asked for and are not trained are rows that say so."""
    shown = _shown_metrics(comparison)
    gains = {gain.model: gain for gain in comparison.differences}
    columns = (
        *("model", "role", "seeds", f"valid {comparison.select_by}"),
        *(f"test {name}" for name in shown),
        f"{comparison.select_by} against {reference}",
        *("s/epoch", "best epoch", "profiles"),
        *(("diagnostics",) if _diagnosed(comparison) else ()),
    )
    rows = [_row(comparison, score, shown, gains.get(score.label)) for score in comparison.scores]
    blank = (NOT_RUN,) * (len(columns) - 3)
    rows += [TableRow((label, None, f"0 of {comparison.seeds}", *blank)) for label in comparison.not_run]
    facts = (
        ("protocol", comparison.protocol),
        ("split", comparison.split),
        ("profiles", comparison.source),
        ("selected by", f"{comparison.select_by} on validation"),
        ("reference", reference),
        ("seeds", str(comparison.seeds)),
        ("snapshot", snapshot),
    )
    return ComparisonTable(
        f"{len(rows)} models, {comparison.protocol}", facts, columns, tuple(rows), _notes(comparison)
    )


def _shown_metrics(comparison: Comparison) -> list[str]:
    """The test metrics at the cut-off that selects: the selecting one first, then those of a user, then the others."""
    names = dict.fromkeys(name for score in comparison.scores for name in score.test)
    k, personal = cutoff(comparison.select_by), {name for score in comparison.scores for name in score.intervals}
    at_k = [name for name in names if cutoff(name) == k]
    return sorted(at_k, key=lambda name: (name != comparison.select_by, name not in personal, name))


def _row(comparison: Comparison, score: ModelScore, shown: Sequence[str], gain: Difference | None) -> TableRow:
    n_seeds = len(score.model_ids)
    runs = dict.fromkeys(comparison.runs[model] for model in score.model_ids if model in comparison.runs)
    sources = [comparison.source] if score.reads_language else []
    sources += [f"{what}: {whose}" for what, whose in score.provenance.items()]
    values: tuple[Value, ...] = (
        score.label,
        score.role,
        str(n_seeds) if n_seeds == comparison.seeds else f"{n_seeds} of {comparison.seeds}",
        score.valid.get(comparison.select_by),
        *(_measure(score, name) for name in shown),
        _gain(gain) if gain else None,
        score.seconds_per_epoch,
        round(score.best_epoch) if score.epochs else None,
        "; ".join(sources) or None,
        *((diagnosed_as(score),) if _diagnosed(comparison) else ()),
    )
    return TableRow(values, tuple(score.model_ids), tuple(runs))


def _diagnosed(comparison: Comparison) -> bool:
    return any(score.diagnostics for score in comparison.scores)


def diagnosed_as(score: ModelScore) -> str | None:
    """What a model reports of itself, in words: at its first validation pass and at its best."""
    return ", ".join(f"{name} {first:.4g} to {best:.4g}" for name, (first, best) in score.diagnostics.items()) or None


def _measure(score: ModelScore, name: str) -> Measure | None:
    if name not in score.test:
        return None
    low, high = score.intervals.get(name, (None, None))
    return Measure(score.test[name], low, high, score.spread.get(name))


def _gain(gain: Difference) -> Gain:
    return Gain(gain.difference, gain.relative, gain.low, gain.high, gain.p_value, gain.p_holm)


def _notes(comparison: Comparison) -> tuple[str, ...]:
    notes = ["Means over seeds; in brackets the 95 % bootstrap interval over users of the values averaged over seeds."]
    if comparison.seeds > 1:
        notes.append("After ±: the standard deviation over seeds.")
    if comparison.differences:
        notes.append(
            "Differences are paired over users; p of a two-sided paired t-test, Holm-corrected for "
            f"{len(comparison.differences)} comparison(s)."
        )
    if _diagnosed(comparison):
        notes.append("Diagnostics: at the first validation pass, and at the best one.")
    if comparison.not_run:
        notes.append(f"{NOT_RUN}: asked for, and not trained when this table was made.")
    return tuple(notes)


def in_words(value: Value) -> str:
    """A cell as a reader wants it: four decimals, intervals in brackets."""
    if value is None:
        return NONE
    if isinstance(value, Measure):
        interval = "" if value.low is None or value.high is None else f" [{value.low:.4f}, {value.high:.4f}]"
        return f"{value.mean:.4f}{interval}" + (f" ±{value.spread:.4f}" if value.spread is not None else "")
    if isinstance(value, Gain):
        relative = f" ({value.relative:+.1%})" if value.relative is not None else ""
        chance = f"p {value.p_holm:.4f}" if value.p_holm >= 1e-4 else "p < 1e-4"
        return f"{value.difference:+.4f}{relative} [{value.low:+.4f}, {value.high:+.4f}], {chance}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
