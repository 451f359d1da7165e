"""PIA: while a model learns, the posterior of a masked row is pulled to the anchors of all items of the row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from rec_models.anchors import Anchors, AnchorSource, anchors_of
from rec_models.interactions import PairBatch, ResidentInteractions, UserBatch
from rec_models.recommender import (
    GradientRecommender,
    LatentRecommender,
    ParameterGroup,
    Recommender,
    RecommenderConfig,
)
from rec_models.semantic import Language, ModelInputs, items_of

if TYPE_CHECKING:
    from rec_models.models import LatentConfig

_TEXTS: dict[Language, str] = {
    "profiles": "profiles",
    "shuffled": "profiles, shuffled between items",
    "random": "random vectors instead of texts",
}


class PIA(GradientRecommender):
    """PIA around any model that decodes a draw from a diagonal posterior.

    Source: PIA, equations 8-10 and algorithm 1; spelled out from a copy whose symbols were lost.
    Deviations: the weight begins at 0.2, where the authors' read-me has 8; it is scaled by `growth` after `plateau`
    validation passes without a new best, the count begins anew then, and it stays below `max_growth` times the first;
    the paper says neither. Anchors step with the model's learning rate and no decay.
    """

    weight: Tensor
    stale: Tensor

    def __init__(self, config: PIAConfig, base: LatentRecommender, anchors: Anchors) -> None:
        super().__init__()
        self.config, self.base, self.anchors = config, base, anchors
        self.register_buffer("weight", torch.tensor(config.weight, dtype=torch.float64))
        self.register_buffer("stale", torch.zeros((), dtype=torch.int64))

    def batches(
        self, history: ResidentInteractions, order: np.random.Generator, size: int
    ) -> Iterator[UserBatch | PairBatch]:
        """Those of the base."""
        yield from self.base.batches(history, order, size)

    def loss(self, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """The base's terms, and the weighted alignment of its posterior with the centroid of the whole row."""
        terms, posterior, draw = self.base.learned(batch, rng, step)
        if batch.turn == "decoder":  # nothing of it reaches the decoder
            return terms
        centroids = self.anchors.centroids(batch)
        if draw.log_volume is not None and self.config.align_on == "decoded":
            distance = centroids.from_draw(draw.decoded)
        else:
            distance = centroids.from_gaussian(posterior)
        if self.config.reduction == "mean_dim":
            distance = distance / self.base.latent_dim
        return terms | {"alignment": self.weight.to(distance.dtype) * distance.mean()}

    def validated(self, better: bool) -> None:
        """Algorithm 1: a plateau makes the alignment weigh more."""
        self.base.validated(better)
        self.stale.copy_(torch.zeros_like(self.stale) if better else self.stale + 1)
        if self.stale >= self.config.plateau:
            highest = self.config.weight * self.config.max_growth
            self.weight.copy_((self.weight * self.config.growth).clamp_max(highest))
            self.stale.zero_()

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) those of the base."""
        return self.base.scores(batch)

    def served(self) -> Recommender:
        """The base: anchors are of use in training alone."""
        return self.base.served()

    def provenance(self) -> dict[str, str]:
        """That of the base, and what anchors from texts read."""
        if self.config.anchors == "learned":
            return self.base.provenance()
        how = "begun from" if self.config.anchors == "text_init" else "a map of"
        return self.base.provenance() | {"anchors": f"{how} the items' {_TEXTS[self.config.language]}"}

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of the base, and the anchors at the rate of its first group."""
        groups = self.base.parameter_groups()
        anchors = ParameterGroup("anchors", list(self.anchors.parameters()), groups[0].learning_rate, 0.0)
        return [*groups, anchors]

    def diagnostics(self, batches: Iterable[UserBatch]) -> dict[str, float]:
        """Those of the base; the weight, and what a collapse would show in: distances of users from their centroids
        and of centroids from each other."""
        rows = list(batches)
        found = [self.anchors.centroids(batch) for batch in rows]
        centres = torch.cat([each.centre for each in found])
        spread = torch.cat([each.spread for each in found])
        own = {
            "alignment_weight": float(self.weight),
            "anchor_spread": float(spread.mean()),
            "centroid_variance": float(centres.var(0, correction=0).sum()),
        }
        return self.base.diagnostics(rows) | own


class PIAConfig(RecommenderConfig):
    """Settings of PIA on a variational base or on DMRec.

    Attributes:
        base: the model that is trained, with its own settings; it is all that is kept.
        weight: of the alignment, before it grows.
        plateau: validation passes without a new best after which the weight grows. Give `training.patience` at least
            four times as many, else training ends before the weight has acted.
        growth: factor of the weight on a plateau.
        max_growth: bound on all of its growth.
        reduction: `sum` over latent dimensions, the paper's distance, or `mean_dim`.
        align_on: with a flow, what is pulled: the `decoded` latent, or the `posterior` in front of the flow.
        anchors: `learned`; `text_init`, learned from the principal components of the items' texts; `text_tied`, a
            learned linear map of the texts.
        language: what anchors from texts read: `profiles`, or a control that carries no meaning: `shuffled` texts,
            `random` vectors.
    """

    paper: ClassVar[str] = "Personalised Item Alignment for VAE-based collaborative filtering (PIA), 2025"

    name: Literal["pia"] = "pia"
    base: LatentConfig = Field(default_factory=lambda: _default_base())
    weight: float = Field(default=0.2, ge=0)
    plateau: int = Field(default=5, ge=1)
    growth: float = Field(default=1.2, ge=1)
    max_growth: float = Field(default=50.0, ge=1)
    reduction: Literal["sum", "mean_dim"] = "sum"
    align_on: Literal["decoded", "posterior"] = "decoded"
    anchors: AnchorSource = "learned"
    language: Language = "profiles"

    @property
    def asks_for_language(self) -> bool:
        """Where the base or the anchors read texts."""
        return self.base.asks_for_language or self.anchors != "learned"

    def build(self, inputs: ModelInputs) -> PIA:
        """The untrained model around a freshly built base."""
        base = self.base.build(inputs)
        texts = None if self.anchors == "learned" else items_of(self.name, inputs, self.language)
        return PIA(self, base, anchors_of(self.anchors, inputs.n_items, base.latent_dim, inputs.seed, texts))


def _default_base() -> LatentConfig:
    from rec_models.models import MultVAEConfig  # the union is closed after this module is defined

    return MultVAEConfig()
