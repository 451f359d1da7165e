"""AutoRec: an autoencoder of a user's ratings that is judged at rated items alone."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rec_models.blocks import SparseLinear, dropout_entries, scores_of_all
from rec_models.interactions import UserBatch
from rec_models.recommender import GradientRecommender, RecommenderConfig
from rec_models.semantic import ModelInputs


class AutoRecConfig(RecommenderConfig):
    """Settings of AutoRec.

    Attributes:
        hidden_dim: width of the one hidden layer.
        dropout: share of rated items hidden from the input in training.
        l2_weight: penalty on the squares of both layers' weights, a batch.
    """

    paper: ClassVar[str] = "Sedhain et al., AutoRec: Autoencoders Meet Collaborative Filtering, WWW 2015"
    reads_ratings: ClassVar[bool] = True

    name: Literal["auto_rec"] = "auto_rec"
    hidden_dim: int = Field(default=64, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    l2_weight: float = Field(default=1e-3, ge=0)

    def build(self, inputs: ModelInputs) -> AutoRec:
        """The untrained model."""
        return AutoRec(self, inputs)


class AutoRec(GradientRecommender):
    """U-AutoRec.

    Source: Sedhain et al. 2015, equations 1 and 2.
    Deviations: rows of users, so that new ones can be served; ratings enter and leave without their item's damped mean,
    and inputs are dropped, without which the hidden layer learns to repeat them.
    """

    predicts_ratings = True
    means: Tensor

    def __init__(self, config: AutoRecConfig, inputs: ModelInputs) -> None:
        super().__init__()
        self.config = config
        self.encoder = SparseLinear(inputs.n_items, config.hidden_dim, "xavier_uniform")
        self.decoder = nn.Linear(config.hidden_dim, inputs.n_items)
        nn.init.xavier_uniform_(self.decoder.weight)
        nn.init.zeros_(self.decoder.bias)
        self.register_buffer("means", torch.from_numpy(inputs.train.damped_item_means(10.0)))

    def hidden(self, rows: UserBatch) -> Tensor:
        """(batch, hidden) of ratings without their items' means."""
        return torch.sigmoid(self.encoder(rows))

    def centred(self, batch: UserBatch) -> UserBatch:
        """The entries less their items' means."""
        return batch.with_values(batch.values - self.means[batch.items])

    def loss(self, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """The mean squared error at rated items, and the penalty."""
        true = self.centred(batch)
        hidden = self.hidden(true.with_values(dropout_entries(true, self.config.dropout, rng)))
        found = (hidden[batch.rows] * self.decoder.weight[batch.items]).sum(1) + self.decoder.bias[batch.items]
        squares = self.encoder.weight.square().sum() + self.decoder.weight.square().sum()
        return {
            "reconstruction": (found - true.values).square().mean(),
            "l2": 0.5 * self.config.l2_weight * squares / len(batch),
        }

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) predicted ratings."""
        return scores_of_all(self.hidden(self.centred(batch)), self.decoder) + self.means
