"""MacridVAE: a variational autoencoder whose latent is one vector for each of a few interests."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from rec_models.explanation import SHARP, Explanation, explanation_of
from rec_models.factors import FactorOptions, InterestFactors, annealed_to
from rec_models.gaussians import DiagonalGaussian
from rec_models.interactions import UserBatch
from rec_models.mixtures import LOWEST_TEMPERATURE
from rec_models.recommender import Encoding, RecommenderConfig, VariationalRecommender
from rec_models.semantic import Language, ModelInputs, items_of


class MacridVAEConfig(RecommenderConfig):
    """Settings of MacridVAE.

    Attributes:
        factors: how many interests a user may have.
        dim, hidden_dim: width of an interest and of the encoder's hidden layer.
        temperature: what cosines are divided by.
        deviation: standard deviation of the prior.
        kl_cap, kl_anneal_steps: the weight of the divergence grows by 1 / steps each step, up to the cap.
        clamp_log_variance: bound on |log-variance| relative to the prior's; null leaves it free.
    """

    paper: ClassVar[str] = "Ma et al., Learning Disentangled Representations for Recommendation, NeurIPS 2019"

    name: Literal["macrid_vae"] = "macrid_vae"
    factors: int = Field(default=4, ge=1)
    dim: int = Field(default=100, ge=1)
    hidden_dim: int = Field(default=600, ge=1)
    temperature: float = Field(default=0.1, ge=LOWEST_TEMPERATURE)
    deviation: float = Field(default=0.075, gt=0)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    noise: Literal["shared", "none"] = "shared"
    kl_cap: float = Field(default=0.2, ge=0)
    kl_anneal_steps: int = Field(default=20_000, ge=0)
    clamp_log_variance: float | None = Field(default=None, gt=0)

    def build(self, inputs: ModelInputs) -> MacridVAE:
        """The untrained model."""
        return MacridVAE(self, InterestFactors(self.options(), inputs.n_items))

    def options(self) -> FactorOptions:
        """Its one channel."""
        return FactorOptions(
            self.factors,
            self.dim,
            self.hidden_dim,
            temperature=self.temperature,
            deviation=self.deviation,
            dropout=self.dropout,
            noise=self.noise,
        )


class SEMMacridVAEConfig(MacridVAEConfig):
    """Settings of SEM-MacridVAE: MacridVAE whose items and prototypes begin where the items' texts lie.

    Attributes:
        language: `profiles`, or a control that carries no meaning: `shuffled` texts, `random` vectors.
    """

    paper: ClassVar[str] = "SEM-MacridVAE: MacridVAE that begins from the items' side features; Ma et al., NeurIPS 2019"
    reads_language: ClassVar[bool] = True

    name: Literal["sem_macrid_vae"] = "sem_macrid_vae"  # type: ignore[assignment]
    language: Language = "profiles"

    def build(self, inputs: ModelInputs) -> MacridVAE:
        """The untrained model.

        Raises:
            MissingSemanticMatrixError: the bundle holds no vectors of items.
        """
        items = items_of(self.name, inputs, self.language)
        model = super().build(inputs)
        model.channel.start_from(items.vectors, inputs.seed)
        return model


class MacridVAE(VariationalRecommender):
    """MacridVAE as a base: its latent is all factors end to end, in units of the prior's deviation.

    In those units the prior is the standard normal, as a base's is, and the decoder, which reads directions, does not
    see the difference.

    Source: Ma et al. 2019, sections 3.1 and 3.2.
    Deviations: the decoder weighs items by assignments without the encoder's Gumbel noise, since a base is handed a
    latent and nothing of the draw it came from; `bandvae` with `text = "none"` and `iterations = 1` shares the draw.
    The divergence keeps the constant, factors / (2 deviation^2) nats, which has no gradient.
    """

    def __init__(self, config: MacridVAEConfig, channel: InterestFactors) -> None:
        super().__init__()
        self.config, self.channel = config, channel
        self.latent_dim, self.clamp_log_variance = config.factors * config.dim, config.clamp_log_variance

    def encode(self, batch: UserBatch, rng: torch.Generator | None) -> Encoding:
        """The posterior of each user; factors see rows with entries dropped of their own, so `rows` are whole."""
        _, posterior = self.channel(batch, rng)
        flat = DiagonalGaussian(posterior.mean.flatten(1), posterior.log_variance.flatten(1))
        if (bound := self.clamp_log_variance) is not None:
            flat = DiagonalGaussian(flat.mean, flat.log_variance.clamp(-bound, bound))
        return Encoding(flat, batch)

    def likelihood(self, z: Tensor, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """Mean negative log-likelihood of the true rows."""
        return {"reconstruction": self.channel.nll(self.channel.shared_assignment(), self._factors(z), batch)}

    def decode(self, z: Tensor) -> Tensor:
        """(batch, n_items) logits."""
        return self.channel.logits(self.channel.shared_assignment(), self._factors(z))

    @torch.no_grad()
    def factors_of(
        self, batch: UserBatch, *, top: int = 10, epsilon: float = SHARP, taken: bool = False
    ) -> Explanation:
        """Factors of some users and their items; see `Explainable`. Without a text channel there is no plan."""
        assignment, posterior = self.channel(batch, None)
        scores = self.channel.factor_scores(assignment, posterior.mean)
        return explanation_of(batch, assignment.weights, scores, posterior.mean, top=top, taken=taken)

    def divergence_weight(self, step: int, batch_size: int) -> float:
        """Grows by 1 / `kl_anneal_steps` up to `kl_cap`."""
        return annealed_to(self.config.kl_cap, step, self.config.kl_anneal_steps)

    def _factors(self, z: Tensor) -> Tensor:
        return z.view(len(z), self.config.factors, self.config.dim)
