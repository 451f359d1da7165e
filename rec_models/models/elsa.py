"""ELSA: an item-item matrix of low rank with a zero diagonal, descended on without ever predicting a whole row."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rec_models.blocks import products_with_all, rows_times
from rec_models.interactions import UserBatch
from rec_models.recommender import GradientRecommender, ParameterGroup, RecommenderConfig
from rec_models.semantic import ModelInputs


class ELSAConfig(RecommenderConfig):
    """Settings of ELSA.

    Attributes:
        dim: rank of the item-item matrix.
        learning_rate: its own, as large as the authors'; null takes that of training.
    """

    paper: ClassVar[str] = (
        "Vančura et al., Scalable Linear Shallow Autoencoder for Collaborative Filtering, RecSys 2022"
    )

    name: Literal["elsa"] = "elsa"
    dim: int = Field(default=256, ge=1)
    learning_rate: float | None = Field(default=0.1, gt=0)

    def build(self, inputs: ModelInputs) -> ELSA:
        """The untrained model."""
        return ELSA(self, inputs.n_items)


class ELSA(GradientRecommender):
    """ELSA.

    Source: Vančura et al. 2022, equations 4 and 5.
    Deviations: Adam instead of NAdam. The distance between unit rows of prediction and history is 2 - 2 cosine, which
    needs only x A and A^T A: nothing of (batch, n_items) is made. It is a sum over items, the code's a mean over them,
    which Adam does not see.
    """

    def __init__(self, config: ELSAConfig, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_items, config.dim)))

    def loss(self, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """Mean squared distance between the unit rows of x A A^T - x and x."""
        items = F.normalize(self.items, dim=-1)
        users = rows_times(batch, items)  # (batch, dim): x A
        length = users.new_zeros(len(batch)).index_add_(0, batch.rows, batch.values.square())  # |x|^2
        along = users.square().sum(-1)  # <x A A^T, x>
        squared = ((users @ (items.t() @ items)) * users).sum(-1) - 2 * along + length  # |x A A^T - x|^2
        cosine = (along - length) / (squared.clamp_min(1e-12) * length.clamp_min(1e-12)).sqrt()
        return {"reconstruction": (2 - 2 * cosine).mean()}

    @torch.no_grad()
    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) x A A^T - x."""
        items = F.normalize(self.items, dim=-1)
        scores = products_with_all(rows_times(batch, items), items)
        return scores.index_put_((batch.rows, batch.items), -batch.values, accumulate=True)

    def parameter_groups(self) -> list[ParameterGroup]:
        """One, at its own learning rate."""
        return [ParameterGroup("items", [self.items], self.config.learning_rate)]
