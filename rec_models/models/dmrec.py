"""DMRec: a second encoder reads the language space, and a matching draws the two posteriors together."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from rec_models.blocks import Init, linear, rows_times
from rec_models.gaussians import DiagonalGaussian
from rec_models.interactions import UserBatch
from rec_models.matching import MDDM, Fuse, Matching, fuse
from rec_models.recommender import GradientRecommender, RecommenderConfig, VariationalEncoderDecoder
from rec_models.semantic import Language, ModelInputs, SemanticMatrix, language_of

if TYPE_CHECKING:
    from rec_models.models import VariationalConfig


class MetaNetworkConfig(BaseModel):
    """Settings of the probabilistic meta-network, which maps text to a Gaussian in the base's latent space.

    Attributes:
        reads: `full` sums the vectors of the user's items and the user's own; the others are the paper's ablation
            "without meta-network" in its two readings.
        pool: how item vectors are pooled; `sum` grows with activity, `sqrt` and `mean` tame that.
        unit_inputs: scale the pooled vector to unit length before the first layer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_dim: int = Field(default=600, ge=1)
    reads: Literal["full", "user_only", "items_only"] = "full"
    pool: Literal["sum", "mean", "sqrt"] = "sum"
    unit_inputs: bool = False
    init: Init = "torch_default"


class DMRecConfig(RecommenderConfig):
    """Settings of DMRec on a variational base.

    Attributes:
        base: the collaborative model, with its own settings; its `kl_weight` scales the whole divergence.
        matching: `godm`, `cpdm`, `mddm` or `none`, with its own settings.
        fuse: what is decoded; see `rec_models.matching.fuse`.
        language: `profiles`, or a control that carries no meaning: `shuffled` texts, `random` vectors.
    """

    paper: ClassVar[str] = "Zhang et al., Distribution Matching for Recommendation with Language Models (DMRec), 2025"
    reads_language: ClassVar[bool] = True

    name: Literal["dmrec"] = "dmrec"
    base: VariationalConfig = Field(default_factory=lambda: _default_base())
    matching: Matching = MDDM()
    fuse: Fuse = "add"
    meta_network: MetaNetworkConfig = MetaNetworkConfig()
    language: Language = "profiles"

    def build(self, inputs: ModelInputs) -> DMRec:
        """The untrained model around a freshly built base."""
        items, users = language_of(self.name, inputs, self.language)
        return DMRec(self, self.base.build(inputs), items, users)


def _default_base() -> VariationalConfig:
    from rec_models.models import MultVAEConfig  # the union is closed after this module is defined

    return MultVAEConfig()


class MetaNetwork(nn.Module):
    """(batch, latent) language posterior from a user's rows and text.

    Source: DMRec equation 7 and the sentence after it.
    Deviations: torch's default initialisation, as in the code; the paper says Xavier (`init`). The pooled vector is the
    plain sum, as in both; `pool` and `unit_inputs` are ours.
    """

    item_vectors: Tensor
    user_vectors: Tensor
    item_present: Tensor

    def __init__(
        self,
        config: MetaNetworkConfig,
        items: SemanticMatrix,
        users: SemanticMatrix,
        latent_dim: int,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.config, self.clamp = config, clamp
        # Frozen and shared with the memory map they came from: never part of a checkpoint.
        self.register_buffer("item_vectors", items.vectors, persistent=False)
        self.register_buffer("user_vectors", users.vectors, persistent=False)
        self.register_buffer("item_present", items.present.float(), persistent=False)
        self.hidden = linear(items.dim, config.hidden_dim, config.init)
        self.moments = linear(config.hidden_dim, 2 * latent_dim, config.init)

    def gathered(self, batch: UserBatch) -> Tensor:
        """(batch, embedding) the text of the user's items, pooled, plus the user's own."""
        own = self.user_vectors[batch.users]
        if self.config.reads == "user_only":
            return own
        pooled = rows_times(batch, self.item_vectors)
        if self.config.pool != "sum":
            mass = torch.zeros(len(batch), dtype=pooled.dtype, device=pooled.device)
            mass.index_add_(0, batch.rows, batch.values * self.item_present[batch.items])
            mass = mass.clamp_min(1.0)[:, None]
            pooled = pooled / (mass if self.config.pool == "mean" else mass.sqrt())
        return pooled if self.config.reads == "items_only" else pooled + own

    def forward(self, batch: UserBatch) -> DiagonalGaussian:
        """The language posterior of each user in the batch."""
        text = self.gathered(batch)
        if self.config.unit_inputs:
            text = nn.functional.normalize(text, dim=-1)
        return DiagonalGaussian.from_halves(self.moments(torch.tanh(self.hidden(text))), self.clamp)


class DMRec(GradientRecommender):
    """DMRec on any base with a diagonal posterior.

    Source: DMRec equations 7-15 and 18.
    Deviations: follows the released code where the two differ (additive fusion in training and inference, the
    meta-network sees the same dropped rows as the encoder, early stopping counts evaluations); each matching documents
    its own. The divergence is scaled by the base's `kl_weight`, 1 in paper and code.
    """

    def __init__(
        self, config: DMRecConfig, collaborative: GradientRecommender, items: SemanticMatrix, users: SemanticMatrix
    ) -> None:
        super().__init__()
        self.config = config
        self.collaborative = collaborative
        self.meta_network = MetaNetwork(
            config.meta_network, items, users, self._variational.latent_dim, config.base.clamp_log_variance
        )

    @property
    def _variational(self) -> VariationalEncoderDecoder:
        return cast(VariationalEncoderDecoder, self.collaborative)

    def posteriors(self, rows: UserBatch) -> tuple[DiagonalGaussian, DiagonalGaussian, DiagonalGaussian]:
        """(fused, collaborative, language) posteriors for rows as the base corrupts or cleans them."""
        source, language = self._variational.encode(rows), self.meta_network(rows)
        return fuse(source, language, self.config.fuse), source, language

    def loss(self, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """Reconstruction from the fused posterior, and the weighted matching divergence."""
        fused, source, language = self.posteriors(self._variational.corrupt(batch, rng))
        divergence = self.config.matching.divergence(fused, source, language, rng).mean()
        return {
            "reconstruction": self._variational.reconstruction(fused.sample(rng), batch),
            "matching": self._variational.kl_scale(step) * divergence,
        }

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) logits of the mean of the decoded distribution."""
        return self._variational.decode(self.posteriors(self._variational.clean(batch))[0].mean)
