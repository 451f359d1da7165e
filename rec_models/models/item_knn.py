"""ItemKNN: items are worth the similarity of their nearest neighbours to what a user took."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from rec_models.interactions import InteractionMatrix
from rec_models.item_weights import ItemWeights, Weighting, nearest_items, weighted_rows
from rec_models.recommender import RecommenderConfig
from rec_models.semantic import ModelInputs


class ItemKNNConfig(RecommenderConfig):
    """Settings of ItemKNN.

    Attributes:
        k: neighbours an item.
        shrinkage: added to the denominator of the cosine, against items that few users tell apart.
        weighting: of interactions before similarities are taken: `tfidf` and `bm25` let users who took much count less.
    """

    paper: ClassVar[str] = "Sarwar et al., Item-based Collaborative Filtering Recommendation Algorithms, WWW 2001"

    name: Literal["item_knn"] = "item_knn"
    k: int = Field(default=200, ge=1)
    shrinkage: float = Field(default=50.0, ge=0)
    weighting: Weighting = "tfidf"

    def build(self, inputs: ModelInputs) -> ItemKNN:
        """The unsolved model."""
        return ItemKNN(self, inputs.n_items)


class ItemKNN(ItemWeights):
    """ItemKNN.

    Source: Sarwar et al. 2001, sections 3.1.1 and 3.2.1; Deshpande & Karypis 2004.
    Deviations: scores are sums of similarities, without division by their total, which would rank an item with one
    neighbour as high as one with many. The k neighbours are those of the item that is scored.
    """

    def __init__(self, config: ItemKNNConfig, n_items: int) -> None:
        super().__init__(n_items, config.k)
        self.config = config

    def fit(self, train: InteractionMatrix) -> None:
        """Finds the neighbours; memory is that of their table and of 512 rows of products with all items."""
        rows = weighted_rows(train, self.config.weighting)
        self.keep(*nearest_items(rows, self.config.k, self.config.shrinkage))
