"""Comparisons: corrected p-values and intervals."""

from __future__ import annotations

import numpy as np
import pytest

from flows.cli_models import show_comparison
from flows.cli_options import Options
from flows.steps.scores import Comparison, Difference, ModelScore, holm, interval


def gain(model: str, p_value: float) -> Difference:
    return Difference(model, "base", "recall@20", 0.01, 0.1, 0.0, 0.02, p_value, p_value, 100)


def test_holm_multiplies_the_smallest_by_the_number_of_pairs_and_never_turns_back():
    corrected = holm([gain("a", 0.02), gain("b", 0.01), gain("c", 0.9)])
    assert [row.p_holm for row in corrected] == pytest.approx([0.04, 0.03, 0.9])
    assert [row.model for row in corrected] == ["a", "b", "c"]


def test_one_pair_needs_no_correction():
    assert holm([gain("a", 0.02)])[0].p_holm == 0.02


def test_a_corrected_p_value_is_at_most_one():
    assert all(row.p_holm <= 1 for row in holm([gain("a", 0.7), gain("b", 0.8)]))


def test_the_interval_of_a_mean_holds_it_and_is_the_same_every_time():
    values = np.random.default_rng(1).random(400)
    low, high = interval(values)
    assert low < values.mean() < high
    assert (low, high) == interval(values)


def test_what_stands_in_for_a_language_model_is_said_below_the_table(capsys):
    means = {"recall@20": 0.2}
    whose = {"edges": "surrogate edges, from embeddings"}
    score = ModelScore("llmrec", "baseline", "llmrec", ["0" * 16], True, means, means, 9.0, 1.0, 3.0, 9.0, whose)
    show_comparison(Options(), Comparison([score], [], "attributes", "random", "dmrec", "recall@20", 1), {}, {})
    assert "llmrec: edges: surrogate edges, from embeddings" in capsys.readouterr().out
