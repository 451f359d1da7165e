"""Lists made of nothing but the items that a user rated in the tested part, as DGRM's evaluation makes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# What rating makes an item relevant where nothing else is said: the middle of 1..5.
MIDDLE = 3.0
# What the authors' code puts into the row of scores for training items before it takes the row's mean.
MASKED_SCORE = -99.0
# Random orders of equal ratings and scores that a value is the mean of: one alone moves a mean over users by 0.005.
TIE_DRAWS = 10


@dataclass(frozen=True)
class RatedEntries:
    """The tested items of some users, flat.

    Attributes:
        rows: (n,) position of the user, ascending.
        ratings: (n,) what the user gave.
        scores: (n,) what the model gives.
        passing: (n,) bool, whether the item may stand in the model's list.
        n_users: number of positions.
    """

    rows: NDArray[np.int64]
    ratings: NDArray[np.float32]
    scores: NDArray[np.float32]
    passing: NDArray[np.bool_]
    n_users: int


def hits_among(
    entries: RatedEntries, k: int, liked: float, rng: np.random.Generator | None
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(users, k) whether each place of the model's list holds one of the k best rated items, and how many those are.

    Args:
        liked: an item rated below is relevant to nobody.
        rng: orders equal ratings, and equal scores, at random; None leaves them in the order of the entries.

    Source: DGRM, equations 23-25, and the authors' evaluator.
    Deviations: none; who may be in the list (`passing`) and how users without a hit count differ between the two, and
    are the caller's.
    """
    ties = [np.arange(len(entries.rows)) if rng is None else rng.random(len(entries.rows)) for _ in range(2)]
    relevant, _ = _first(entries.rows, entries.ratings, entries.ratings >= liked, ties[0], k)
    among_best = np.zeros(len(entries.rows), bool)
    among_best[relevant] = True
    listed, places = _first(entries.rows, entries.scores, entries.passing, ties[1], k)
    hits = np.zeros((entries.n_users, k), bool)
    hits[entries.rows[listed], places] = among_best[listed]
    return hits, np.bincount(entries.rows[relevant], minlength=entries.n_users)


def _first(
    rows: NDArray[np.int64],
    values: NDArray[np.float32],
    kept: NDArray[np.bool_],
    ties: NDArray[np.float64] | NDArray[np.int64],
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the first k kept entries of each row by falling value, and the place each has in its row."""
    chosen = np.flatnonzero(kept)
    order = chosen[np.lexsort((ties[chosen], -values[chosen], rows[chosen]))]
    sorted_rows = rows[order]
    places = np.arange(len(order)) - np.searchsorted(sorted_rows, sorted_rows)
    return order[places < k], places[places < k]
