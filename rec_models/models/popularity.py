"""Most popular: every user is shown what most users took."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from rec_models.interactions import InteractionMatrix, UserBatch
from rec_models.recommender import ClosedFormRecommender, RecommenderConfig
from rec_models.semantic import ModelInputs


class PopularityConfig(RecommenderConfig):
    """Most popular has no settings."""

    paper: ClassVar[str] = "none: the trivial predictor every other number is read against"

    name: Literal["popularity"] = "popularity"

    def build(self, inputs: ModelInputs) -> Popularity:
        """The unsolved model."""
        return Popularity(inputs.n_items)


class Popularity(ClosedFormRecommender):
    """An item's score is its number of training users.

    Source: none.
    Deviations: none. Ties are broken by the lower item index, in the evaluation.
    """

    counts: Tensor

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(n_items))

    def fit(self, train: InteractionMatrix) -> None:
        """Counts training users an item."""
        self.counts = torch.from_numpy(train.item_counts()).to(self.counts.device, torch.float32)

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) the same row for everybody."""
        return self.counts.expand(len(batch), -1).clone()
