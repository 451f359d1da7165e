"""Random: every user is shown a permutation of their own."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from rec_models.interactions import InteractionMatrix, UserBatch
from rec_models.recommender import ClosedFormRecommender, RecommenderConfig
from rec_models.semantic import ModelInputs

# Odd constants of a mixing function on 32 bits. Products wrap at 64 bits, which leaves their lower 32 right.
_FIRST, _SECOND, _MASK = 0x7FEB352D, 0x846CA68B, 0xFFFFFFFF


class RandomConfig(RecommenderConfig):
    """Random has no settings."""

    paper: ClassVar[str] = "none: the floor under every other number"

    name: Literal["random"] = "random"

    def build(self, inputs: ModelInputs) -> Random:
        """The model; the seed decides its permutations."""
        return Random(inputs.n_items, inputs.seed)


class Random(ClosedFormRecommender):
    """Scores are hashes of seed, user and item: no state, the same whenever they are asked for.

    Source: none.
    Deviations: none.
    """

    def __init__(self, n_items: int, seed: int) -> None:
        super().__init__()
        self.n_items, self.seed = n_items, seed

    def fit(self, train: InteractionMatrix) -> None:
        """Learns nothing."""

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) in [0, 1)."""
        users = _mixed(_mixed(batch.users + self.seed)[:, None] + torch.arange(self.n_items, device=batch.users.device))
        return (users >> 8).float() / (1 << 24)


def _mixed(numbers: Tensor) -> Tensor:
    """int64 in [0, 2^32): a bijection on the lower 32 bits in which every bit depends on every other."""
    numbers = numbers & _MASK
    numbers = ((numbers ^ (numbers >> 16)) * _FIRST) & _MASK
    numbers = ((numbers ^ (numbers >> 15)) * _SECOND) & _MASK
    return numbers ^ (numbers >> 16)
