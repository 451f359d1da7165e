"""An encoder that any process can open by importing this module: for clusters, whose workers share no patches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.stand_ins import DIM, HashedWords
from warehouse import VectorShards


class FastWords(HashedWords):
    """Vectors that follow from a text's bytes alone; fast enough for twenty thousand."""

    def encode(self, texts, on_progress=None):
        rows = [np.frombuffer(text.encode().ljust(DIM * 4, b".")[: DIM * 4], np.uint32) for text in texts]
        matrix = np.array(rows, np.float32)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


class WordsConfig:
    """Opens the encoder, as a provider's settings do."""

    model = "hashed"

    @contextmanager
    def open(self) -> Iterator[FastWords]:
        yield FastWords()


def die_once(shards: VectorShards, number: int, mark: str) -> str:
    """The shard of a number; the first process that is asked for number 3 dies of it."""
    if number == 3 and not os.path.exists(mark):
        with open(mark, "x"):
            os._exit(1)
    return shards.add(np.array([b"%064d" % number]), np.full((1, 2), number, np.float32))
