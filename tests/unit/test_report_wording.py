"""Numbers in words, axes in round numbers: what a reader of the report relies on."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.report import Epoch, Interval, ModelResult
from flows.report.charts import curve_chart, nice_ticks, whisker_chart
from flows.report.wording import dollars, duration, flat, gain, measure, metric_name, percent, probability, signed

FINITE = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.01, "< 0.1 s"),
        (0.31, "0.3 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (8040, "2 h 14 min"),
        (7199.9, "2 h 00 min"),
        (None, "unknown"),
    ],
)
def test_durations_are_told_in_the_units_of_their_size(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("usd", "said"), [(0.0, "$0.00"), (0.0042, "$0.0042"), (1234.5, "$1,234.50"), (None, "unknown")]
)
def test_small_prices_keep_their_digits_and_unknown_ones_stay_unknown(usd: float | None, said: str) -> None:
    assert dollars(usd) == said


@pytest.mark.parametrize(
    ("p", "said"), [(1e-9, "p < 0.001"), (0.0344, "p = 0.034"), (0.41, "p = 0.41"), (None, "p unknown")]
)
def test_p_values_are_given_as_precisely_as_they_matter(p: float | None, said: str) -> None:
    assert probability(p) == said


def test_minus_signs_and_undefined_values_are_typeset() -> None:
    assert signed(-0.0123) == "−0.0123"
    assert gain(-0.05) == "−5.0 %"
    assert (measure(math.nan), percent(None), gain(math.nan)) == ("–", "–", "–")


def test_metric_names_are_those_of_the_papers() -> None:
    assert [metric_name(name) for name in ("recall@20", "ndcg@10", "mrr@5")] == ["Recall@20", "NDCG@10", "MRR@5"]


def test_nested_settings_become_dotted_paths_in_their_order() -> None:
    tree = {"name": "demo", "model": {"base": {"dropout": 0.5}}, "ks": [10, 20]}
    assert list(flat(tree)) == [("name", "demo"), ("model.base.dropout", "0.5"), ("ks", "[10, 20]")]


@given(low=FINITE, high=FINITE)
def test_ticks_are_few_rise_evenly_and_cover_the_values(low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    ticks = nice_ticks(low, high)
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    assert 2 <= len(ticks) <= 12
    assert all(step > 0 for step in steps)
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)
    slack = 1e-6 * steps[0]
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=30), min_size=1, max_size=8))
def test_every_curve_stays_inside_its_axes_and_no_two_labels_overlap(curves: list[list[float]]) -> None:
    models = [
        ModelResult(f"m{place}", "baseline", False, (), history=tuple(Epoch(e, None, r) for e, r in enumerate(recalls)))
        for place, recalls in enumerate(curves)
    ]
    chart = curve_chart(models)
    assert chart is not None and len(chart.curves) == len(models)
    for curve in chart.curves:
        points = [tuple(map(float, point.split())) for point in curve.path[1:].split(" L")]
        assert all(chart.left - 0.01 <= x <= chart.right + 0.01 for x, _ in points)
        assert all(chart.top - 0.01 <= y <= chart.bottom + 0.01 for _, y in points)
    heights = sorted(curve.label_y for curve in chart.curves)
    assert all(after - before >= 15.9 for before, after in itertools.pairwise(heights))


def test_models_without_epochs_have_no_curve() -> None:
    assert curve_chart([ModelResult("popularity", "baseline", False, ())]) is None


def test_whiskers_share_one_scale_that_starts_at_zero() -> None:
    models = [
        ModelResult("a", "model", True, (Interval("recall@20", 0.2, 0.19, 0.21),)),
        ModelResult("b", "base", False, (Interval("recall@20", 0.1),)),
    ]
    chart = whisker_chart(models, "recall@20")
    assert chart is not None
    first, second = chart.rows
    assert first.low < first.x < first.high
    assert second.low == second.x == second.high
    assert (first.x - chart.left) == pytest.approx(2 * (second.x - chart.left), abs=0.02)


def test_a_long_label_is_given_the_room_it_takes() -> None:
    def drawn(label: str) -> ModelResult:
        return ModelResult(
            label, "model", True, (Interval("recall@20", 0.2),), history=(Epoch(0, 1.0, 0.1), Epoch(1, 1.0, 0.2))
        )

    for label in ("dmrec", "dmrec@language=shuffled"):
        curves, whiskers = curve_chart([drawn(label)]), whisker_chart([drawn(label)], "recall@20")
        assert curves is not None and whiskers is not None
        assert min(curves.width - curves.right, whiskers.left) >= 8 * len(label)
