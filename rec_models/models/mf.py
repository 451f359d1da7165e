"""MF: factors of ratings, with or without biases, by alternating least squares over rated items alone."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from rec_models.blocks import products_with_all
from rec_models.interactions import InteractionMatrix, ResidentInteractions, UserBatch
from rec_models.least_squares import slices_of
from rec_models.recommender import ClosedFormRecommender, RecommenderConfig
from rec_models.semantic import ModelInputs


class MFConfig(RecommenderConfig):
    """Settings of MF.

    Attributes:
        dim: factors.
        ridge: L2 penalty on factors and biases, for every rating of the row they belong to.
        biases: give users and items an offset from the mean rating; false is plain factorisation.
        sweeps: times that users and items are solved for in turn.
    """

    paper: ClassVar[str] = "Koren, Bell & Volinsky, Matrix Factorization Techniques for Recommender Systems, 2009"
    reads_ratings: ClassVar[bool] = True

    name: Literal["mf"] = "mf"
    dim: int = Field(default=10, ge=1)
    ridge: float = Field(default=0.1, gt=0)
    biases: bool = True
    sweeps: int = Field(default=20, ge=1)

    def build(self, inputs: ModelInputs) -> MF:
        """The unsolved model."""
        return MF(self, inputs.n_items, inputs.seed)


class MF(ClosedFormRecommender):
    """MF; a user is scored by the factors that their row is solved for, so users need not be known.

    Source: Koren et al. 2009, equation 4; the penalty grows with a row's ratings as in Zhou et al. 2008 (ALS-WR).
    Deviations: least squares instead of stochastic descent.
    """

    predicts_ratings = True
    items: Tensor
    mean: Tensor

    def __init__(self, config: MFConfig, n_items: int, seed: int) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        # Factors, the other side's bias is their partner: [q, 1] of an item meets [p, b] of a user, then [p, 1] [q, c].
        self.register_buffer("items", torch.zeros(n_items, config.dim + config.biases))
        self.register_buffer("mean", torch.zeros(()))

    def fit(self, train: InteractionMatrix) -> None:
        """Alternates; memory is that of the factors and of slices of normal matrices."""
        device, dim = self.items.device, self.config.dim
        if self.config.biases and train.nnz:
            self.mean = torch.full_like(self.mean, float(train.values.mean()))
        rng = torch.Generator().manual_seed(self.seed)
        own = torch.randn(train.n_items, dim, generator=rng).mul_(0.3 / dim**0.5).to(device)
        items = torch.cat([own, torch.zeros(train.n_items, int(self.config.biases), device=device)], 1)
        users = torch.zeros(train.n_users, items.shape[1], device=device)
        turned = train.transposed()
        sides = [(train, users, items), (turned, items, users)]
        rows = [ResidentInteractions(matrix, device) for matrix, _, _ in sides]
        for _ in range(self.config.sweeps):
            for (matrix, mine, theirs), resident in zip(sides, rows, strict=True):
                for some in slices_of(matrix.indptr, mine.shape[1] ** 2):
                    mine[int(some[0]) : int(some[-1]) + 1] = self._solved(resident.batch(np.asarray(some)), theirs)
        self.items = items

    def _solved(self, batch: UserBatch, others: Tensor) -> Tensor:
        """(batch, dim [+ 1]) factors, and bias, that fit the rows best; zeros for an empty one."""
        partners = others[batch.items]
        target = batch.values - self.mean
        if self.config.biases:  # their bias is part of what is known; ours meets a one
            target = target - partners[:, -1]
            partners = torch.cat([partners[:, :-1], torch.ones_like(partners[:, -1:])], 1)
        width = partners.shape[1]
        normal = torch.zeros(len(batch), width, width, device=partners.device)
        normal.index_add_(0, batch.rows, partners[:, :, None] * partners[:, None, :])
        normal.diagonal(dim1=1, dim2=2).add_(self.config.ridge * batch.lengths.clamp_min(1)[:, None])
        goal = torch.zeros(len(batch), width, device=partners.device)
        goal.index_add_(0, batch.rows, partners * target[:, None])
        return torch.linalg.solve(normal, goal)

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) predicted ratings."""
        users = self._solved(batch, self.items)
        if not self.config.biases:
            return products_with_all(users, self.items)
        offsets = users[:, -1:] + self.items[:, -1] + self.mean
        return products_with_all(users[:, :-1].contiguous(), self.items[:, :-1].contiguous()) + offsets
