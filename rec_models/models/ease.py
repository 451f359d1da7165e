"""EASE: an item-item regression with a zero diagonal, solved in closed form."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import scipy.sparse
import torch
from pydantic import Field
from torch import Tensor

from rec_models.blocks import rows_times
from rec_models.interactions import InteractionMatrix, UserBatch
from rec_models.recommender import ClosedFormRecommender, RecommenderConfig
from rec_models.semantic import ModelInputs


class EASEConfig(RecommenderConfig):
    """Settings of EASE.

    Attributes:
        regularization: L2 penalty on the item-item weights; sparse data wants thousands, dense data hundreds.
    """

    paper: ClassVar[str] = "Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019"

    name: Literal["ease"] = "ease"
    regularization: float = Field(default=500.0, gt=0)

    def build(self, inputs: ModelInputs) -> EASE:
        """The unsolved model."""
        return EASE(self, inputs.n_items)


class EASE(ClosedFormRecommender):
    """EASE.

    Source: Steck 2019, equation 8.
    Deviations: none. The inverse is taken through a float32 Cholesky factor.
    """

    item_weights: Tensor

    def __init__(self, config: EASEConfig, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("item_weights", torch.zeros(n_items, n_items))

    def fit(self, train: InteractionMatrix) -> None:
        """Solves for the item-item weights; memory is about three n_items^2 float32 matrices."""
        device = self.item_weights.device
        rows = scipy.sparse.csr_array(
            (np.array(train.values), np.array(train.indices), np.array(train.indptr)), train.shape
        )
        gram = torch.from_numpy((rows.T @ rows).toarray().astype(np.float32)).to(device)
        gram.diagonal().add_(self.config.regularization)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        weights = inverse.div_(-inverse.diagonal().clone())  # column j over -P_jj
        weights.fill_diagonal_(0)
        self.item_weights = weights

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) history times item-item weights."""
        return rows_times(batch, self.item_weights)
