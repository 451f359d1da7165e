"""Ranking metrics at a cut-off. A public function here is a metric: settings name it as `recall@20`.

A metric takes, by name, what it reads, and gives one value a user, or one number of all lists together (`float`):

    hits: (users, depth) bool, whether the item at each rank is relevant, best rank first.
    n_relevant: (users,) int, how many relevant items the user has, at least 1.
    information: (users, depth) bits that the item at each rank is worth, NaN where the list has ended.
    exposure: (n_items,) int, in how many lists of length k each item of the catalogue stands.
    k: the cut-off, at most `depth`.
"""

import numpy as np
from numpy.typing import NDArray

Hits = NDArray[np.bool_]
Counts = NDArray[np.int64]
Values = NDArray[np.float64]


def recall(hits: Hits, n_relevant: Counts, k: int) -> Values:
    """(users,) share of the relevant items that are among the first k, in 0..1.

    Source: protocol of DMRec and RLMRec.
    Deviations: divides by all relevant items; `truncated_recall` divides by at most k of them.
    """
    return hits[:, :k].sum(1) / n_relevant


def truncated_recall(hits: Hits, n_relevant: Counts, k: int) -> Values:
    """(users,) hits among the first k over min(k, relevant), in 0..1.

    Source: Liang et al. 2018, equation 8.
    Deviations: none.
    """
    return hits[:, :k].sum(1) / np.minimum(n_relevant, k)


def ndcg(hits: Hits, n_relevant: Counts, k: int) -> Values:
    """(users,) discounted gain over the gain of a perfect list of the same length, in 0..1.

    Source: Jarvelin & Kekalainen 2002 with binary gains and log2(rank + 1).
    Deviations: none.
    """
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)
    gains = np.where(hits[:, :k], discounts, 0.0).sum(axis=1)
    return np.asarray(gains / ideal[np.minimum(n_relevant, k) - 1])


def mrr(hits: Hits, n_relevant: Counts, k: int) -> Values:
    """(users,) one over the rank of the first hit, 0 without one among the first k.

    Source: Voorhees 1999.
    Deviations: cut off at k.
    """
    shown = hits[:, :k]
    return np.where(shown.any(1), 1 / (shown.argmax(1) + 1), 0.0)


def hit(hits: Hits, n_relevant: Counts, k: int) -> Values:
    """(users,) 1 where anything relevant is among the first k, else 0.

    Source: common usage.
    Deviations: none.
    """
    return (hits[:, :k].sum(axis=1) > 0).astype(np.float64)


def novelty(information: Values, k: int) -> Values:
    """(users,) mean self-information of the first k, bits: log2(users / users who have the item), 0 for an empty list.

    Source: Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma", mean self-information.
    Deviations: popularity is counted in the training part alone, over the users who have a row there; an item that
    nobody has there counts as had by one.
    """
    shown = information[:, :k]
    n_shown = np.count_nonzero(~np.isnan(shown), axis=1)
    return np.nansum(shown, axis=1) / np.maximum(n_shown, 1)


def coverage(exposure: Counts, k: int) -> float:
    """() share of the catalogue that stands in at least one list of length k, in 0..1.

    Source: Ge et al. 2010, "Beyond accuracy", catalogue coverage.
    Deviations: none.
    """
    return float(np.count_nonzero(exposure) / len(exposure))


def gini(exposure: Counts, k: int) -> float:
    """() Gini coefficient of exposure: 0 where all items stand in equally many lists, towards 1 where few take all.

    Source: Shani & Gunawardana 2011, "Evaluating recommendation systems", section 8.3.3.
    Deviations: divided by n as in Gini's own, so that one item with all exposure gives 1 - 1/n; 0 without exposure.
    """
    rising, n_items = np.sort(exposure), len(exposure)
    total = rising.sum()
    weights = 2 * np.arange(1, n_items + 1) - n_items - 1
    return float(weights @ rising / (n_items * total)) if total else 0.0
