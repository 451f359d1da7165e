"""NCF: a product of vectors and a network over their concatenation, added up into one score."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rec_models.interactions import PairBatch, ResidentInteractions, UserBatch
from rec_models.recommender import GradientRecommender, RecommenderConfig
from rec_models.semantic import ModelInputs

# Numbers of the hidden layer over users and items that are held at once when everything is scored.
_CELLS_AT_ONCE = 1 << 22


class NCFConfig(RecommenderConfig):
    """Settings of NCF.

    Attributes:
        ratings: learn ratings at rated items by squared error, instead of taken items against `negatives`.
        dim: width of either side's two vectors.
        hidden_dims: layers of the network.
        negatives: items drawn for each taken one.
        batch_pairs: interactions an optimiser step.
        l2_weight: penalty on the squares of the vectors a batch reads, a mean over its pairs.
    """

    paper: ClassVar[str] = "He et al., Neural Collaborative Filtering, WWW 2017 (NeuMF)"
    scores_new_users: ClassVar[bool] = False

    name: Literal["ncf"] = "ncf"
    ratings: bool = False
    dim: int = Field(default=16, ge=1)
    hidden_dims: tuple[int, ...] = Field(default=(32, 16), min_length=1)
    negatives: int = Field(default=4, ge=1)
    batch_pairs: int = Field(default=1024, ge=1)
    l2_weight: float = Field(default=1e-3, ge=0)

    @property
    def asks_for_ratings(self) -> bool:
        """As `ratings` says."""
        return self.ratings

    def build(self, inputs: ModelInputs) -> NCF:
        """The untrained model."""
        return NCF(self, inputs)


class NCF(GradientRecommender):
    """NeuMF.

    Source: He et al. 2017, equations 8-12.
    Deviations: trained from the start, without the pretraining of its halves; an L2 penalty on vectors. With `ratings`
    squared error at rated items, the score an offset from their mean.
    """

    def __init__(self, config: NCFConfig, inputs: ModelInputs) -> None:
        super().__init__()
        self.config, self.predicts_ratings = config, config.ratings
        train, dim = inputs.train, config.dim
        self.mean = float(train.values.mean()) if config.ratings and train.nnz else 0.0
        self.users, self.items = (nn.Embedding(n, 2 * dim) for n in train.shape)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.1)
        self.of_user, self.of_item = nn.Linear(dim, config.hidden_dims[0]), nn.Linear(dim, config.hidden_dims[0])
        widths = (*config.hidden_dims, 1)
        self.others = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.product = nn.Linear(dim, 1)

    def batches(
        self, history: ResidentInteractions, order: np.random.Generator, size: int
    ) -> Iterator[UserBatch | PairBatch]:
        """Every interaction once, `batch_pairs` at a time; `size`, which counts users, has no say."""
        entries = order.permutation(history.paired)
        for start in range(0, len(entries), self.config.batch_pairs):
            yield history.pairs(entries[start : start + self.config.batch_pairs])

    def loss(self, batch: PairBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """The error of the pairs' ratings, or how well they are told from items that were not taken."""
        users, items = self.users(batch.users), self.items(batch.items)
        found = self._scored(users, items)
        if self.config.ratings:
            fit = (found + self.mean - batch.values).square().mean()
        else:
            drawn = self.items(batch.negatives(rng, self.config.negatives))
            others = self._scored(users[:, None].expand_as(drawn), drawn)
            fit = F.softplus(-found).mean() + F.softplus(others).sum(1).mean()
        squares = 0.5 * (users.square().sum(1) + items.square().sum(1)).mean()
        return {"fit": fit, "l2": self.config.l2_weight * squares}

    def _scored(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores (...,) of vectors (..., 2 * dim) side by side."""
        (p, u), (q, i) = users.chunk(2, -1), items.chunk(2, -1)
        return (self.product(p * q) + self._through(self.of_user(u) + self.of_item(i))).squeeze(-1)

    def _through(self, hidden: Tensor) -> Tensor:
        for layer in self.others:
            hidden = layer(F.relu(hidden))
        return hidden

    @torch.no_grad()
    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items), a slice of items at a time: the hidden layer over all of them is never there."""
        (p, u), (q, i) = self.users(batch.users).chunk(2, 1), self.items.weight.chunk(2, 1)
        out = (p * self.product.weight) @ q.t() + (self.product.bias + self.mean)
        of_user, of_item = self.of_user(u), self.of_item(i)
        at_once = max(1, _CELLS_AT_ONCE // max(1, of_user.numel()))
        for start in range(0, len(of_item), at_once):
            some = slice(start, start + at_once)
            out[:, some] += self._through(of_user[:, None] + of_item[some]).squeeze(-1)
        return out
