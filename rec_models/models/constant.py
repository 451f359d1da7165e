"""One rating for everything: what a protocol gives away for nothing."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from rec_models.interactions import InteractionMatrix, UserBatch
from rec_models.recommender import ClosedFormRecommender, RecommenderConfig
from rec_models.semantic import ModelInputs


class ConstantConfig(RecommenderConfig):
    """Settings of the constant.

    Attributes:
        rating: what everything is rated; None takes the mean of the training ratings.
    """

    paper: ClassVar[str] = "none: the trivial predictor that shows what a protocol of rated items alone is worth"
    reads_ratings: ClassVar[bool] = True

    name: Literal["constant"] = "constant"
    rating: float | None = None

    def build(self, inputs: ModelInputs) -> Constant:
        """The unsolved model."""
        return Constant(self, inputs.n_items)


class Constant(ClosedFormRecommender):
    """The same score for every item and user; the order of its lists is that of ties.

    Source: none.
    Deviations: none.
    """

    predicts_ratings = True
    rating: Tensor

    def __init__(self, config: ConstantConfig, n_items: int) -> None:
        super().__init__()
        self.config, self.n_items = config, n_items
        self.register_buffer("rating", torch.zeros(()))

    def fit(self, train: InteractionMatrix) -> None:
        """Takes the mean, unless a rating is given."""
        mean = float(train.values.mean()) if train.nnz else 0.0
        self.rating = torch.full_like(self.rating, mean if self.config.rating is None else self.config.rating)

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) the rating."""
        return self.rating.expand(len(batch), self.n_items).clone()
