"""Encoders and their settings in one, for runs in which the vectors are not what is looked at; tests use them too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

DIM = 24


class StandInEncoder:
    """What every stand-in shares; a subclass gives `short_name`, `dim`, `model`, `dtype` and `encode`."""

    key = ""

    def describe(self) -> Self:
        """Itself: it is its own identity, too."""
        return self

    def identity(self) -> str:
        """What its vectors are known by."""
        return self.key

    def open(self) -> Self:
        """Itself: nothing is loaded."""
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class HashedWords(StandInEncoder):
    """Bags of hashed words as unit vectors: deterministic and offline."""

    key, short_name, dim, model, dtype = "d" * 64, "hashed", DIM, "hashed", "float32"

    def encode(self, texts: Sequence[str], on_progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """float32 [n, 24], each row of length 1."""
        matrix = np.zeros((len(texts), DIM), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                matrix[row, int(hashlib.sha256(word.encode()).hexdigest(), 16) % DIM] += 1
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
