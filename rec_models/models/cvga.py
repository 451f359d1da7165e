"""CVGA: a variational autoencoder whose encoder is one step over the user-item graph."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from rec_models.blocks import Init, SparseLinear, dropout_entries, dropped, linear, scores_of_all
from rec_models.gaussians import DiagonalGaussian
from rec_models.interactions import UserBatch
from rec_models.losses import decoded_multinomial_nll
from rec_models.recommender import Encoding, RecommenderConfig, VariationalRecommender, annealed
from rec_models.semantic import ModelInputs


class CVGAConfig(RecommenderConfig):
    """Settings of CVGA. It starts slowly: give `training.patience` room for several hundred epochs.

    Attributes:
        latent_dim: width of the latent; the authors used 64 on its own, 200 is that of the other bases.
        dropout: share of the encoder's outputs dropped in training, and of the entries that a language side reads.
        kl_weight: weight of the KL; `1/B` divides by the number of users of the batch once more, as the authors' code
            does. Under DMRec that is little to hold a language branch: search `matching_weight` in {1, 0.1, 1/B}, and
            begin at 1.
        kl_anneal_steps: optimiser steps over which it rises linearly from 0; 0 is constant.
        eval_sample: rank a draw from the posterior instead of its mean.
        clamp_log_variance: bound on |log-variance|; null leaves it free.
    """

    paper: ClassVar[str] = "Zhang et al., Revisiting Graph-based Recommender Systems from the Perspective of VAE, 2023"

    name: Literal["cvga"] = "cvga"
    latent_dim: int = Field(default=200, ge=1)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    kl_weight: NonNegativeFloat | Literal["1/B"] = "1/B"
    kl_anneal_steps: int = Field(default=0, ge=0)
    eval_sample: bool = False
    init: Init = "torch_default"
    clamp_log_variance: float | None = Field(default=None, gt=0)

    def build(self, inputs: ModelInputs) -> CVGA:
        """The untrained model over the graph of the training interactions."""
        degrees = torch.zeros(inputs.n_items)
        degrees.index_add_(0, torch.tensor(inputs.train.indices, dtype=torch.int64), torch.tensor(inputs.train.values))
        return CVGA(self, degrees)


class CVGA(VariationalRecommender):
    """CVGA.

    Source: Zhang et al. 2023 (TOIS) with one graph convolution, and the authors' code (ID-GRec, models/CVGA.py).
    Deviations: ranks the posterior's mean, where the code draws once more (`eval_sample`); makes the rows of a batch
    only, where the code multiplies all users in every step (the same numbers); a user's degree is that of the row
    given, so a row that grew after training needs no second graph.
    """

    item_scale: Tensor

    def __init__(self, config: CVGAConfig, item_degrees: Tensor) -> None:
        super().__init__()
        self.config = config
        self.latent_dim, self.clamp_log_variance = config.latent_dim, config.clamp_log_variance
        # From the training matrix, so no part of a checkpoint. An item nobody has keeps 0.
        scale = torch.where(item_degrees > 0, item_degrees.rsqrt(), 0.0)
        self.register_buffer("item_scale", scale, persistent=False)
        self.encoder = SparseLinear(len(item_degrees), 2 * config.latent_dim, config.init)
        self.decoder = linear(config.latent_dim, len(item_degrees), config.init)

    def propagated(self, batch: UserBatch) -> UserBatch:
        """The batch's rows of D_U^-1/2 X D_I^-1/2."""
        degrees = torch.zeros(len(batch), dtype=batch.values.dtype, device=batch.values.device)
        degrees.index_add_(0, batch.rows, batch.values)  # of a row without entries no value is asked
        return batch.with_values(batch.values * degrees.rsqrt()[batch.rows] * self.item_scale[batch.items])

    def encode(self, batch: UserBatch, rng: torch.Generator | None) -> Encoding:
        """The posterior of each user; in training moments are dropped, log-variances like means."""
        moments, rows = self.encoder(self.propagated(batch)), batch
        if rng is not None:
            moments = dropped(moments, self.config.dropout, rng)
            rows = batch.with_values(dropout_entries(batch, self.config.dropout, rng))
        return Encoding(DiagonalGaussian.from_halves(moments, self.clamp_log_variance), rows)

    def likelihood(self, z: Tensor, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """Mean negative log-likelihood of the true rows."""
        return {"reconstruction": decoded_multinomial_nll(z, self.decoder.weight, self.decoder.bias, batch)}

    def decode(self, z: Tensor) -> Tensor:
        """(batch, n_items) logits."""
        return scores_of_all(z, self.decoder)

    def divergence_weight(self, step: int, batch_size: int) -> float:
        """`kl_weight`, annealed."""
        weight = 1 / batch_size if self.config.kl_weight == "1/B" else self.config.kl_weight
        return annealed(weight, step, self.config.kl_anneal_steps)

    def point(self, posterior: DiagonalGaussian) -> Tensor:
        """(batch, latent) the mean, or the same draw for a batch whenever it is asked."""
        if not self.config.eval_sample:
            return posterior.mean
        return posterior.sample(torch.Generator(posterior.mean.device).manual_seed(0))
