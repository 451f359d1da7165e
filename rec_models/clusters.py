"""Clusters of items by their vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

# k-means ends in different places; the tightest of so many is taken.
_RESTARTS = 10


def item_clusters(vectors: NDArray[np.float32], clusters: int, *, seed: int) -> NDArray[np.int64]:
    """(n_items,) int64 cluster of each item, 0 the largest, by Euclidean k-means from k-means++ starts.

    Args:
        vectors: (n_items, dim), from the training interactions alone.
        clusters: how many; none is empty.
        seed: decides the starts.

    Raises:
        ValueError: fewer different vectors than clusters.

    Source: L-DiffRec (Wang et al. 2023), section 3.3.
    Deviations: the tightest of ten runs, numbered by size; the code takes one run's numbers.
    """
    exact = np.asarray(vectors, np.float64)
    if len(np.unique(exact, axis=0)) < clusters:
        raise ValueError(f"{clusters} clusters asked of {len(np.unique(exact, axis=0))} different item vectors")
    if clusters == 1:
        return np.zeros(len(exact), np.int64)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(_RESTARTS):
        centres, labels = kmeans2(exact, clusters, iter=50, minit="++", missing="warn", rng=rng)
        if len(np.unique(labels)) == clusters:
            found.append((np.square(exact - centres[labels]).sum(), labels))
    if not found:
        raise ValueError(f"{clusters} clusters leave one empty in {_RESTARTS} runs; ask for fewer")
    labels = min(found, key=lambda run: run[0])[1]
    order = np.argsort(-np.bincount(labels), kind="stable")
    return np.argsort(order)[labels].astype(np.int64)
