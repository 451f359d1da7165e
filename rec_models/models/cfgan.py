"""CFGAN: a generator of whole rows against a discriminator that is shown the user's row beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from rec_models.adversarial import Activation, critic_loss, generator_loss, layers_of, start_at_means
from rec_models.blocks import dense_rows
from rec_models.interactions import PairBatch, ResidentInteractions, UserBatch
from rec_models.recommender import GradientRecommender, ParameterGroup, RecommenderConfig
from rec_models.semantic import ModelInputs


class CFGANConfig(RecommenderConfig):
    """Settings of CFGAN.

    Attributes:
        ratings: rows hold ratings over the highest one; false is the published model on ones.
        hidden_dims, critic_hidden_dims, activation: of generator and discriminator.
        zero_share: share of a row's other items whose output is drawn to zero, anew in every step.
        masked_share: share of a row's other items whose output the discriminator also sees; None is 0.7, and 0 with
            `ratings`: beside true rows of zeros there, what an item not rated is predicted would be held to 0.
        output_start: with `ratings` the generator's rows begin near every item's mean rating, or anywhere.
        zero_weight: weight of the squared output at the first of these; None is 0.03, and 0 with `ratings`, where
            an item that was not rated is no 0.
        reconstruction_weight: weight of the squared error at taken items, in ratings; the published model has none.
        generator_steps, critic_steps: of each a batch.
        learning_rate, critic_learning_rate, weight_decay: null takes those of `training`.
    """

    paper: ClassVar[str] = (
        "Chae et al., CFGAN: Collaborative Filtering Based on Generative Adversarial Networks, CIKM 2018"
    )

    name: Literal["cfgan"] = "cfgan"
    ratings: bool = True
    hidden_dims: tuple[int, ...] = Field(default=(400,), min_length=1)
    critic_hidden_dims: tuple[int, ...] = Field(default=(125,), min_length=1)
    activation: Activation = "sigmoid"
    zero_share: float = Field(default=0.7, ge=0, le=1)
    masked_share: float | None = Field(default=None, ge=0, le=1)
    output_start: Literal["item_means", "random"] = "item_means"
    zero_weight: float | None = Field(default=None, ge=0)
    reconstruction_weight: float = Field(default=0.1, ge=0)
    generator_steps: int = Field(default=4, ge=1)
    critic_steps: int = Field(default=2, ge=1)
    learning_rate: float | None = Field(default=1e-3, gt=0)
    critic_learning_rate: float | None = Field(default=1e-4, gt=0)
    weight_decay: float | None = Field(default=1e-3, ge=0)

    @property
    def asks_for_ratings(self) -> bool:
        """As `ratings` says."""
        return self.ratings

    def build(self, inputs: ModelInputs) -> CFGAN:
        """The untrained model."""
        return CFGAN(self, inputs)


class CFGAN(GradientRecommender):
    """CFGAN-ZP on users' rows.

    Source: Chae et al. 2018, equations 8-10; the authors' code, of which no noise enters the generator.
    Deviations: rows of users where the code's best settings turn the matrix; the shares of items are drawn anew in
    every step, where the code draws them once an epoch; the generator's turn comes first. With `ratings` it is
    what DGRM compares with: rows of ratings and a reconstruction term, its output begun at the items' means.
    """

    def __init__(self, config: CFGANConfig, inputs: ModelInputs) -> None:
        super().__init__()
        self.config, self.predicts_ratings = config, config.ratings
        values, n_items = inputs.known.values, inputs.n_items
        self.top = float(values.max()) if len(values) else 1.0
        self.generator = layers_of((n_items, *config.hidden_dims, n_items), config.activation)
        self.critic = layers_of((2 * n_items, *config.critic_hidden_dims, 1), config.activation)
        for layer in (*self.generator, *self.critic):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        if config.ratings and config.output_start == "item_means":
            start_at_means(cast(nn.Linear, self.generator[-1]), inputs.train, self.top)

    def batches(
        self, history: ResidentInteractions, order: np.random.Generator, size: int
    ) -> Iterator[UserBatch | PairBatch]:
        """Every batch in the generator's turns and then in the discriminator's."""
        for batch in super().batches(history, order, size):
            for _ in range(self.config.generator_steps):
                yield replace(cast(UserBatch, batch), turn="generator")
            for _ in range(self.config.critic_steps):
                yield replace(cast(UserBatch, batch), turn="critic")

    def loss(self, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """In a critic's turn how badly it tells true rows from made ones, else what the generator is held to."""
        config = self.config
        rows = dense_rows(batch.with_values(batch.values / self.top))
        taken = dense_rows(batch.with_values(torch.ones_like(batch.values)))
        made = self.generator(rows)
        masked_share = (0.0 if config.ratings else 0.7) if config.masked_share is None else config.masked_share
        shown = (taken + self._others(taken, masked_share, rng)) * made
        verdict = self.critic(torch.cat([rows, shown], 1)).squeeze(1)
        if batch.turn == "critic":
            return {"critic": critic_loss(self.critic(torch.cat([rows, rows], 1)).squeeze(1), verdict, "kl")}
        errors = self.top**2 * ((made - rows) * taken).square().sum(1).mean()
        terms = {
            **({"reconstruction": config.reconstruction_weight * errors} if config.reconstruction_weight else {}),
            "adversarial": generator_loss(verdict, "kl"),
        }
        if weight := (0.0 if config.ratings else 0.03) if config.zero_weight is None else config.zero_weight:
            zeros = self._others(taken, config.zero_share, rng)
            terms["zeros"] = weight * (made * zeros).square().sum(1).mean()
        return terms

    @staticmethod
    def _others(taken: Tensor, share: float, rng: torch.Generator) -> Tensor:
        """(batch, n_items) ones at a share of the items that were not taken."""
        drawn = torch.rand(taken.shape, generator=rng, device=taken.device) < share
        return drawn * (1 - taken)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Generator and discriminator, which learn in turns."""
        config, decay = self.config, self.config.weight_decay
        sides = (self.generator, config.learning_rate), (self.critic, config.critic_learning_rate)
        return [
            ParameterGroup(name, list(side.parameters()), rate, decay)
            for name, (side, rate) in zip(("generator", "critic"), sides, strict=True)
        ]

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) the generator's rows, on the scale of the ratings."""
        return self.generator(dense_rows(batch.with_values(batch.values / self.top))) * self.top
