"""SLIM: sparse non-negative item-item weights by elastic net over each item's nearest items."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from rec_models.interactions import InteractionMatrix
from rec_models.item_weights import ItemWeights, nearest_items
from rec_models.recommender import RecommenderConfig
from rec_models.semantic import ModelInputs

# Items solved together: 256 float32 Gram matrices of 200 neighbours are 41 MB.
_ITEMS_AT_ONCE = 256
# A pass that changes no weight by more is the last.
_SETTLED = 1e-5


class SLIMConfig(RecommenderConfig):
    """Settings of SLIM.

    Attributes:
        k: nearest items by cosine that may get a weight.
        l1, l2: penalties on weights; half of the squared error is what they stand beside.
        passes: rounds of coordinate descent over the neighbours of an item, at most.
    """

    paper: ClassVar[str] = "Ning & Karypis, SLIM: Sparse Linear Methods for Top-N Recommender Systems, ICDM 2011"

    name: Literal["slim"] = "slim"
    k: int = Field(default=200, ge=1)
    l1: float = Field(default=0.3, ge=0)
    l2: float = Field(default=200.0, gt=0)
    passes: int = Field(default=30, ge=1)

    def build(self, inputs: ModelInputs) -> SLIM:
        """The unsolved model."""
        return SLIM(self, inputs.n_items)


class SLIM(ItemWeights):
    """SLIM with feature selection by cosine (fsSLIM).

    Source: Ning & Karypis 2011, equation 3, with the feature selection of fsSLIM.
    Deviations: feature selection always; with `k` as large as the catalogue it is SLIM without. Weights are never
    negative, as in the paper; many libraries allow it.
    """

    def __init__(self, config: SLIMConfig, n_items: int) -> None:
        super().__init__(n_items, config.k)
        self.config = config

    def fit(self, train: InteractionMatrix) -> None:
        """Solves a problem of k weights for every item; memory is that of the neighbours and of 256 k x k matrices."""
        rows = train.csr()
        neighbours, _ = nearest_items(rows, self.config.k, 0.0)
        columns, weights = rows.tocsc(), torch.zeros(neighbours.shape)
        for start in range(0, len(neighbours), _ITEMS_AT_ONCE):
            some = range(start, min(start + _ITEMS_AT_ONCE, len(neighbours)))
            products, goals = [], []
            for item in some:
                near = columns[:, neighbours[item].numpy()]
                products.append((near.T @ near).toarray())
                goals.append((near.T @ columns[:, [item]]).toarray()[:, 0])
            weights[some.start : some.stop] = self._descend(
                torch.from_numpy(np.stack(products)), torch.from_numpy(np.stack(goals))
            )
        self.keep(neighbours, weights)

    def _descend(self, products: Tensor, goals: Tensor) -> Tensor:
        """(items, k) non-negative weights from (items, k, k) Gram matrices and (items, k) products with the item."""
        weights, gradients = torch.zeros_like(goals), goals.clone()  # X^T (x - X w), kept as weights change
        squares = products.diagonal(dim1=1, dim2=2)
        for _ in range(self.config.passes):
            before = weights.clone()
            for place in range(weights.shape[1]):
                old, square = weights[:, place], squares[:, place]
                new = (gradients[:, place] + square * old - self.config.l1).clamp_min(0) / (square + self.config.l2)
                gradients -= products[:, :, place] * (new - old)[:, None]
                weights[:, place] = new
            if (weights - before).abs().max() < _SETTLED:
                break
        return weights
