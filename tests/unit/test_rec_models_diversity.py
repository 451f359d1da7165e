"""Diverse lists: the same as placing one item after the other by hand, and the plain list where nothing is asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_models import diversified


def by_hand(items, scores, vectors, weight, k):
    """One user's list, a place after the other, as the equation says it."""
    kept = [place for place, item in enumerate(items) if item >= 0]
    low, high = min(scores[kept]), max(scores[kept])
    relevance = {place: (scores[place] - low) / ((high - low) or 1) for place in kept}
    order: list[int] = []
    while kept and len(order) < k:

        def worth(place):
            likeness = [float(vectors[items[place]] @ vectors[items[above]]) for above in order]
            return (1 - weight) * relevance[place] - (weight * max(likeness) if likeness else 0.0)

        best = max(kept, key=worth)
        order.append(best)
        kept.remove(best)
    return [items[place] for place in order]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(1, 6), st.floats(0.05, 0.95))
def test_every_place_is_the_one_the_equation_gives(seed, depth, k, weight):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((20, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = np.stack([rng.permutation(20)[:depth] for _ in range(4)]).astype(np.int32)
    scores = -np.sort(-rng.standard_normal((4, depth)).astype(np.float32), axis=1)
    items[0, depth - 1], scores[0, depth - 1] = -1, np.nan
    got, values = diversified(items, scores, vectors, np.ones(20, bool), weight, k)
    for row in range(4):
        expected = by_hand(items[row], scores[row], vectors, weight, k)
        assert got[row][: len(expected)].tolist() == expected, f"seed {seed}"
        assert (got[row][len(expected) :] == -1).all()
        own = dict(zip(items[row].tolist(), scores[row].tolist(), strict=True))
        for item, value in zip(got[row].tolist(), values[row].tolist(), strict=True):
            assert item == -1 or own[item] == value


def test_near_copies_make_room_for_something_else():
    vectors = np.array([[1, 0], [0.999, 0.0447], [0, 1]], np.float32)
    items, scores = np.array([[0, 1, 2]], np.int32), np.array([[1.0, 0.99, 0.5]], np.float32)
    assert diversified(items, scores, vectors, np.ones(3, bool), 0.5, 2)[0].tolist() == [[0, 2]]
    assert diversified(items, scores, vectors, np.ones(3, bool), 0.0, 2)[0].tolist() == [[0, 1]]


def test_an_item_without_a_text_is_neither_favoured_nor_punished():
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 0]], np.float32)
    items, scores = np.array([[0, 1, 2]], np.int32), np.array([[1.0, 0.5, 0.5]], np.float32)
    present = np.array([True, True, False])
    # of the pairs with vectors the mean cosine is 0.8, so the one at 0.6 is the less alike
    assert diversified(items, scores, vectors, present, 0.5, 3)[0].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_a_user_without_candidates_has_an_empty_list(weight):
    items, scores = np.full((1, 3), -1, np.int32), np.full((1, 3), np.nan, np.float32)
    assert diversified(items, scores, np.eye(2, dtype=np.float32), np.ones(2, bool), weight, 2)[0].tolist() == [
        [-1, -1]
    ]
