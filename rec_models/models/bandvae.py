"""BANDVAE: interest factors from interactions and from texts, brought together by optimal transport for each user."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from rec_models.alignment import AdaptiveFusion, Alignment, alignment_plan, plan_entropy, squared_distances
from rec_models.blocks import dropped
from rec_models.explanation import SHARP, Explanation, TextSide, explanation_of, overlap, shares_of, similarity, tops_of
from rec_models.factors import (
    Assignment,
    FactorOptions,
    InterestFactors,
    Noise,
    ProfilePrior,
    PrototypeGradient,
    annealed_to,
    divergence,
)
from rec_models.gaussians import DiagonalGaussian
from rec_models.interactions import UserBatch
from rec_models.mixtures import LOWEST_TEMPERATURE
from rec_models.recommender import GradientRecommender, RecommenderConfig
from rec_models.semantic import Language, ModelInputs, items_of, language_of
from rec_models.text_units import TextMode, UserText, text_units
from rec_models.transport import barycentric

_USERS_COMPARED = 256
_WORDS_COMPARED = 10


class BANDVAEConfig(RecommenderConfig):
    """Settings of BANDVAE; VALID is `text = "none"`, MacridVAE that with `iterations = 1`.

    Attributes:
        factors, text_factors: K of the interactions and J of each text channel.
        dim, hidden_dim: width of factors and of the encoders' hidden layers.
        iterations, text_iterations: assignments of each channel; see `FactorOptions`.
        temperature: what cosines are divided by.
        deviation, text_deviation: standard deviations of the priors.
        prototype_gradient, noise, normalised_steps, prototype_dropout: see `FactorOptions`.
        hidden_items: share of a user's items that no channel sees in a training step, so that the words of a hidden
            item cannot give it away. 0 is the paper: words tell what was dropped.
        dropout, text_dropout: share of entries (items, words) taken from each factor besides.
        text: what the text channel counts (`rec_models.text_units`), or `none`: interactions alone.
        concepts: how many concepts there are, where `text` counts them.
        semantic_items: a channel more, in which items lie where their texts put them; it predicts items too.
        profile_prior: the first text channel's factors are drawn to where the text of the user points, not to 0; such
            texts must not speak of what is hidden from them.
        start: where items and units of texts begin: `random`, or where their texts lie (the paper's negative).
        text_norm: of a user's text: `none` is the mean of the items' rows, `l1` sums to 1.
        without_text: users whose items have no text: `encode` reads an empty row, as the paper would; `skip` adds
            nothing of the text to their factors.
        text_weight, alignment_weight: lambda of a text channel's likelihood and of its distances to the interactions.
        alignment: `sinkhorn`, `softmax` over all pairs, or `diagonal`.
        epsilon: of the alignment; 0.02 to 2 in the paper, which plans are almost even above 0.2.
        unit_costs: distances for the plan between unit vectors, within 0 to 4 whatever `deviation` is.
        transfer: `both`; `map` without the distances in the loss; `regularise` without fusion: texts shape the factors
            in training, and nothing of a text reaches the decoder of items, so that its words can give nothing away.
        fusion: `adaptive`, or `mean`: the mean of both mapped factors, the same for both decoders.
        kl_cap, text_kl_cap, kl_anneal_steps: weights of the divergences grow by 1 / steps each step, up to their caps.
        language: `profiles`, or a control that carries no meaning: `shuffled` texts, `random` ones.
    """

    paper: ClassVar[str] = "BANDVAE: bi-modal disentangled interest factors aligned by optimal transport; after VALID"
    reads_language: ClassVar[bool] = True
    reads_words: ClassVar[bool] = True

    name: Literal["bandvae"] = "bandvae"
    factors: int = Field(default=4, ge=1)
    text_factors: int = Field(default=4, ge=1)
    dim: int = Field(default=100, ge=1)
    hidden_dim: int = Field(default=600, ge=1)
    iterations: int = Field(default=2, ge=1)
    text_iterations: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.1, ge=LOWEST_TEMPERATURE)
    deviation: float = Field(default=0.075, gt=0)
    text_deviation: float = Field(default=0.075, gt=0)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    text_dropout: float = Field(default=0.5, ge=0, lt=1)
    prototype_dropout: float = Field(default=0.5, ge=0, lt=1)
    prototype_gradient: PrototypeGradient = "none"
    normalised_steps: bool = True
    noise: Noise = "shared"
    hidden_items: float = Field(default=0.0, ge=0, lt=1)
    text: TextMode | Literal["none"] = "words"
    concepts: int = Field(default=1024, ge=1)
    semantic_items: bool = False
    profile_prior: bool = False
    start: Literal["random", "text"] = "random"
    text_norm: Literal["none", "l1"] = "none"
    without_text: Literal["encode", "skip"] = "encode"
    text_weight: float = Field(default=0.5, ge=0)
    alignment_weight: float = Field(default=2.0, ge=0)
    alignment: Alignment = "sinkhorn"
    epsilon: float = Field(default=0.1, gt=0)
    sinkhorn_iterations: int = Field(default=100, ge=1)
    unit_costs: bool = False
    transfer: Literal["both", "map", "regularise"] = "both"
    fusion: Literal["adaptive", "mean"] = "adaptive"
    kl_cap: float = Field(default=1.0, ge=0)
    text_kl_cap: float = Field(default=0.2, ge=0)
    kl_anneal_steps: int = Field(default=20_000, ge=0)
    language: Language = "profiles"

    @model_validator(mode="after")
    def _parts_fit(self) -> BANDVAEConfig:
        if self.profile_prior and self.text == "none" and not self.semantic_items:
            raise ValueError("`profile_prior` is of a text channel: set `text`")
        if self.factors != self.text_factors and (self.alignment == "diagonal" or self.fusion == "mean"):
            raise ValueError("`alignment = diagonal` and `fusion = mean` pair factors: set `text_factors` to `factors`")
        return self

    @property
    def asks_for_language(self) -> bool:
        """Whether any part reads vectors."""
        vectors = self.semantic_items or self.profile_prior or self.start == "text"
        return vectors or self.text in ("concepts", "hybrid")

    @property
    def asks_for_words(self) -> bool:
        """Whether the text channel counts words."""
        return self.text in ("words", "hybrid")

    def options(self) -> FactorOptions:
        """The channel of interactions."""
        return FactorOptions(
            factors=self.factors,
            dim=self.dim,
            hidden_dim=self.hidden_dim,
            iterations=self.iterations,
            temperature=self.temperature,
            deviation=self.deviation,
            dropout=self.dropout,
            prototype_dropout=self.prototype_dropout,
            prototype_gradient=self.prototype_gradient,
            noise=self.noise,
            normalised_steps=self.normalised_steps,
        )

    def text_options(self, *, own_units: bool) -> FactorOptions:
        """A text channel."""
        return replace(
            self.options(),
            factors=self.text_factors,
            iterations=self.text_iterations,
            dropout=self.text_dropout,
            deviation=self.text_deviation,
            own_units=own_units,
        )

    def build(self, inputs: ModelInputs) -> BANDVAE:
        """The untrained model."""
        sides, ratings = [], InterestFactors(self.options(), inputs.n_items)
        if self.text != "none":
            units = text_units(self.name, self.text, inputs, self.language, self.concepts)
            channel = InterestFactors(self.text_options(own_units=True), len(units.names), units.vectors)
            sides.append(_Side(self.text, channel, UserText(units.weights, self.text_norm), units.names))
        if self.semantic_items:
            placed = items_of(self.name, inputs, self.language).vectors
            channel = InterestFactors(self.text_options(own_units=False), inputs.n_items, placed)
            sides.append(_Side("items", channel, None, ()))
        if self.start == "text":
            items = items_of(self.name, inputs, self.language)
            ratings.start_from(items.vectors, inputs.seed)
            for side in sides:
                if side.source is not None:
                    side.channel.start_from(side.source.means_of(items.vectors), inputs.seed)
        if not self.profile_prior:
            return BANDVAE(self, ratings, sides, None)
        _, users = language_of(self.name, inputs, self.language)
        prior = ProfilePrior(self.text_options(own_units=True), users.vectors, users.present)
        return BANDVAE(self, ratings, sides, prior)


class _Side(nn.Module):
    """A text channel, and how a user's row of it comes about; without `source` it is the history itself."""

    def __init__(
        self, name: str, channel: InterestFactors, source: UserText | None, unit_names: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.name, self.channel, self.source, self.unit_names = name, channel, source, unit_names


class _Channel(NamedTuple):
    """One channel of a batch: its row, its shares, posterior, factors as drawn and as decoded (batch, factors, dim)."""

    factors: InterestFactors
    rows: UserBatch
    assignment: Assignment
    posterior: DiagonalGaussian
    z: Tensor
    fused: Tensor


class _Read(NamedTuple):
    """Everything a step knows of a batch; plans (batch, factors, text factors) and costs, one a side."""

    ratings: _Channel
    sides: list[_Channel]
    plans: list[Tensor]
    costs: list[Tensor]


class BANDVAE(GradientRecommender):
    """BANDVAE on any number of text channels.

    Source: BANDVAE's encoders, alignment, barycentric maps, adaptive fusion, decoders and loss; more than one text
    channel as in its extension, where every channel is aligned with the interactions.
    Deviations: those of `InterestFactors`, `alignment_plan` and `AdaptiveFusion`. Distances for the plan are between
    factors as they are, as printed (`unit_costs`). The divergence lacks a constant. A channel of items placed by
    their texts predicts items; the paper's channels predict their own input, which there is one vector an item.
    Dropout hides entries from a factor, not items from both channels, as in the paper (`hidden_items`).
    """

    def __init__(
        self, config: BANDVAEConfig, ratings: InterestFactors, sides: list[_Side], prior: ProfilePrior | None
    ) -> None:
        super().__init__()
        self.config, self.ratings, self.prior = config, ratings, prior
        self.sides = nn.ModuleList(sides)
        fuses = sides and config.transfer != "regularise" and config.fusion == "adaptive"
        self.fusion = AdaptiveFusion(config.dim) if fuses else None

    def loss(self, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """Likelihood and divergence of every channel, and the distances between factors that a plan brings together."""
        config = self.config
        read = self._read(batch, rng)
        own = read.ratings
        kl_weight = annealed_to(config.kl_cap, step, config.kl_anneal_steps)
        text_kl_weight = config.text_weight * annealed_to(config.text_kl_cap, step, config.kl_anneal_steps)
        terms: dict[str, Tensor] = {"reconstruction": own.factors.nll(own.assignment, own.fused, batch)}
        terms["kl"] = kl_weight * divergence(own.posterior).mean()
        for side, plan, cost in zip(read.sides, read.plans, read.costs, strict=True):
            nll = config.text_weight * side.factors.nll(side.assignment, side.fused, side.rows)
            terms["text"] = terms.get("text", 0) + nll
            terms["text_kl"] = terms.get("text_kl", 0) + text_kl_weight * divergence(side.posterior).mean()
            if config.transfer != "map":
                apart = config.alignment_weight * (plan * cost).sum((1, 2)).mean()
                terms["alignment"] = terms.get("alignment", 0) + apart
        if self.prior is not None:
            gained = self.prior.divergence(read.sides[0].posterior, batch.users).mean()
            terms["text_kl"] = terms["text_kl"] + text_kl_weight * gained
        return terms

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) logits from posterior means."""
        read = self._read(batch, None)
        return self.ratings.logits(read.ratings.assignment, read.ratings.fused)

    @torch.no_grad()
    def factors_of(
        self, batch: UserBatch, *, top: int = 10, epsilon: float = SHARP, taken: bool = False
    ) -> Explanation:
        """Factors of some users, their items and words, and the plans between them; see `Explainable`."""
        read, sides = self._read(batch, None), []
        own = read.ratings
        for side, channel, plan, cost in zip(self.text_sides(), read.sides, read.plans, read.costs, strict=True):
            sharp = alignment_plan(cost, self.config.alignment, epsilon, 10 * self.config.sinkhorn_iterations)
            held = shares_of(channel.rows, channel.assignment.weights)
            sides.append(TextSide(side.name, held, _tops(channel, top), side.unit_names, plan, sharp))
        scores = own.factors.factor_scores(own.assignment, own.fused)
        weights = own.assignment.weights
        return explanation_of(batch, weights, scores, own.fused, top=top, taken=taken, sides=tuple(sides))

    @torch.no_grad()
    def diagnostics(self, batches: Iterable[UserBatch]) -> dict[str, float]:
        """Cosine between a user's factors; of the first text channel entropy of the plans (bits) and common words."""
        sums: dict[str, list[tuple[float, int]]] = {}
        for at, batch in enumerate(batches):
            read = self._read(batch, None)
            found = {"factor_similarity": similarity(read.ratings.fused)}
            if read.sides:
                found["plan_entropy"] = plan_entropy(read.plans[0])
                if at == 0:
                    found["word_overlap"] = overlap(_tops(read.sides[0], _WORDS_COMPARED)[:_USERS_COMPARED])
            for name, values in found.items():
                sums.setdefault(name, []).append((float(values.sum()), len(values)))
        return {name: sum(s for s, _ in rows) / max(1, sum(n for _, n in rows)) for name, rows in sums.items()}

    def _read(self, batch: UserBatch, rng: torch.Generator | None) -> _Read:
        seen = batch
        if rng is not None and self.config.hidden_items:
            seen = batch.with_values(dropped(batch.values, self.config.hidden_items, rng))
        own = _encoded(self.ratings, seen, rng)
        sides, plans, costs, taken = [], [], [], own.z
        for part in self.text_sides():
            side = _encoded(part.channel, seen if part.source is None else part.source(seen), rng)
            if seen is not batch:  # what is predicted is whole
                side = side._replace(rows=batch if part.source is None else part.source(batch))
            cost = squared_distances(own.z, side.z)
            between = cost
            if self.config.unit_costs:
                between = squared_distances(F.normalize(own.z, dim=-1), F.normalize(side.z, dim=-1))
            plan = alignment_plan(between, self.config.alignment, self.config.epsilon, self.config.sinkhorn_iterations)
            given, fused = self._fused(own, side, plan)
            sides.append(side._replace(fused=fused))
            plans.append(plan)
            costs.append(cost)
            taken = taken + given
        return _Read(own._replace(fused=taken), sides, plans, costs)

    def text_sides(self) -> list[_Side]:
        return [side for side in self.sides if isinstance(side, _Side)]

    def _fused(self, own: _Channel, side: _Channel, plan: Tensor) -> tuple[Tensor, Tensor]:
        """What the side adds to the factors of the interactions, and the side's factors as decoded."""
        if self.config.transfer == "regularise":
            return torch.zeros_like(own.z), side.z
        mapped, mapped_back = barycentric(plan, side.z), barycentric(plan.mT, own.z)
        if self.fusion is None:
            both = (mapped + mapped_back) / 2
            given, fused = both - own.z, both
        else:
            given, fused = self.fusion(own.z, mapped), side.z + self.fusion(side.z, mapped_back)
        if self.config.without_text == "skip":
            given = given * (side.rows.lengths > 0)[:, None, None]
        return given, fused


def _encoded(factors: InterestFactors, rows: UserBatch, rng: torch.Generator | None) -> _Channel:
    assignment, posterior = factors(rows, rng)
    z = factors.options.deviation * (posterior.mean if rng is None else posterior.sample(rng))
    return _Channel(factors, rows, assignment, posterior, z, z)


def _tops(channel: _Channel, top: int) -> Tensor:
    """(batch, factors, top) int64 units each factor speaks of most."""
    return tops_of(channel.factors.factor_scores(channel.assignment, channel.fused), top)
