"""Embeddings on the graph beside frozen texts of users and items: what RLMRec's two variants and KAR share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from rec_models.graph import EmbeddedGraph, GraphConfig
from rec_models.semantic import Language, ModelInputs, SemanticMatrix, keep_texts


class TextGraphConfig(GraphConfig):
    """Settings of embeddings on the graph that have texts beside them.

    Attributes:
        language: `profiles`, or a control that carries no meaning: `shuffled` texts, `random` vectors.
    """

    reads_language: ClassVar[bool] = True

    language: Language = "profiles"


class RLMRecConfig(TextGraphConfig):
    """Settings that both alignments of RLMRec share; the defaults are those of its code on Amazon-Book.

    Attributes:
        hidden_dim: of the map between texts and embeddings; null is half the sum of its two ends.
    """

    paper: ClassVar[str] = "Ren et al., Representation Learning with Large Language Models (RLMRec), WWW 2024"

    l2_weight: float = Field(default=1e-7, ge=0)
    hidden_dim: int | None = Field(default=None, ge=1)

    def width_between(self, text_dim: int) -> int:
        """Of the hidden layer of the map."""
        return self.hidden_dim or (text_dim + self.dim) // 2


class TextGraph(EmbeddedGraph):
    """Embeddings on the graph, and the text of every user and item as a frozen vector.

    Args:
        texts: `user` and `item` -> their matrices.
    """

    item_vectors: Tensor
    user_vectors: Tensor
    item_present: Tensor
    user_present: Tensor

    def __init__(self, config: TextGraphConfig, inputs: ModelInputs, texts: Mapping[str, SemanticMatrix]) -> None:
        super().__init__(config, inputs.train)
        keep_texts(self, texts)
