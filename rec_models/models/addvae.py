"""ADDVAE: interest factors from interactions and from texts that attend to each other and share what they say."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rec_models.explanation import SHARP, Explanation, TextSide, explanation_of, shares_of, tops_of
from rec_models.factors import Assignment, FactorOptions, InterestFactors, Noise, annealed_to, divergence
from rec_models.interactions import UserBatch
from rec_models.mixtures import LOWEST_TEMPERATURE
from rec_models.recommender import GradientRecommender, RecommenderConfig
from rec_models.semantic import Language, ModelInputs
from rec_models.text_units import TextMode, UserText, text_units


class ADDVAEConfig(RecommenderConfig):
    """Settings of ADDVAE.

    Attributes:
        factors: how many interests there are in interactions and in texts.
        dim, hidden_dim: width of factors and of the encoders' hidden layers.
        temperature, deviation, dropout, noise: see `FactorOptions`.
        text, concepts, text_norm: what the text channel counts; see `rec_models.text_units`.
        text_weight: lambda of the text's likelihood.
        contrast_weight: lambda of the term that keeps mapped factors apart.
        kl_cap, kl_anneal_steps: weights of the divergences grow by 1 / steps each step, up to the cap.
        language: `profiles`, or a control that carries no meaning: `shuffled` texts, `random` ones.
    """

    paper: ClassVar[str] = (
        "Tran & Lauw, Aligning Dual Disentangled User Representations from Ratings and Text, KDD 2022"
    )
    reads_language: ClassVar[bool] = True
    reads_words: ClassVar[bool] = True

    name: Literal["addvae"] = "addvae"
    factors: int = Field(default=4, ge=2)
    dim: int = Field(default=64, ge=1)
    hidden_dim: int = Field(default=200, ge=1)
    temperature: float = Field(default=0.1, ge=LOWEST_TEMPERATURE)
    deviation: float = Field(default=0.075, gt=0)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    noise: Noise = "shared"
    text: TextMode = "words"
    concepts: int = Field(default=1024, ge=1)
    text_norm: Literal["none", "l1"] = "none"
    text_weight: float = Field(default=0.5, ge=0)
    contrast_weight: float = Field(default=0.2, ge=0)
    kl_cap: float = Field(default=0.2, ge=0)
    kl_anneal_steps: int = Field(default=20_000, ge=0)
    language: Language = "profiles"

    @property
    def asks_for_language(self) -> bool:
        """Whether the text channel counts concepts."""
        return self.text != "words"

    @property
    def asks_for_words(self) -> bool:
        """Whether the text channel counts words."""
        return self.text != "concepts"

    def build(self, inputs: ModelInputs) -> ADDVAE:
        """The untrained model."""
        options = FactorOptions(
            self.factors,
            self.dim,
            self.hidden_dim,
            temperature=self.temperature,
            deviation=self.deviation,
            dropout=self.dropout,
            noise=self.noise,
        )
        units = text_units(self.name, self.text, inputs, self.language, self.concepts)
        text = InterestFactors(options, len(units.names), units.vectors)
        source = UserText(units.weights, self.text_norm)
        return ADDVAE(self, InterestFactors(options, inputs.n_items), text, source, units.names)


class ADDVAE(GradientRecommender):
    """ADDVAE.

    Source: Tran & Lauw 2022, as its authors' later work describes it: factors as in MacridVAE in both channels,
    compositional de-attention between them, decoders that share the sum of both mapped factors, and a contrast.
    Deviations: written from that description, not from the code; the row mean that centres L1 distances runs over the
    keys. The contrast is softplus of -similarity for a factor and its namesake in the other channel and softplus of the
    similarity for the others, similarity being the inner product of unit vectors over the temperature.
    """

    def __init__(
        self,
        config: ADDVAEConfig,
        ratings: InterestFactors,
        text: InterestFactors,
        source: UserText,
        unit_names: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.config, self.ratings, self.text, self.source = config, ratings, text, source
        self.unit_names = unit_names
        self.query, self.key = (nn.Linear(config.dim, config.dim, bias=False) for _ in range(2))

    def loss(self, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """Likelihood and divergence of both channels, and the contrast between their mapped factors."""
        config, words = self.config, self.source(batch)
        shares, z, kl = self._encoded(self.ratings, batch, rng)
        word_shares, word_z, word_kl = self._encoded(self.text, words, rng)
        mapped, word_mapped = self._mapped(z, word_z)
        together = mapped + word_mapped
        grown = annealed_to(config.kl_cap, step, config.kl_anneal_steps)
        return {
            "reconstruction": self.ratings.nll(shares, z + together, batch),
            "kl": grown * kl,
            "text": config.text_weight * self.text.nll(word_shares, word_z + together, words),
            "text_kl": config.text_weight * grown * word_kl,
            "contrast": config.contrast_weight * self._contrast(mapped, word_mapped).mean(),
        }

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) logits from posterior means."""
        shares, z, _ = self._encoded(self.ratings, batch, None)
        _, word_z, _ = self._encoded(self.text, self.source(batch), None)
        return self.ratings.logits(shares, z + sum(self._mapped(z, word_z)))

    @torch.no_grad()
    def factors_of(
        self, batch: UserBatch, *, top: int = 10, epsilon: float = SHARP, taken: bool = False
    ) -> Explanation:
        """Factors of some users, their items and words, and what attends to what; see `Explainable`."""
        words = self.source(batch)
        shares, z, _ = self._encoded(self.ratings, batch, None)
        word_shares, word_z, _ = self._encoded(self.text, words, None)
        together = sum(self._mapped(z, word_z))
        fused, word_fused = z + together, word_z + together
        side = TextSide(
            self.config.text,
            shares_of(words, word_shares.weights),
            tops_of(self.text.factor_scores(word_shares, word_fused), top),
            self.unit_names,
            self._attention(z, word_z),
            None,
            signed=True,
        )
        scores = self.ratings.factor_scores(shares, fused)
        return explanation_of(batch, shares.weights, scores, fused, top=top, taken=taken, sides=(side,))

    def _encoded(
        self, factors: InterestFactors, rows: UserBatch, rng: torch.Generator | None
    ) -> tuple[Assignment, Tensor, Tensor]:
        """Shares, factors (batch, factors, dim) of unit length, and the mean divergence."""
        assignment, posterior = factors(rows, rng)
        z = posterior.mean if rng is None else posterior.sample(rng)
        return assignment, F.normalize(z, dim=-1), divergence(posterior).mean()

    def _mapped(self, z: Tensor, word_z: Tensor) -> tuple[Tensor, Tensor]:
        """What each channel's factors take from the other's, (batch, factors, dim) each."""
        return self._attention(z, word_z) @ word_z, self._attention(word_z, z) @ z

    def _attention(self, own: Tensor, other: Tensor) -> Tensor:
        """(batch, factors, factors) from -1 to 1: how much each of `own` takes on of each of `other`."""
        queries, keys = self.query(own), self.key(other)
        distances = (queries[:, :, None] - keys[:, None]).abs().sum(-1)
        centred = distances - distances.mean(-1, keepdim=True)
        return torch.tanh(queries @ keys.mT) * torch.sigmoid(-centred)

    def _contrast(self, mapped: Tensor, word_mapped: Tensor) -> Tensor:
        """(batch,) in nats, mean over pairs of factors."""
        similarity = F.normalize(mapped, dim=-1) @ F.normalize(word_mapped, dim=-1).mT / self.config.temperature
        same = torch.eye(self.config.factors, dtype=torch.bool, device=mapped.device)
        return F.softplus(torch.where(same, -similarity, similarity)).mean((1, 2))
