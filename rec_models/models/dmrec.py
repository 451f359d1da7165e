"""DMRec: a second encoder reads the language space, and a matching draws the two posteriors together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, model_validator
from torch import Tensor

from rec_models.gaussians import DiagonalGaussian
from rec_models.information import Information
from rec_models.interactions import PairBatch, ResidentInteractions, UserBatch
from rec_models.matching import MDDM, Fuse, Fusion, Matching
from rec_models.meta_network import MetaNetwork, MetaNetworkConfig
from rec_models.recommender import (
    Draw,
    LatentRecommender,
    Learned,
    ParameterGroup,
    RecommenderConfig,
    VariationalRecommender,
)
from rec_models.semantic import Language, ModelInputs, SemanticMatrix, language_of

if TYPE_CHECKING:
    from rec_models.models import VariationalConfig


class DMRec(LatentRecommender):
    """DMRec on any base with a diagonal posterior.

    Source: DMRec equations 2, 7, 10/13/15, 18 and 19.
    Deviations: follows the released code where the two differ (additive fusion in training and inference, the
    meta-network sees the same dropped rows as the encoder, early stopping counts evaluations); each matching documents
    its own. Only Mult-VAE was released as a base; on CVGA the meta-network reads rows dropped at CVGA's rate, on
    L-DiffRec the fused latent is what is diffused and decoded; on RecVAE the prior's part of a matching is RecVAE's own
    composite prior, and the language side learns in the encoder's turn. The divergence is weighted as the base weighs
    its own KL (`matching_weight`): 1 for Mult-VAE, as in paper and code.
    """

    def __init__(
        self, config: DMRecConfig, collaborative: VariationalRecommender, items: SemanticMatrix, users: SemanticMatrix
    ) -> None:
        super().__init__()
        self.config, self.collaborative = config, collaborative
        self.latent_dim, clamp = collaborative.latent_dim, collaborative.clamp_log_variance
        self.meta_network = MetaNetwork(config.meta_network, items, users, self.latent_dim, clamp)
        self.fuse = Fusion(config.fuse, self.latent_dim if config.gate else None)

    def batches(
        self, history: ResidentInteractions, order: np.random.Generator, size: int
    ) -> Iterator[UserBatch | PairBatch]:
        """Those of the base."""
        yield from self.collaborative.batches(history, order, size)

    def learned(self, batch: UserBatch, rng: torch.Generator, step: int) -> Learned:
        """The base's likelihood at a draw from the fused posterior, and the weighted matching divergence."""
        source, rows = self.collaborative.encode(batch, rng)  # q_phi(z | x), equation 2
        language = self.meta_network(rows)  # p_varphi(z | s), equation 7
        fused = self.fuse(source, language)
        draw = Draw.plain(fused.sample(rng))
        terms = self.collaborative.likelihood(draw.decoded, batch, rng, step)  # L_rec, equation 18
        if batch.turn != "decoder":
            prior = self.collaborative.divergence(fused, draw, batch)
            matching = self.config.matching.divergence(fused, source, language, rng, prior)  # equation 10, 13 or 15
            matched = self.matching_weight(step, len(batch)) * self.collaborative.averaged(matching, batch)
            terms |= {"matching": matched}  # L, equation 19
        return Learned(terms, fused, draw)

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) logits of the point of the decoded distribution."""
        return self.collaborative.decode(self.collaborative.point(self.posteriors(batch)[0]))

    def posteriors(self, batch: UserBatch) -> tuple[DiagonalGaussian, DiagonalGaussian, DiagonalGaussian]:
        """(fused, collaborative, language) posteriors of clean rows, as inference decodes them."""
        source, rows = self.collaborative.encode(batch, None)
        language = self.meta_network(rows)
        return self.fuse(source, language), source, language

    def matching_weight(self, step: int, batch_size: int) -> float:
        """What the matching is multiplied by at an optimiser step."""
        weight = self.config.matching_weight
        if weight == "base":
            return self.collaborative.divergence_weight(step, batch_size)
        return 1 / batch_size if weight == "1/B" else weight

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of the base, and the language side at the learning rate of `training`."""
        language = [*self.meta_network.parameters(), *self.fuse.parameters()]
        return [*self.collaborative.parameter_groups(), ParameterGroup("language", language)]

    def diagnostics(self, batches: Iterable[UserBatch]) -> dict[str, float]:
        """Both divergences of the fused posterior, and the two mutual informations of equation 16; nats."""
        information = Information()
        for batch in batches:
            fused, _, language = self.posteriors(batch)
            information.add(fused, language)
        return information.means()


class DMRecConfig(RecommenderConfig):
    """Settings of DMRec on a variational base.

    Attributes:
        base: the collaborative model, with its own settings.
        matching: `godm`, `cpdm`, `mddm` or `none`, with its own settings.
        matching_weight: weight of the whole divergence: `base` as the base weighs its own KL, annealing included;
            `1/B` one over the users of the batch; or a number.
        fuse: what is decoded; see `rec_models.matching.fuse`.
        gate: learn for each latent dimension how much of the language branch is added; begins at 1.
        language: `profiles`, or a control that carries no meaning: `shuffled` texts, `random` vectors.
    """

    paper: ClassVar[str] = "Zhang et al., Distribution Matching for Recommendation with Language Models (DMRec), 2025"
    reads_language: ClassVar[bool] = True

    name: Literal["dmrec"] = "dmrec"
    base: VariationalConfig = Field(default_factory=lambda: _default_base())
    matching: Matching = MDDM()
    matching_weight: NonNegativeFloat | Literal["base", "1/B"] = "base"
    fuse: Fuse = "add"
    gate: bool = False
    meta_network: MetaNetworkConfig = MetaNetworkConfig()
    language: Language = "profiles"

    @model_validator(mode="after")
    def _gate_has_a_branch(self) -> DMRecConfig:
        if self.gate and self.fuse == "none":
            raise ValueError('`gate` weighs what `fuse` adds, and `fuse = "none"` adds nothing')
        return self

    @model_validator(mode="after")
    def _posteriors_are_gaussian(self) -> DMRecConfig:
        if getattr(self.base, "flow_layers", 0):
            raise ValueError("a matching compares Gaussians: set `base.flow_layers` to 0")
        return self

    def build(self, inputs: ModelInputs) -> DMRec:
        """The untrained model around a freshly built base."""
        items, users = language_of(self.name, inputs, self.language)
        return DMRec(self, self.base.build(inputs), items, users)


def _default_base() -> VariationalConfig:
    from rec_models.models import MultVAEConfig  # the union is closed after this module is defined

    return MultVAEConfig()
