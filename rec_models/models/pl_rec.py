"""PLRec: every item regressed on the low-rank projection of a user's row."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import diags_array
from torch import Tensor

from rec_models.blocks import products_with_all, rows_times
from rec_models.interactions import InteractionMatrix, UserBatch
from rec_models.least_squares import right_singular_vectors
from rec_models.recommender import ClosedFormRecommender, RecommenderConfig
from rec_models.semantic import ModelInputs


class PLRecConfig(RecommenderConfig):
    """Settings of PLRec.

    Attributes:
        dim: singular vectors that rows are projected on; at most the smaller side of the matrix is used.
        ridge: L2 penalty of the regression.
        popularity_power: columns are divided by their item's popularity to this power before they are projected.
    """

    paper: ClassVar[str] = "Sedhain et al., Practical Linear Models for Large-Scale One-Class Collaborative Filtering"

    name: Literal["pl_rec"] = "pl_rec"
    dim: int = Field(default=64, ge=1)
    ridge: float = Field(default=100.0, gt=0)
    popularity_power: float = Field(default=0.2, ge=0)

    def build(self, inputs: ModelInputs) -> PLRec:
        """The unsolved model."""
        return PLRec(self, inputs)


class PLRec(ClosedFormRecommender):
    """PLRec.

    Source: Sedhain et al. 2016 (IJCAI).
    Deviations: all items have the same penalty. Columns may be scaled before the projection, against the dominance of
    popular items (`popularity_power`); 0 is the paper.
    """

    projection: Tensor
    regression: Tensor

    def __init__(self, config: PLRecConfig, inputs: ModelInputs) -> None:
        super().__init__()
        self.config, self.seed = config, inputs.seed
        self.rank = min(config.dim, inputs.n_users, inputs.n_items)
        self.register_buffer("projection", torch.zeros(inputs.n_items, self.rank))
        self.register_buffer("regression", torch.zeros(inputs.n_items, self.rank))

    def fit(self, train: InteractionMatrix) -> None:
        """Projects and regresses; memory is a few (n_users + n_items, dim) float64 matrices."""
        rows = train.csr(np.float64)
        scale = np.maximum(train.item_counts(), 1) ** -self.config.popularity_power
        vectors = right_singular_vectors(rows @ diags_array(scale), self.rank, np.random.default_rng(self.seed))
        projection = scale[:, None] * vectors
        latents = rows @ projection
        penalised = latents.T @ latents + self.config.ridge * np.eye(self.rank)
        regression = np.linalg.solve(penalised, (rows.T @ latents).T).T
        device = self.projection.device
        self.projection = torch.from_numpy(projection.astype(np.float32)).to(device)
        self.regression = torch.from_numpy(np.ascontiguousarray(regression, np.float32)).to(device)

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items)."""
        return products_with_all(rows_times(batch, self.projection), self.regression)
