"""Words of items as models see them: sparse weights in index order, and which word a column is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rec_models.errors import TextFeaturesError
from rec_models.interactions import InteractionMatrix


@dataclass(frozen=True)
class TextFeatures:
    """What the texts of all items say, counted in a fixed vocabulary.

    Attributes:
        words: (n_items, n_words) weights >= 0, such as tf-idf with rows of unit length; an item without text has an
            empty row. Its rows are items and its columns words: what `InteractionMatrix` calls users and items.
        vocabulary: (n_words,) the word of each column; people read these, models only count them.

    Raises:
        TextFeaturesError: columns and vocabulary differ in number, or a weight is negative or not finite.
    """

    words: InteractionMatrix
    vocabulary: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.vocabulary) != self.words.n_items:
            raise TextFeaturesError(f"{self.words.n_items} columns for a vocabulary of {len(self.vocabulary)} words")
        weights = np.asarray(self.words.values)
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise TextFeaturesError("a weight is negative or not finite")

    @property
    def n_words(self) -> int:
        return len(self.vocabulary)
