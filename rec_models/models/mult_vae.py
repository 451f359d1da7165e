"""Mult-VAE: a variational autoencoder of whole interaction rows with a multinomial likelihood."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from rec_models.blocks import Init, SparseLinear, dropout_entries, l2_normalised, linear, scores_of_all
from rec_models.gaussians import DiagonalGaussian
from rec_models.interactions import UserBatch
from rec_models.losses import decoded_multinomial_nll
from rec_models.normalizing import (
    ConditionedGaussian,
    DecodeFrom,
    InverseAutoregressiveFlow,
    divergence_of_flow,
)
from rec_models.recommender import Draw, Encoding, RecommenderConfig, VariationalRecommender, annealed
from rec_models.sampled import sampled_multinomial_nll
from rec_models.semantic import ModelInputs


class MultVAEConfig(RecommenderConfig):
    """Settings of Mult-VAE; the defaults are those of DMRec's base, not of the original paper.

    Attributes:
        hidden_dim: width of the one hidden layer on either side.
        encoder_layers: hidden layers of the encoder, all of that width; 3 is the deeper encoder of PIA's paper.
        latent_dim: width of the latent.
        flow_layers, flow_hidden_dim: inverse autoregressive layers after the encoder, and the units in each; 2 layers
            are PIA's variant.
        decode_from: the `end` of the flow, or its `start`: then the flow only shapes the prior.
        dropout: share of input entries dropped in training.
        input_norm: `none` feeds 0/1 rows (DMRec), `l2` unit rows (the original paper).
        kl_weight: weight of the KL once annealing is over.
        kl_anneal_steps: optimiser steps over which it rises linearly from 0; 0 is constant.
        clamp_log_variance: bound on |log-variance|; null leaves it free.
        sampled_items: items drawn a step which, with those of the batch, stand for the catalogue in the likelihood;
            the tables of items are then learned row by row, which makes a step as long as a batch is, not the
            catalogue (`rec_models.sampled`). Null takes all items.
    """

    paper: ClassVar[str] = "Liang et al., Variational Autoencoders for Collaborative Filtering, WWW 2018"

    name: Literal["mult_vae"] = "mult_vae"
    hidden_dim: int = Field(default=600, ge=1)
    encoder_layers: int = Field(default=1, ge=1)
    latent_dim: int = Field(default=200, ge=1)
    flow_layers: int = Field(default=0, ge=0)
    flow_hidden_dim: int = Field(default=400, ge=1)
    decode_from: DecodeFrom = "end"
    dropout: float = Field(default=0.3, ge=0, lt=1)
    input_norm: Literal["none", "l2"] = "none"
    kl_weight: float = Field(default=1.0, ge=0)
    kl_anneal_steps: int = Field(default=0, ge=0)
    init: Init = "torch_default"
    clamp_log_variance: float | None = Field(default=None, gt=0)
    sampled_items: int | None = Field(default=None, ge=1)

    def build(self, inputs: ModelInputs) -> MultVAE:
        """The untrained model."""
        return MultVAE(self, inputs.n_items)


class MultVAE(VariationalRecommender):
    """Mult-VAE.

    Source: Liang et al. 2018, equations 2-7; base model of DMRec.
    Deviations: raw 0/1 input, constant KL weight 1 and dropout 0.3 as in DMRec's code are the defaults; the original
    normalises rows, drops half of them and anneals the KL to 0.2 (options of the same names). Deeper encoders and
    flows are the variants of PIA's paper, whose widths it does not give.
    """

    def __init__(self, config: MultVAEConfig, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.latent_dim, self.clamp_log_variance = config.latent_dim, config.clamp_log_variance
        by_rows = config.sampled_items is not None
        self.encoder_in = SparseLinear(n_items, config.hidden_dim, config.init, sparse=by_rows)
        self.encoder_out = linear(config.hidden_dim, 2 * config.latent_dim, config.init)
        self.decoder_in = linear(config.latent_dim, config.hidden_dim, config.init)
        self.decoder_out = linear(config.hidden_dim, n_items, config.init)
        # Last, so that the plain model draws the same weights with and without them.
        self.encoder_deeper = nn.ModuleList(
            linear(config.hidden_dim, config.hidden_dim, config.init) for _ in range(config.encoder_layers - 1)
        )
        self.flow = (
            InverseAutoregressiveFlow(config.flow_layers, config.latent_dim, config.hidden_dim, config.flow_hidden_dim)
            if config.flow_layers
            else None
        )

    def encode(self, batch: UserBatch, rng: torch.Generator | None) -> Encoding:
        """The posterior of each user, from rows with entries dropped in training."""
        rows = batch if self.config.input_norm == "none" else batch.with_values(l2_normalised(batch))
        if rng is not None:
            rows = rows.with_values(dropout_entries(rows, self.config.dropout, rng))
        hidden = torch.tanh(self.encoder_in(rows))
        for layer in self.encoder_deeper:
            hidden = torch.tanh(layer(hidden))
        posterior = DiagonalGaussian.from_halves(self.encoder_out(hidden), self.clamp_log_variance)
        if self.flow is not None:
            posterior = ConditionedGaussian(posterior.mean, posterior.log_variance, hidden)
        return Encoding(posterior, rows)

    def drawn(self, posterior: DiagonalGaussian, rng: torch.Generator) -> Draw:
        """A draw from each posterior, through the flow where there is one."""
        return self._through_flow(posterior.sample(rng), posterior)

    def point(self, posterior: DiagonalGaussian) -> Tensor:
        """(batch, latent) the mean, taken through the flow where its end is decoded."""
        return self._through_flow(posterior.mean, posterior).decoded

    def _through_flow(self, z: Tensor, posterior: DiagonalGaussian) -> Draw:
        if self.flow is None:
            return Draw.plain(z)
        end, log_volume = self.flow(z, cast(ConditionedGaussian, posterior).context)
        return Draw(z, end, log_volume, end if self.config.decode_from == "end" else z)

    def divergence(self, posterior: DiagonalGaussian, draw: Draw, batch: UserBatch) -> Tensor:
        """(batch,) KL to N(0, I); after a flow its estimate from the draw."""
        if draw.log_volume is None:
            return super().divergence(posterior, draw, batch)
        return divergence_of_flow(posterior, draw.start, draw.end, draw.log_volume)

    def likelihood(self, z: Tensor, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """Mean negative log-likelihood of the true rows."""
        hidden, out, n_drawn = torch.tanh(self.decoder_in(z)), self.decoder_out, self.config.sampled_items
        if n_drawn is None:
            return {"reconstruction": decoded_multinomial_nll(hidden, out.weight, out.bias, batch)}
        return {"reconstruction": sampled_multinomial_nll(hidden, out.weight, out.bias, batch, n_drawn, rng)}

    def decode(self, z: Tensor) -> Tensor:
        """(batch, n_items) logits."""
        return scores_of_all(torch.tanh(self.decoder_in(z)), self.decoder_out)

    def divergence_weight(self, step: int, batch_size: int) -> float:
        """`kl_weight`, annealed."""
        return annealed(self.config.kl_weight, step, self.config.kl_anneal_steps)
