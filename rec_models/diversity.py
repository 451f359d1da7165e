"""Lists in another order: each place goes to the item that scores well and is unlike those that stand above it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Likenesses held at once: 64 MB, whatever the number of candidates.
_CELLS_AT_ONCE = 1 << 24


def diversified(
    items: NDArray[np.int32],
    scores: NDArray[np.float32],
    vectors: NDArray[np.float32],
    present: NDArray[np.bool_],
    weight: float,
    k: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Items (users, k), -1 where nothing is left, and their own scores; weight 0 keeps the first k as they are.

    A place goes to the candidate with the largest (1 - weight) · relevance - weight · likeness: relevance is the score
    brought to 0 … 1 within the user's candidates, likeness the largest cosine to an item already placed. Two items one
    of which has no vector are as like as the user's candidates are on average.

    Source: Carbonell and Goldstein, The use of MMR (SIGIR 1998), equation 1.
    Deviations: relevance is scaled a user, since scores of different models have different units.

    Args:
        items: (users, candidates) indices, best first, -1 behind the last.
        scores: (users, candidates), NaN behind the last.
        vectors: (n_items, dim) of length one.
        present: (n_items,) whether an item has a vector.
    """
    depth = items.shape[1]
    k = min(k, depth)
    chosen, values = items[:, :k].copy(), scores[:, :k].copy()
    if weight == 0 or depth < 2:
        return chosen, values
    at_once = max(1, _CELLS_AT_ONCE // (depth * max(depth, vectors.shape[1])))
    for start in range(0, len(items), at_once):
        rows = slice(start, start + at_once)
        order = _placed(_relevance(scores[rows]), _likeness(items[rows], vectors, present), weight, k)
        chosen[rows] = np.take_along_axis(items[rows], order, 1)
        values[rows] = np.take_along_axis(scores[rows], order, 1)
    return chosen, values


def _relevance(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores of each row brought to 0 … 1; -inf where there is no candidate."""
    real = np.isfinite(scores)
    low = np.where(real, scores, np.inf).min(1, keepdims=True)
    high = np.where(real, scores, -np.inf).max(1, keepdims=True)
    span = np.where(high > low, high - low, 1)
    with np.errstate(invalid="ignore"):  # a row without candidates is all infinities
        return np.where(real, (scores - low) / span, -np.inf).astype(np.float32)


def _likeness(
    items: NDArray[np.int32], vectors: NDArray[np.float32], present: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """(rows, candidates, candidates) cosines."""
    places = np.maximum(items, 0)
    own = vectors[places]  # (rows, candidates, dim)
    cosines = own @ own.transpose(0, 2, 1)
    known = present[places] & (items >= 0)
    if not known.all():
        pairs = known[:, :, None] & known[:, None, :]
        mean = np.where(pairs, cosines, 0).sum((1, 2)) / np.maximum(pairs.sum((1, 2)), 1)
        cosines = np.where(pairs, cosines, mean[:, None, None].astype(np.float32))
    return cosines


def _placed(relevance: NDArray[np.float32], likeness: NDArray[np.float32], weight: float, k: int) -> NDArray[np.int64]:
    """(rows, k) which candidate takes each place; those that are none come last, in their order."""
    n_rows, depth = relevance.shape
    rows = np.arange(n_rows)
    order = np.empty((n_rows, k), np.int64)
    left = (1 - weight) * relevance
    # an order behind every real value, so that padding keeps its place and nothing is taken twice
    left[~np.isfinite(left)] = -1e6
    left -= np.where(left <= -1e6, np.arange(depth, dtype=np.float32), 0)
    nearest = np.full((n_rows, depth), -1, np.float32)
    for place in range(k):
        worth = left if place == 0 else left - weight * nearest
        best = worth.argmax(1)
        order[:, place] = best
        left[rows, best] = -np.inf
        np.maximum(nearest, likeness[rows, best], out=nearest)
    return order
