"""EASE: an item-item regression with a zero diagonal, solved in closed form."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from rec_models.blocks import rows_times
from rec_models.interactions import InteractionMatrix, UserBatch
from rec_models.least_squares import gram
from rec_models.recommender import ClosedFormRecommender, RecommenderConfig
from rec_models.semantic import Language, ModelInputs, items_of


class EASEConfig(RecommenderConfig):
    """Settings of EASE.

    Attributes:
        regularization: L2 penalty on the item-item weights; sparse data wants thousands, dense data hundreds.
        text_weight: each dimension of the items' vectors stands below the interactions as one user more, who took
            items to that degree, times this weight. 0 reads no text.
        text_centred: subtract the mean vector first: what all texts share says nothing of any.
        language: `profiles`, or a control that carries no meaning: `shuffled` texts, `random` vectors.
    """

    paper: ClassVar[str] = "Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019"

    name: Literal["ease"] = "ease"
    regularization: float = Field(default=500.0, gt=0)
    text_weight: float = Field(default=0.0, ge=0)
    text_centred: bool = True
    language: Language = "profiles"

    @property
    def asks_for_language(self) -> bool:
        """Where texts have weight."""
        return self.text_weight > 0

    def build(self, inputs: ModelInputs) -> EASE:
        """The unsolved model."""
        if not self.asks_for_language:
            return EASE(self, inputs.n_items, None)
        items = items_of(self.name, inputs, self.language)
        vectors, present = items.vectors.float(), items.present[:, None]
        if self.text_centred:
            mean = (vectors * present).sum(0) / present.sum().clamp_min(1)
            vectors = (vectors - mean) * present
        return EASE(self, inputs.n_items, vectors)


class EASE(ClosedFormRecommender):
    """EASE.

    Source: Steck 2019, equation 8.
    Deviations: none without `text_weight`, which is ours. The inverse is taken through a float32 Cholesky factor.
    """

    item_weights: Tensor
    item_texts: Tensor | None

    def __init__(self, config: EASEConfig, n_items: int, item_texts: Tensor | None) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("item_weights", torch.zeros(n_items, n_items))
        self.register_buffer("item_texts", item_texts, persistent=False)

    def fit(self, train: InteractionMatrix) -> None:
        """Solves for the item-item weights; memory is two n_items^2 float32 matrices."""
        matrix = gram(train, self.item_weights.device)
        if self.item_texts is not None:
            matrix.addmm_(self.item_texts, self.item_texts.t(), alpha=self.config.text_weight**2)
        matrix.diagonal().add_(self.config.regularization)
        factor = torch.linalg.cholesky(matrix)
        del matrix  # as large as the inverse that follows
        weights = torch.cholesky_inverse(factor)
        del factor
        weights.div_(-weights.diagonal().clone())  # column j over -P_jj
        weights.fill_diagonal_(0)
        self.item_weights = weights.contiguous()

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) history times item-item weights."""
        return rows_times(batch, self.item_weights)
