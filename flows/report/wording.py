"""Numbers and sentences as a reader wants them: thousands separated, units named, unknown never shown as zero."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from flows.report.content import Difference, ModelResult, ReportContent

UNKNOWN = "unknown"
MINUS = "−"


def count(value: int | None) -> str:
    """`12,345`; unknown where nothing was counted."""
    return UNKNOWN if value is None else f"{value:,}"


def measure(value: float | None) -> str:
    """Four decimals, the precision at which recalls are compared."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.4f}".replace("-", MINUS)


def signed(value: float, places: int = 4) -> str:
    """Four decimals, or so many, with their sign."""
    return f"{value:+.{places}f}".replace("-", MINUS)


def percent(value: float | None) -> str:
    """A share 0..1 as a percentage; `–` where it is not defined."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %".replace("-", MINUS)


def gain(value: float | None) -> str:
    """A relative change as a signed percentage; `–` where it is not defined."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:+.1f} %".replace("-", MINUS)


def duration(seconds: float | None) -> str:
    """`0.3 s`, `42 s`, `3 min 05 s`, `2 h 14 min`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.05:
        return "< 0.1 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def dollars(value: float | None) -> str:
    """US dollars, to the cent from ten cents up, to a hundredth of a cent below; an unknown price stays unknown."""
    if value is None:
        return UNKNOWN
    return f"${value:,.2f}" if value == 0 or value >= 0.1 else f"${value:.4f}"


def probability(value: float | None) -> str:
    """`p < 0.001`, `p = 0.034`, `p = 0.41`."""
    if value is None or not math.isfinite(value):
        return "p " + UNKNOWN
    if value < 0.001:
        return "p < 0.001"
    return f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def metric_name(name: str) -> str:
    """`recall@20` as papers print it: Recall@20, NDCG@20."""
    kind, at, k = name.partition("@")
    shown = {"ndcg": "NDCG", "mrr": "MRR"}.get(kind, kind.replace("_", " ").capitalize())
    return f"{shown}{at}{k}"


def flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """("model.base.dropout", "0.3") pairs of a nested mapping, in its order."""
    for name, value in settings.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}.")
        else:
            yield path, str(value)


def primary_metric(content: ReportContent) -> str | None:
    """The metric the summary speaks of: recall@20, else the first there is."""
    names = [interval.metric for model in content.models for interval in model.metrics]
    return "recall@20" if "recall@20" in names else next(iter(names), None)


def value_of(model: ModelResult, metric: str | None) -> float | None:
    """The model's mean on a metric, or None."""
    return next((interval.value for interval in model.metrics if interval.metric == metric), None)


def difference_of(model: ModelResult, metric: str | None) -> Difference | None:
    """The model's paired difference to the base on a metric, or None."""
    return next((row for row in model.differences if row.metric == metric), None)


def compared_with(content: ReportContent, metric: str | None) -> str | None:
    """What the table of metrics compares with: the base, else the one model that all differences speak of."""
    if first_of(content, "base"):
        return "the base"
    names = {gap.reference for model in content.models if (gap := difference_of(model, metric))}
    return names.pop() if len(names) == 1 else None


def first_of(content: ReportContent, role: str) -> ModelResult | None:
    """The first model with a role."""
    return next((model for model in content.models if model.role == role), None)


def summary(content: ReportContent) -> list[str]:
    """The run in one paragraph, a sentence each."""
    return [*_what_was_read(content), *_where_texts_came_from(content), *_what_came_out(content)]


def _what_was_read(content: ReportContent) -> Iterator[str]:
    read, run = content.catalogue, content.run
    if run.generated:
        yield (
            "This catalogue was generated: its items, texts and users are invented,"
            " and a gain here says nothing about real data."
        )
    yield (
        f"“{run.command}” read {count(read.n_items)} items, {count(read.n_users)} users"
        f" and {count(read.n_interactions)} interactions ({read.split}) and took {duration(run.seconds)}."
    )


def _where_texts_came_from(content: ReportContent) -> Iterator[str]:
    texts = content.profiles
    if texts.source == "attributes":
        yield (
            f"The {count(texts.n_item_profiles)} item profiles were composed from the items’ own attributes;"
            " no language model wrote them."
        )
    else:
        yield f"The {count(texts.n_item_profiles)} item profiles were written by {texts.source}."
    encoded = f"The encoder {texts.encoder} turned them into {texts.dim}-dimensional vectors"
    if texts.user_source == "pooled":
        yield f"{encoded}; a user’s vector is the mean of the vectors of their training items."
    elif texts.user_source == "attributes":
        yield f"{encoded}; {count(texts.n_user_profiles)} user profiles were composed from the users’ attributes."
    else:
        yield f"{encoded}; {count(texts.n_user_profiles)} user profiles were written by {texts.user_source}."


def _what_came_out(content: ReportContent) -> Iterator[str]:
    metric, model = primary_metric(content), first_of(content, "model")
    if model is None or metric is None or (reached := value_of(model, metric)) is None:
        yield "No model was evaluated in this run."
        return
    opening = f"On held-out test interactions {model.label} reached {metric_name(metric)} {measure(reached)}"
    base, gap = first_of(content, "base"), difference_of(model, metric)
    reference = value_of(base, metric) if base else None
    if base is None or gap is None or reference is None:
        yield f"{opening}; no base was trained beside it."
        return
    yield f"{opening}, its base without language ({base.label}) {measure(reference)}."
    yield _verdict(gap)


def _verdict(gap: Difference) -> str:
    interval = (
        f"95 % interval {signed(gap.low)} to {signed(gap.high)}, {probability(gap.p_value)}, {count(gap.n_users)} users"
    )
    if gap.low <= 0 <= gap.high:
        return f"The paired difference of {signed(gap.difference)} cannot be told from zero ({interval})."
    direction = "gains" if gap.difference > 0 else "loses"
    relative = "" if gain(gap.relative) == "–" else f" ({gain(gap.relative)})"
    return f"Reading the texts {direction} {measure(abs(gap.difference))}{relative} over the base ({interval})."
