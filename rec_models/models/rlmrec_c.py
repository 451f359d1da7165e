"""RLMRec-C: vectors on the graph are drawn to their texts, mapped into the same space, and away from others' texts."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from rec_models.blocks import leaky_mlp
from rec_models.graph import EmbeddedGraph, GraphConfig, ranking_loss
from rec_models.interactions import PairBatch
from rec_models.losses import info_nce
from rec_models.semantic import Language, ModelInputs, SemanticMatrix, language_of


class RLMRecCConfig(GraphConfig):
    """Settings of RLMRec-C; the defaults are those of its code on Amazon-Book.

    Attributes:
        alignment_weight: of the contrast between vectors and texts; 0 is LightGCN with this penalty.
        temperature: of the contrast (τ).
        hidden_dim: of the map from texts; null is half the sum of its two ends.
        language: `profiles`, or a control that carries no meaning: `shuffled` texts, `random` vectors.
    """

    paper: ClassVar[str] = "Ren et al., Representation Learning with Large Language Models (RLMRec), WWW 2024"
    reads_language: ClassVar[bool] = True

    name: Literal["rlmrec_c"] = "rlmrec_c"
    l2_weight: float = Field(default=1e-7, ge=0)
    alignment_weight: float = Field(default=1e-2, ge=0)
    temperature: float = Field(default=0.2, gt=0)
    hidden_dim: int | None = Field(default=None, ge=1)
    language: Language = "profiles"

    def build(self, inputs: ModelInputs) -> RLMRecC:
        """The untrained model."""
        return RLMRecC(self, inputs, *language_of(self.name, inputs, self.language))


class RLMRecC(EmbeddedGraph):
    """RLMRec with contrastive alignment.

    Source: RLMRec (Ren et al. 2024), section 3.3, and its code ("plus"), which is followed where the two differ.
    Deviations: nodes without text neither align nor stand in a pool. As in the code, users are contrasted with all
    users and items only within the batch, taken and untaken ones apart; a repeated item counts as often as it is there.
    Equal rows are computed once and weighted, which changes nothing but the time.
    """

    item_vectors: Tensor
    user_vectors: Tensor
    item_present: Tensor
    user_present: Tensor

    def __init__(
        self, config: RLMRecCConfig, inputs: ModelInputs, items: SemanticMatrix, users: SemanticMatrix
    ) -> None:
        super().__init__(config, inputs.train)
        self.alignment_weight, self.temperature = config.alignment_weight, config.temperature
        for side, matrix in (("item", items), ("user", users)):
            self.register_buffer(f"{side}_vectors", matrix.vectors.float(), persistent=False)
            self.register_buffer(f"{side}_present", matrix.present, persistent=False)
        self.from_text = leaky_mlp(
            items.dim, config.hidden_dim or (items.dim + config.dim) // 2, config.dim, xavier=True
        )

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
