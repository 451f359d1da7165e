"""Item-item models with a few neighbours an item: which items are near, and scores from their weights."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from rec_models.interactions import InteractionMatrix, UserBatch
from rec_models.recommender import ClosedFormRecommender

Weighting = Literal["none", "tfidf", "bm25"]
BM25_SATURATION, BM25_LENGTH = 1.2, 0.75

# Items whose products with all others are dense at once: 512 x 20,000 float32 are 40 MB.
_ITEMS_AT_ONCE = 512


class ItemWeights(ClosedFormRecommender):
    """An item's score is the weighted number of its neighbours that the user took.

    Attributes:
        neighbours: (n_items, k) int32, the items that speak for each item.
        weights: (n_items, k) float32, 0 where an item has fewer neighbours.
    """

    neighbours: Tensor
    weights: Tensor

    def __init__(self, n_items: int, k: int) -> None:
        super().__init__()
        k = min(k, max(1, n_items - 1))
        self.register_buffer("neighbours", torch.zeros(n_items, k, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(n_items, k))

    def keep(self, neighbours: Tensor, weights: Tensor) -> None:
        """Takes solved neighbours and weights to where the model is."""
        self.neighbours = neighbours.to(self.neighbours.device, torch.int32)
        self.weights = weights.to(self.weights.device, torch.float32)

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items)."""
        taken = torch.zeros(batch.n_items, len(batch), device=batch.values.device)
        taken[batch.items, batch.rows] = batch.values
        # A bag an item: sum over its neighbours of weight * who took them. (n_items, k) of (n_items, batch)
        return F.embedding_bag(self.neighbours, taken, mode="sum", per_sample_weights=self.weights).t().contiguous()


def weighted_rows(train: InteractionMatrix, weighting: Weighting) -> csr_array:
    """(n_users, n_items) the interactions, those of busy users made lighter; float64.

    Source: tf-idf and BM25 with items as documents and users as words, k1 1.2 and b 0.75.
    Deviations: smoothed inverse frequencies ln((1 + n) / (1 + count)) + 1 and ln(1 + (n - count + 0.5) / (count +
    0.5)), so that a user who took everything still counts.
    """
    rows = train.csr(np.float64)
    if weighting == "none":
        return rows
    counts, n_items = train.lengths(), train.n_items
    if weighting == "tfidf":
        rarity = np.log((1 + n_items) / (1 + counts)) + 1
    else:
        rarity = np.log1p((n_items - counts + 0.5) / (counts + 0.5))
        lengths = train.item_counts() / max(1e-12, train.item_counts().mean())
        bound = BM25_SATURATION * (1 - BM25_LENGTH + BM25_LENGTH * lengths[rows.indices])
        rows.data = rows.data * (BM25_SATURATION + 1) / (rows.data + bound)
    rows.data *= np.repeat(rarity, counts)
    return rows


def nearest_items(rows: csr_array, k: int, shrinkage: float) -> tuple[Tensor, Tensor]:
    """(n_items, k) int64 the most similar other items, and their similarities in [0, 1], 0 where items share no user.

    Similarity is the cosine of two columns with `shrinkage` added to its denominator. Memory is a slice of products of
    items with all items.
    """
    columns = rows.tocsc()
    norms = np.sqrt(np.asarray(columns.power(2).sum(0)).ravel())
    by_item, n_items = columns.T.tocsr(), len(norms)
    k = min(k, max(1, n_items - 1))
    found = torch.zeros(n_items, k, dtype=torch.int64), torch.zeros(n_items, k)
    for start in range(0, n_items, _ITEMS_AT_ONCE):
        chosen = slice(start, min(start + _ITEMS_AT_ONCE, n_items))
        products: NDArray[np.float64] = (by_item[chosen] @ rows).toarray()
        products /= np.maximum(norms[chosen, None] * norms + shrinkage, 1e-12)
        products[np.arange(len(products)), np.arange(chosen.start, chosen.stop)] = -1  # below items that share nobody
        best = torch.topk(torch.from_numpy(products), k, dim=1)
        found[0][chosen], found[1][chosen] = best.indices, best.values.float().clamp_min(0)
    return found
