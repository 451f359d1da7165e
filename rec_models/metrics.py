"""Ranking metrics of one user at a cut-off. A public function here is a metric: settings name it as `recall@20`.

Every metric takes what was found and how much there was to find, and gives one value a user:

    hits: (users, depth) bool, whether the item at each rank is relevant, best rank first.
    n_relevant: (users,) int, how many relevant items the user has, at least 1.
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
