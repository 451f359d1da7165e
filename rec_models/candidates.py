"""Items a user has not taken and might: what a language model chooses among."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rec_models.interactions import InteractionMatrix

_USERS_AT_ONCE = 256


def graph_candidates(train: InteractionMatrix, allowed: NDArray[np.bool_], n: int) -> NDArray[np.int64]:
    """(n_users, n) int64 unseen items that a graph step from a user's items ranks highest, best first; -1 pads.

    Nothing is learned: an item's score is the sum over the user's items of S'S, S being the training interactions over
    the roots of both degrees. Of equal scores the lower index comes first.

    Args:
        allowed: (n_items,) whether an item may be a candidate at all.

    Source: none. LLMRec takes the best unseen items of a trained recommender; these need no training, so that a plan
        can count the questions. They are those of LLMRec's surrogate edges, but for items of equal score.
    """
    binary = sparse.csr_matrix((np.ones(train.nnz), train.indices, train.indptr), shape=train.shape)
    roots = [np.sqrt(np.maximum(degrees, 1)) for degrees in (train.lengths(), train.item_counts())]
    step = sparse.diags_array(1 / roots[0]) @ binary @ sparse.diags_array(1 / roots[1])
    back = sparse.csr_matrix(step.T)
    found = np.full((train.n_users, n), -1, np.int64)
    for start in range(0, train.n_users, _USERS_AT_ONCE):
        own = binary[start : start + _USERS_AT_ONCE]
        scores = ((own @ back) @ step).toarray()
        scores[own.nonzero()] = -np.inf
        scores[:, ~allowed] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :n]
        real = np.isfinite(np.take_along_axis(scores, best, 1))
        found[start : start + len(best), : best.shape[1]] = np.where(real, best, -1)
    return found
