"""Activity groups, sweeps, latent quantiles and their drawings."""

from __future__ import annotations

import itertools
import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.report import Epoch, GroupGain, ModelResult, Sweep, SweepPoint, figure
from flows.report.charts import curve_chart, group_chart, latent_chart, span_chart, sweep_chart
from flows.steps.analyse import activity_groups, bounded_groups, latent_activities, sweeps_of
from flows.steps.scores import holm_adjusted

HOSTILE = "</text><script>alert(1)</script>&\x00]]>"


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(2, 6))
def test_activity_groups_part_the_users_rise_and_hold_their_share(counts, n_groups):
    groups = activity_groups(np.array(counts), n_groups)
    assert 1 <= len(groups) <= n_groups
    assert groups[0][0] == min(counts) and groups[-1][1] == max(counts)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(groups))
    for least, most in groups[:-1]:
        assert sum(count for count in counts if least <= count <= most) * n_groups >= sum(counts)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.sets(st.integers(1, 50), min_size=1, max_size=4))
def test_groups_by_bounds_hold_every_user_once(counts, bounds):
    groups = bounded_groups(np.array(counts), sorted(bounds))
    assert sum(least <= count <= most for count in counts for least, most in groups) == len(counts)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(groups))
    assert bounded_groups(np.array([5, 10, 11, 100, 101]), [10, 50, 100]) == [(5, 10), (11, 50), (51, 100), (101, 101)]


def test_four_equal_shares_make_four_groups():
    assert activity_groups(np.array([1] * 12 + [3] * 4 + [6] * 2 + [12])) == [(1, 1), (3, 3), (6, 6), (12, 12)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_nor_changes_their_order(p_values):
    corrected = holm_adjusted(p_values)
    assert all(before <= after <= 1 for before, after in zip(p_values, corrected, strict=True))
    by_raw = [after for _, after in sorted(zip(p_values, corrected, strict=True))]
    assert by_raw == sorted(by_raw)
    assert corrected[p_values.index(min(p_values))] == pytest.approx(min(1, len(p_values) * min(p_values)))


def test_a_sweep_is_three_numbers_of_one_option_with_all_else_the_same():
    measured = [
        (label, 0.2, 0.1 + place / 100, (0.05, 0.15))
        for place, label in enumerate(
            (
                *("dmrec@matching.beta=1.0;fuse=add", "dmrec@matching.beta=0.0;fuse=add"),
                *("dmrec@matching.beta=0.5;fuse=add", "dmrec@matching.beta=0.5;fuse=none", "mult_vae", "ease@a=1"),
                *("dmrec@fuse=none;matching.beta=0.0", "dmrec@language=shuffled", "ease@a=nan"),
            )
        )
    ]
    [sweep] = sweeps_of(measured)
    assert (sweep.model, sweep.option) == ("dmrec@fuse=add", "matching.beta")
    assert [point.value for point in sweep.points] == [0.0, 0.5, 1.0]
    assert [point.test for point in sweep.points] == pytest.approx([0.11, 0.12, 0.1])


def test_latent_quantiles_are_over_the_dimensions_of_all_seeds():
    logs = np.log(np.array([1.0, 0.5, 0.02, 1e-12]))
    [row] = latent_activities("m", [{"decoded": logs}, {"decoded": logs}])
    assert row.quantiles[0] == pytest.approx(math.log(1e-12)) and row.quantiles[4] == 0
    assert (row.n_active, row.n_dims) == (3, 4) and row.quantiles[2] == pytest.approx(np.median(logs))
    assert latent_activities("m", []) == []


def gain(model: str, difference: float) -> GroupGain:
    return GroupGain(
        model, "base", "3–5", 40, 0.2, 0.2 - difference, difference, difference - 0.02, difference + 0.02, 0.01
    )


def test_a_gain_and_a_loss_lie_on_either_side_of_the_marked_zero():
    chart = group_chart([gain("a", 0.05), gain("a", -0.05)], "recall@20")
    assert chart is not None and chart.zero is not None
    up, down = chart.rows
    assert down.x < chart.zero < up.x and (up.role, down.role) == ("model", "base") and up.value == "+0.0500"
    assert group_chart([], "recall@20") is None and span_chart([], "x") is None


def test_curves_by_second_use_the_time_that_training_took():
    history = tuple(Epoch(epoch, None, 0.1 * epoch, 2.0) for epoch in range(5))
    chart = curve_chart([ModelResult("m", "model", True, (), history=history)], "second")
    assert chart is not None and chart.curves[0].best == "0.4000 after 10.0 s" and chart.x_ticks[-1].label == "10"


def test_a_figure_is_one_wellformed_picture_in_which_labels_stay_text():
    latents = latent_activities(HOSTILE, [{"decoded": np.zeros(3), "language": np.ones(3)}])
    sweep = Sweep(HOSTILE, "beta", tuple(SweepPoint(x, "l", 0.1, 0.2, 0.1, 0.3) for x in (0.0, 0.5, 1.0)))
    charts = [
        group_chart([gain(HOSTILE, 0.1)], HOSTILE),
        latent_chart(latents),
        sweep_chart(sweep, "r", (HOSTILE, 0.15)),
    ]
    text = figure([chart for chart in charts if chart is not None])
    root = ElementTree.fromstring(text.encode())
    names = {element.tag.removeprefix("{http://www.w3.org/2000/svg}") for element in root.iter()}
    assert names <= {"svg", "style", "rect", "g", "text", "line", "circle", "path", "title"}
    assert sum("script" in (element.text or "") for element in root.iter()) >= 3
    assert text == figure([chart for chart in charts if chart is not None])
