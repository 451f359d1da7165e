"""The mean rating of each item, which knows nothing of who asks."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from rec_models.interactions import InteractionMatrix, UserBatch
from rec_models.recommender import ClosedFormRecommender, RecommenderConfig
from rec_models.semantic import ModelInputs


class ItemMeanConfig(RecommenderConfig):
    """Settings of the item mean.

    Attributes:
        damping: how many ratings at the mean of all an item begins with.
    """

    paper: ClassVar[str] = "none: the trivial predictor that a model of ratings has to beat"
    reads_ratings: ClassVar[bool] = True

    name: Literal["item_mean"] = "item_mean"
    damping: float = Field(default=10.0, gt=0)

    def build(self, inputs: ModelInputs) -> ItemMean:
        """The unsolved model."""
        return ItemMean(self, inputs.n_items)


class ItemMean(ClosedFormRecommender):
    """An item's score is the damped mean of its training ratings.

    Source: Funk 2006, "Try this at home", the better mean.
    Deviations: none.
    """

    predicts_ratings = True
    means: Tensor

    def __init__(self, config: ItemMeanConfig, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("means", torch.zeros(n_items))

    def fit(self, train: InteractionMatrix) -> None:
        """Sums ratings an item."""
        self.means = torch.from_numpy(train.damped_item_means(self.config.damping)).to(self.means.device)

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) the same row for everybody."""
        return self.means.expand(len(batch), -1).clone()
