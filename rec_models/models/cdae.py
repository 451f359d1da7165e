"""CDAE: a denoising autoencoder of interaction rows with a vector of its own for every user."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rec_models.blocks import SparseLinear, dropout_entries, scores_of_all
from rec_models.interactions import UserBatch
from rec_models.losses import decoded_multinomial_nll
from rec_models.recommender import GradientRecommender, RecommenderConfig
from rec_models.semantic import ModelInputs


class CDAEConfig(RecommenderConfig):
    """Settings of CDAE.

    Attributes:
        hidden_dim: width of the one hidden layer.
        dropout: share of input entries dropped in training.
        activation: of the hidden layer.
        loss: `multinomial` over all items, or `logistic` over what a user took and `negatives` drawn for each of those.
        user_vectors: add a vector of the user's own to the hidden layer; users who were not trained have zeros.
    """

    paper: ClassVar[str] = "Wu et al., Collaborative Denoising Auto-Encoders for Top-N Recommender Systems, WSDM 2016"

    name: Literal["cdae"] = "cdae"
    hidden_dim: int = Field(default=200, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    activation: Literal["tanh", "sigmoid"] = "tanh"
    loss: Literal["multinomial", "logistic"] = "multinomial"
    negatives: int = Field(default=5, ge=1)
    user_vectors: bool = True

    def build(self, inputs: ModelInputs) -> CDAE:
        """The untrained model."""
        return CDAE(self, inputs.n_users, inputs.n_items)


class CDAE(GradientRecommender):
    """CDAE.

    Source: Wu et al. 2016, equations 2-6.
    Deviations: the likelihood is multinomial by default, which ranks better; `logistic` is the paper's, its negatives
    drawn uniformly with replacement, those a user took left out of the sum. Users' vectors begin at 0, so that a user
    who was not trained is one without a vector.
    """

    def __init__(self, config: CDAEConfig, n_users: int, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = SparseLinear(n_items, config.hidden_dim, "xavier_uniform")
        self.decoder = nn.Linear(config.hidden_dim, n_items)
        nn.init.xavier_uniform_(self.decoder.weight)
        nn.init.zeros_(self.decoder.bias)
        self.user_table = nn.Parameter(torch.zeros(n_users, config.hidden_dim)) if config.user_vectors else None

    def hidden(self, rows: UserBatch) -> Tensor:
        """(batch, hidden)."""
        mixed = self.encoder(rows)
        if self.user_table is not None:
            known = rows.users < len(self.user_table)
            mixed = mixed + self.user_table[rows.users * known] * known[:, None]
        return torch.tanh(mixed) if self.config.activation == "tanh" else torch.sigmoid(mixed)

    def loss(self, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """The likelihood of the true rows given rows with entries dropped, in nats a user."""
        hidden = self.hidden(batch.with_values(dropout_entries(batch, self.config.dropout, rng)))
        if self.config.loss == "multinomial":
            nll = decoded_multinomial_nll(hidden, self.decoder.weight, self.decoder.bias, batch)
        else:
            nll = self._logistic(hidden, batch, rng)
        return {"reconstruction": nll}

    def _logistic(self, hidden: Tensor, batch: UserBatch, rng: torch.Generator) -> Tensor:
        count, n_items = self.config.negatives, batch.n_items
        rows = batch.rows.repeat_interleave(count)
        drawn = torch.randint(n_items, rows.shape, generator=rng, device=rows.device)
        keys = batch.rows * n_items + batch.items  # ascending, as the batch's entries are
        place = torch.searchsorted(keys, rows * n_items + drawn).clamp_max(max(len(keys) - 1, 0))
        untaken = keys[place] != rows * n_items + drawn
        positive = F.softplus(-self._logits(hidden, batch.rows, batch.items)).sum()
        return (positive + (F.softplus(self._logits(hidden, rows, drawn)) * untaken).sum()) / len(batch)

    def _logits(self, hidden: Tensor, rows: Tensor, items: Tensor) -> Tensor:
        return ((hidden[rows] * self.decoder.weight[items]).sum(1) + self.decoder.bias[items]).float()

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) logits."""
        return scores_of_all(self.hidden(batch), self.decoder)
