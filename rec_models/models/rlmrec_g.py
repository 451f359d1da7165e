"""RLMRec-G: some nodes forget their embedding, and their texts are told from what the graph says of them."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rec_models.blocks import leaky_mlp
from rec_models.graph import ranking_loss
from rec_models.interactions import PairBatch
from rec_models.losses import info_nce
from rec_models.semantic import ModelInputs, SemanticMatrix, language_of
from rec_models.text_graph import RLMRecConfig, TextGraph


class RLMRecGConfig(RLMRecConfig):
    """Settings of RLMRec-G; the defaults are those of its code on Amazon-Book.

    Attributes:
        reconstruction_weight: of telling the masked nodes' texts.
        mask_share: of all nodes, masked in a step; at least one is.
        temperature: of the softmax over the masked nodes' texts (τ).
    """

    name: Literal["rlmrec_g"] = "rlmrec_g"
    layers: int = Field(default=2, ge=0)
    reconstruction_weight: float = Field(default=0.1, ge=0)
    mask_share: float = Field(default=0.15, ge=0, lt=1)
    temperature: float = Field(default=0.5, gt=0)

    def build(self, inputs: ModelInputs) -> RLMRecG:
        """The untrained model."""
        return RLMRecG(self, inputs, *language_of(self.name, inputs, self.language))


class RLMRecG(TextGraph):
    """RLMRec with generative alignment.

    Source: RLMRec (Ren et al. 2024), section 3.3, and its code ("gene"), which is followed where the two differ.
    Deviations: masked nodes without text are not told and stand in no pool; the softmax is a log-sum-exp, where the
    code adds 1e-8 twice. As in the code, the ranking loss is taken on the masked graph: there is no second, clean pass.
    """

    present: Tensor

    def __init__(
        self, config: RLMRecGConfig, inputs: ModelInputs, items: SemanticMatrix, users: SemanticMatrix
    ) -> None:
        super().__init__(config, inputs, {"item": items, "user": users})
        self.weight, self.temperature = config.reconstruction_weight, config.temperature
        self.n_masked = max(1, int(config.mask_share * (self.n_users + self.n_items)))
        self.register_buffer("present", torch.cat([users.present, items.present]), persistent=False)
        self.mask_token = nn.Parameter(torch.zeros(1, config.dim))
        self.to_text = leaky_mlp(config.dim, config.width_between(items.dim), items.dim, xavier=True)

    def loss(self, batch: PairBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """BPR on the masked graph, the masked texts, and the penalty."""
        nodes = self.n_users + self.n_items
        masked = torch.randperm(nodes, generator=rng, device=batch.users.device)[: self.n_masked]
        hidden = torch.zeros(nodes, 1, dtype=torch.bool, device=masked.device)
        hidden[masked] = True
        users, items = self.smooth(torch.where(hidden, self.mask_token, self.first_layer()), rng)
        negatives = batch.negatives(rng).squeeze(1)
        return {
            "ranking": ranking_loss(users[batch.users], items[batch.items], items[negatives]),
            "reconstruction": self.weight * self.told(users, items, masked[self.present[masked]]),
            "penalty": self.config.l2_weight * self.squares(),
        }

    def told(self, users: Tensor, items: Tensor, nodes: Tensor) -> Tensor:
        """() mean -log of picking a node's own text among those of all these nodes; 0 if there is none."""
        of_users, of_items = nodes[nodes < self.n_users], nodes[nodes >= self.n_users] - self.n_users
        texts = torch.cat([self.user_vectors[of_users], self.item_vectors[of_items]])
        drawn = self.to_text(torch.cat([users[of_users], items[of_items]]))
        return info_nce(drawn, texts, texts, self.temperature) / max(1, len(nodes))
