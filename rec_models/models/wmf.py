"""WMF: weighted matrix factorisation of implicit feedback by alternating least squares."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from rec_models.blocks import products_with_all
from rec_models.interactions import InteractionMatrix, ResidentInteractions, UserBatch
from rec_models.least_squares import RidgeRows, slices_of
from rec_models.recommender import ClosedFormRecommender, RecommenderConfig
from rec_models.semantic import ModelInputs


class WMFConfig(RecommenderConfig):
    """Settings of WMF.

    Attributes:
        dim: width of the vectors.
        confidence: what a taken item counts beyond the 1 of every other; 0 is plain matrix factorisation.
        ridge: L2 penalty on the vectors of users and items.
        sweeps: times that users and items are solved for in turn.
        solver_steps: of conjugate gradients a sweep, begun where the last sweep ended.
        fold_in_steps: the same for a user who is scored, begun from nothing.
    """

    paper: ClassVar[str] = "Hu, Koren & Volinsky, Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008"

    name: Literal["wmf"] = "wmf"
    dim: int = Field(default=64, ge=1)
    confidence: float = Field(default=40.0, ge=0)
    ridge: float = Field(default=100.0, gt=0)
    sweeps: int = Field(default=15, ge=1)
    solver_steps: int = Field(default=3, ge=1)
    fold_in_steps: int = Field(default=30, ge=1)

    def build(self, inputs: ModelInputs) -> WMF:
        """The unsolved model."""
        return WMF(self, inputs.n_items, inputs.seed)


class WMF(ClosedFormRecommender):
    """WMF; a user is scored by the vector that their row is solved for, so users need not be known.

    Source: Hu et al. 2008, equations 3-5.
    Deviations: conjugate gradients instead of an inverse a user (`rec_models.least_squares.RidgeRows`). The users'
    vectors of the last sweep are not kept: folding a row in gives the minimum for the items as they are now.
    """

    item_factors: Tensor

    def __init__(self, config: WMFConfig, n_items: int, seed: int) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.register_buffer("item_factors", torch.zeros(n_items, config.dim))

    def fit(self, train: InteractionMatrix) -> None:
        """Alternates; memory is that of both tables and of slices of gathered vectors."""
        device, dim = self.item_factors.device, self.config.dim
        rng = torch.Generator().manual_seed(self.seed)
        users = torch.zeros(train.n_users, dim, device=device)
        items = torch.randn(train.n_items, dim, generator=rng).mul_(0.1 / dim**0.5).to(device)
        sides = (train, ResidentInteractions(train, device)), _by_item(train, device)
        for _ in range(self.config.sweeps):
            self._solve(*sides[0], users, items)
            self._solve(*sides[1], items, users)
        self.item_factors = items

    def _solve(self, matrix: InteractionMatrix, rows: ResidentInteractions, own: Tensor, others: Tensor) -> None:
        solver = RidgeRows(others, confidence=self.config.confidence, ridge=self.config.ridge)
        for some in slices_of(matrix.indptr, self.config.dim):
            chosen = slice(int(some[0]), int(some[-1]) + 1)
            own[chosen] = solver.solve(rows.batch(some), steps=self.config.solver_steps, start=own[chosen])

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) products of the users' folded-in vectors with the items'."""
        solver = RidgeRows(self.item_factors, confidence=self.config.confidence, ridge=self.config.ridge)
        users = solver.solve(batch, steps=self.config.fold_in_steps)
        return products_with_all(users, self.item_factors)


def _by_item(train: InteractionMatrix, device: torch.device) -> tuple[InteractionMatrix, ResidentInteractions]:
    turned = train.transposed()
    return turned, ResidentInteractions(turned, device)
