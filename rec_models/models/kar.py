"""KAR: a mixture of small experts turns texts into features that join the embeddings on the graph."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rec_models.semantic import ModelInputs, SemanticMatrix, language_of, own_names, whose_texts
from rec_models.text_graph import TextGraph, TextGraphConfig

SIDES = ("user", "item")
# What KAR asks a language model for, under the names a bundle gives it; profiles stand in for what is not there.
OWN_TEXTS = {"user": "users_preference", "item": "items_factual"}


class KARConfig(TextGraphConfig):
    """Settings of KAR on LightGCN.

    Attributes:
        shared_experts: experts that read users and items alike.
        own_experts: experts of each side.
        expert_hidden_dim: width of an expert's hidden layer.
        concat_at: features join the embeddings before the graph (`input`) or the final vectors after it (`output`).
    """

    paper: ClassVar[str] = "Xi et al., Towards Open-World Recommendation with Knowledge Augmentation (KAR), RecSys 2024"

    name: Literal["kar"] = "kar"
    shared_experts: int = Field(default=2, ge=0)
    own_experts: int = Field(default=5, ge=1)
    expert_hidden_dim: int = Field(default=128, ge=1)
    concat_at: Literal["input", "output"] = "input"

    def build(self, inputs: ModelInputs) -> KAR:
        """The untrained model."""
        names = own_names(inputs, OWN_TEXTS)
        items, users = language_of(self.name, inputs, self.language, items=names["item"], users=names["user"])
        return KAR(self, inputs, {"user": users, "item": items}, names)


class Experts(nn.Module):
    """`n` two-layer experts side by side, ReLU after either layer, so that what they say is never negative."""

    def __init__(self, n: int, n_in: int, hidden: int, n_out: int) -> None:
        super().__init__()
        self.shape = n, hidden
        self.first = nn.Linear(n_in, n * hidden)
        self.second = nn.Parameter(torch.empty(n, hidden, n_out).uniform_(-1, 1) / math.sqrt(hidden))
        self.bias = nn.Parameter(torch.empty(n, n_out).uniform_(-1, 1) / math.sqrt(hidden))

    def forward(self, text: Tensor) -> Tensor:
        """(rows, n, n_out)."""
        hidden = torch.relu(self.first(text)).unflatten(1, self.shape)
        # (rows, n, hidden) x (n, hidden, out) -> (rows, n, out)
        return torch.relu(torch.einsum("rnh,nho->rno", hidden, self.second) + self.bias)


class HybridExpertAdaptor(nn.Module):
    """(rows, dim) features of texts: experts of both sides and of one, weighed by a gate that reads the text.

    Source: KAR (Xi et al. 2024), section 3.3, and its code.
    Deviations: none; its dropout is 0 in the code and left out.
    """

    def __init__(self, config: KARConfig, dims: dict[str, int]) -> None:
        super().__init__()
        widths = config.expert_hidden_dim, config.dim
        self.shared = Experts(config.shared_experts, dims["item"], *widths) if config.shared_experts else None
        self.own = nn.ModuleDict({side: Experts(config.own_experts, dims[side], *widths) for side in SIDES})
        n = config.shared_experts + config.own_experts
        self.gates = nn.ModuleDict({side: nn.Linear(dims[side], n) for side in SIDES})

    def gate(self, side: str, text: Tensor) -> Tensor:
        """(rows, experts) weights that sum to 1, shared experts first."""
        return torch.softmax(self.gates[side](text).float(), -1)

    def forward(self, side: str, text: Tensor) -> Tensor:
        """(rows, dim)."""
        said = self.own[side](text)
        if self.shared is not None:
            said = torch.cat([self.shared(text), said], 1)
        return (self.gate(side, text)[..., None] * said).sum(1)


class KAR(TextGraph):
    """KAR's adaptor in front of LightGCN.

    Source: KAR (Xi et al. 2024) for the adaptor; for its use here only a remark of RLMRec's authors: "the augmented
    vector is concatenated with the embedding and fed on".
    Deviations: KAR ranks clicks with other networks; here its features are concatenated with the embedding and mapped
    back to its width by a linear layer a side, then LightGCN goes on (`concat_at=input`; `output` concatenates final
    vectors instead, without a map). What follows the concatenation is our reading. Its two kinds of text, preferences
    and factual knowledge, are read where the bundle holds them (`users_preference`, `items_factual`), else the
    profiles; `provenance` says which. Nodes without text have features of zero.
    """

    def __init__(
        self, config: KARConfig, inputs: ModelInputs, texts: dict[str, SemanticMatrix], names: dict[str, str]
    ) -> None:
        super().__init__(config, inputs, texts)
        self.concat_at, self.names = config.concat_at, names
        self.adaptor = HybridExpertAdaptor(config, {side: matrix.dim for side, matrix in texts.items()})
        joins = SIDES if config.concat_at == "input" else ()
        self.joins = nn.ModuleDict({side: nn.Linear(2 * config.dim, config.dim) for side in joins})

    def provenance(self) -> dict[str, str]:
        """Which matrices stand for users' preferences and for factual knowledge of items."""
        return whose_texts(self.names, OWN_TEXTS)

    def features(self, side: str) -> Tensor:
        """(n, dim) what the adaptor says of every user or item; zero where there is no text."""
        said = self.adaptor(side, self.get_buffer(f"{side}_vectors"))
        return said * self.get_buffer(f"{side}_present")[:, None]

    def first_layer(self) -> Tensor:
        """Embeddings, with the features joined in where they join at the input."""
        if self.concat_at == "output":
            return super().first_layer()
        tables = {"user": self.user_table, "item": self.item_table}
        joined = [self.joins[side](torch.cat([table, self.features(side)], 1)) for side, table in tables.items()]
        return torch.cat(joined)

    def smooth(self, table: Tensor, rng: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Final vectors, with the features beside them where they join at the output."""
        users, items = super().smooth(table, rng)
        if self.concat_at == "input":
            return users, items
        return torch.cat([users, self.features("user")], 1), torch.cat([items, self.features("item")], 1)
