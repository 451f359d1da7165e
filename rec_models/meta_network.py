"""The probabilistic meta-network: a user's rows and texts, read as a Gaussian in a base's latent space."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from rec_models.blocks import Init, linear, rows_times
from rec_models.gaussians import DiagonalGaussian
from rec_models.interactions import UserBatch
from rec_models.semantic import SemanticMatrix


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
        own = self.user_vectors[batch.users].float()
        if self.config.reads == "user_only":
            return own
        pooled = rows_times(batch, self.item_vectors).float()
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
