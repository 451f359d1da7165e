"""RecVAE: a deep encoder held back by its own past, whose two sides learn in turns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from rec_models.blocks import SparseLinear, dropout_entries, l2_normalised, scores_of_all
from rec_models.gaussians import DiagonalGaussian, kl_to_standard, log_density
from rec_models.interactions import PairBatch, ResidentInteractions, UserBatch
from rec_models.losses import decoded_multinomial_nll
from rec_models.recommender import (
    Draw,
    Encoding,
    ParameterGroup,
    RecommenderConfig,
    VariationalRecommender,
    annealed,
)
from rec_models.semantic import ModelInputs

KEPT_BYTES = 2**30  # of priors, while the encoder learns


class RecVAEConfig(RecommenderConfig):
    """Settings of RecVAE; the authors use batches of 500 users (`training.batch_size`).

    Attributes:
        hidden_dim, hidden_layers: of the encoder, every layer of which reads the sum of all before it.
        latent_dim: width of the latent.
        dropout: share of input entries dropped while the encoder learns; none while the decoder does.
        prior: `composite` mixes the standard normal, the encoder as it was an epoch ago and a wide normal;
            `standard` is the standard normal alone, with its divergence in closed form.
        prior_shares: of those three.
        prior_log_variance: of the wide normal.
        kl_weight_per_item: a user's divergence is weighted by this times their number of items; null weighs all users
            by `kl_weight`.
        kl_weight, kl_anneal_steps: the weight without `kl_weight_per_item`, and the steps over which either rises.
        encoder_passes, decoder_passes: passes over the users that make an epoch, the encoder's first; with 0 passes of
            the decoder both sides learn together in the encoder's.
        learning_rate: null takes that of `training`.
        clamp_log_variance: bound on |log-variance|; null leaves it free.
    """

    paper: ClassVar[str] = "Shenbin et al., RecVAE: a New Variational Autoencoder for Top-N Recommendations, WSDM 2020"

    name: Literal["rec_vae"] = "rec_vae"
    hidden_dim: int = Field(default=600, ge=1)
    hidden_layers: int = Field(default=5, ge=1)
    latent_dim: int = Field(default=200, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    prior: Literal["composite", "standard"] = "composite"
    prior_shares: tuple[float, float, float] = (0.15, 0.75, 0.10)
    prior_log_variance: float = 10.0
    kl_weight_per_item: float | None = Field(default=0.005, ge=0)
    kl_weight: float = Field(default=0.2, ge=0)
    kl_anneal_steps: int = Field(default=0, ge=0)
    encoder_passes: int = Field(default=3, ge=1)
    decoder_passes: int = Field(default=1, ge=0)
    learning_rate: float | None = Field(default=5e-4, gt=0)
    clamp_log_variance: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _shares_are_shares(self) -> RecVAEConfig:
        if min(self.prior_shares) < 0 or not math.isclose(sum(self.prior_shares), 1, abs_tol=1e-6):
            raise ValueError(f"`prior_shares` must not be negative and must add up to 1, got {self.prior_shares}")
        return self

    def build(self, inputs: ModelInputs) -> RecVAE:
        """The untrained model."""
        return RecVAE(self, inputs.n_items)


class DenseEncoder(nn.Module):
    """(batch, 2 * latent) moments; h_k = norm(swish(W_k h_{k-1} + h_1 + ... + h_{k-1})).

    Source: RecVAE's encoder; the authors' code for the order of the parts and the norm's epsilon 0.1.
    Deviations: follows the code, which is a slightly different model from the paper, as its README says.
    """

    def __init__(self, config: RecVAEConfig, n_items: int) -> None:
        super().__init__()
        width = config.hidden_dim
        self.first = SparseLinear(n_items, width)
        self.others = nn.ModuleList(nn.Linear(width, width) for _ in range(config.hidden_layers - 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=0.1) for _ in range(config.hidden_layers))
        self.moments = nn.Linear(width, 2 * config.latent_dim)

    def forward(self, rows: UserBatch) -> Tensor:
        """Means, then log-variances."""
        hidden = self.norms[0](F.silu(self.first(rows)))
        total = hidden
        for layer, norm in zip(self.others, self.norms[1:], strict=True):
            hidden = norm(F.silu(layer(hidden) + total))
            total = total + hidden
        return self.moments(hidden)


def composite_log_density(
    z: Tensor, before: DiagonalGaussian, shares: tuple[float, float, float], log_variance: float
) -> Tensor:
    """(batch,) ln p(z) under a mixture of N(0, 1), `before` and N(0, e^log_variance) in each dimension.

    Source: RecVAE's composite prior and the authors' code, where every dimension is a mixture of its own.
    Deviations: follows the code; the paper reads as one mixture over whole latents.
    """
    parts = []
    for share, mean, spread in zip(
        shares,
        (torch.zeros_like(z), before.mean, torch.zeros_like(z)),
        (torch.zeros_like(z), before.log_variance, torch.full_like(z, log_variance)),
        strict=True,
    ):
        if share > 0:
            squared = (z - mean).square() * torch.exp(-spread)
            parts.append(math.log(share) - 0.5 * (squared + spread + math.log(2 * math.pi)))
    return torch.logsumexp(torch.stack(parts), 0).sum(1)


class RecVAE(VariationalRecommender):
    """RecVAE.

    Source: Shenbin et al. 2020; the authors' code (ilya-shenbin/RecVAE).
    Deviations: follows the code where it differs from the paper (see the parts). The encoder of the prior begins as a
    copy of the encoder; in the code it begins as another random one, for one epoch.
    """

    def __init__(self, config: RecVAEConfig, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.latent_dim, self.clamp_log_variance = config.latent_dim, config.clamp_log_variance
        self.encoder = DenseEncoder(config, n_items)
        self.decoder = nn.Linear(config.latent_dim, n_items)
        # Buffers: they are saved and move with the model, and no optimiser ever sees them.
        self._before = {name: f"before_{name.replace('.', '_')}" for name, _ in self.encoder.named_parameters()}
        self._priors: Tensor | None = None
        if config.prior == "composite":
            for name, weight in self.encoder.named_parameters():
                self.register_buffer(self._before[name], weight.detach().clone())

    def remember(self) -> None:
        """From now on the prior is drawn to the encoder as it is now."""
        if self.config.prior == "composite":
            for name, weight in self.encoder.named_parameters():
                self.get_buffer(self._before[name]).copy_(weight.detach())

    def batches(
        self, history: ResidentInteractions, order: np.random.Generator, size: int
    ) -> Iterator[UserBatch | PairBatch]:
        """The passes of an epoch: of the encoder, which is then remembered, and of the decoder.

        The encoder's passes share one prior for each user, made before them: (n_users, 2 * latent) float32, a third of
        the work of making it in each. Where that would be larger than `KEPT_BYTES` it is made batch by batch.
        """
        apart = self.config.decoder_passes > 0
        if self.config.prior == "composite" and 8 * history.n_users * self.latent_dim <= KEPT_BYTES:
            self._priors = self._priors_of_all(history, size)
        for _ in range(self.config.encoder_passes):
            for batch in super().batches(history, order, size):
                yield replace(cast(UserBatch, batch), turn="encoder" if apart else "all")
        self._priors = None
        self.remember()
        for _ in range(self.config.decoder_passes):
            for batch in super().batches(history, order, size):
                yield replace(cast(UserBatch, batch), turn="decoder")

    def encode(self, batch: UserBatch, rng: torch.Generator | None) -> Encoding:
        """The posterior of each user, from rows with entries dropped while the encoder learns."""
        rows = batch.with_values(l2_normalised(batch))
        if rng is not None and batch.turn != "decoder":
            rows = rows.with_values(dropout_entries(rows, self.config.dropout, rng))
        return Encoding(DiagonalGaussian.from_halves(self.encoder(rows), self.clamp_log_variance), rows)

    @torch.no_grad()
    def before(self, batch: UserBatch) -> DiagonalGaussian:
        """The posterior of each user's whole row by the encoder as it was remembered."""
        moments = self._moments_before(batch) if self._priors is None else self._priors[batch.users]
        return DiagonalGaussian.from_halves(moments, self.clamp_log_variance)

    def _moments_before(self, batch: UserBatch) -> Tensor:
        weights = {name: self.get_buffer(kept) for name, kept in self._before.items()}
        rows = batch.with_values(l2_normalised(batch))
        return torch.func.functional_call(self.encoder, weights, (rows,))

    @torch.no_grad()
    def _priors_of_all(self, history: ResidentInteractions, size: int) -> Tensor:
        made = torch.zeros((history.n_users, 2 * self.latent_dim), device=history.device)
        for start in range(0, len(history.active), size):
            batch = history.batch(history.active[start : start + size])
            made[batch.users] = self._moments_before(batch).to(made.dtype)
        return made

    def likelihood(self, z: Tensor, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """Mean negative log-likelihood of the true rows."""
        return {"reconstruction": decoded_multinomial_nll(z, self.decoder.weight, self.decoder.bias, batch)}

    def divergence(self, posterior: DiagonalGaussian, draw: Draw, batch: UserBatch) -> Tensor:
        """(batch,) the KL to the prior, of the composite one its estimate from the draw."""
        if self.config.prior == "standard":
            return kl_to_standard(posterior)
        config, z = self.config, draw.start
        prior = composite_log_density(z, self.before(batch), config.prior_shares, config.prior_log_variance)
        return log_density(posterior, z) - prior

    def averaged(self, divergence: Tensor, batch: UserBatch) -> Tensor:
        """() mean of (batch,) divergences; with `kl_weight_per_item` each times the user's number of items."""
        if self.config.kl_weight_per_item is None:
            return divergence.mean()
        return (divergence * batch.lengths).mean()

    def decode(self, z: Tensor) -> Tensor:
        """(batch, n_items) logits."""
        return scores_of_all(z, self.decoder)

    def divergence_weight(self, step: int, batch_size: int) -> float:
        """`kl_weight_per_item` or `kl_weight`, annealed."""
        per_item = self.config.kl_weight_per_item
        return annealed(self.config.kl_weight if per_item is None else per_item, step, self.config.kl_anneal_steps)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Encoder and decoder, which learn in turns."""
        rate = self.config.learning_rate
        return [
            ParameterGroup("encoder", list(self.encoder.parameters()), rate),
            ParameterGroup("decoder", list(self.decoder.parameters()), rate),
        ]
