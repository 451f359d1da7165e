"""RLMRec-C: vectors on the graph are drawn to their texts, mapped into the same space, and away from others' texts."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from rec_models.blocks import leaky_mlp
from rec_models.graph import ranking_loss
from rec_models.interactions import PairBatch
from rec_models.losses import info_nce
from rec_models.semantic import ModelInputs, SemanticMatrix, language_of
from rec_models.text_graph import RLMRecConfig, TextGraph


class RLMRecCConfig(RLMRecConfig):
    """Settings of RLMRec-C; the defaults are those of its code on Amazon-Book.

    Attributes:
        alignment_weight: of the contrast between vectors and texts; 0 is LightGCN with this penalty.
        temperature: of the contrast (τ).
    """

    name: Literal["rlmrec_c"] = "rlmrec_c"
    alignment_weight: float = Field(default=1e-2, ge=0)
    temperature: float = Field(default=0.2, gt=0)

    def build(self, inputs: ModelInputs) -> RLMRecC:
        """The untrained model."""
        return RLMRecC(self, inputs, *language_of(self.name, inputs, self.language))


class RLMRecC(TextGraph):
    """RLMRec with contrastive alignment.

    Source: RLMRec (Ren et al. 2024), section 3.3, and its code ("plus"), which is followed where the two differ.
    Deviations: nodes without text neither align nor stand in a pool. As in the code, users are contrasted with all
    users and items only within the batch, taken and untaken ones apart; a repeated item counts as often as it is there.
    Equal rows are computed once and weighted, which changes nothing but the time.
    """

    def __init__(
        self, config: RLMRecCConfig, inputs: ModelInputs, items: SemanticMatrix, users: SemanticMatrix
    ) -> None:
        super().__init__(config, inputs, {"item": items, "user": users})
        self.alignment_weight, self.temperature = config.alignment_weight, config.temperature
        self.from_text = leaky_mlp(items.dim, config.width_between(items.dim), config.dim, xavier=True)

    def loss(self, batch: PairBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """BPR, the contrast with texts, and the penalty."""
        users, items = self.smooth(self.first_layer(), rng)
        negatives = batch.negatives(rng).squeeze(1)
        contrast = self.user_contrast(users, batch.users)
        contrast = contrast + self.item_contrast(items, batch.items) + self.item_contrast(items, negatives)
        return {
            "ranking": ranking_loss(users[batch.users], items[batch.items], items[negatives]),
            "alignment": self.alignment_weight * contrast / len(batch),
            "penalty": self.config.l2_weight * self.squares(),
        }

    def user_contrast(self, users: Tensor, chosen: Tensor) -> Tensor:
        """() summed over the chosen users: each against the texts of all users."""
        mapped = self.from_text(self.user_vectors)
        found, counts = torch.unique(chosen[self.user_present[chosen]], return_counts=True)
        return info_nce(users[found], mapped[found], mapped[self.user_present], self.temperature, weights=counts)

    def item_contrast(self, items: Tensor, chosen: Tensor) -> Tensor:
        """() summed over the chosen items: each against the texts of the chosen."""
        found, counts = torch.unique(chosen[self.item_present[chosen]], return_counts=True)
        mapped = self.from_text(self.item_vectors[found])
        return info_nce(items[found], mapped, mapped, self.temperature, weights=counts, counts=counts)
