"""What stands behind a user's list, for people: factors, their items and words, and which factors go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rec_models.interactions import UserBatch


@dataclass(frozen=True)
class TextSide:
    """The text factors of some users.

    Attributes:
        name: which texts: `words`, `concepts`, `hybrid` or `items`.
        shares: (batch, n) how much of a user's text each factor holds; rows sum to 1, or 0 without text.
        tops: (batch, n, k) int64 units a factor speaks of most, the first the most.
        unit_names: what the units are called; empty where they are items.
        plan: (batch, factors, n) mass that goes from each factor of the interactions to each of the text; 1 a user.
    """

    name: str
    shares: Tensor
    tops: Tensor
    unit_names: tuple[str, ...]
    plan: Tensor


@dataclass(frozen=True)
class Explanation:
    """The factors of some users.

    Attributes:
        shares: (batch, factors) how much of a user's history each factor holds; rows sum to 1, or 0 without history.
        tops: (batch, factors, k) int64 items each factor would show, the first the most.
        scores: (batch, factors, k) the factor's part of their log-odds.
        sides: one for each text channel; none without.
    """

    shares: Tensor
    tops: Tensor
    scores: Tensor
    sides: tuple[TextSide, ...]


@runtime_checkable
class Explainable(Protocol):
    """A model that can say which factors stand behind a user's list."""

    def factors_of(self, batch: UserBatch, *, top: int = 10, epsilon: float | None = None) -> Explanation:
        """The factors of a batch: their `top` items without those taken, and words, and how channels go together."""
        ...


def shares_of(rows: UserBatch, weights: Tensor) -> Tensor:
    """(batch, factors) how much of each row every factor holds, from (nnz, factors) shares of the entries."""
    held = weights.new_zeros(len(rows), weights.shape[1]).index_add_(0, rows.rows, weights * rows.values[:, None])
    return held / held.sum(-1, keepdim=True).clamp_min(1e-12)


def overlap(tops: Tensor) -> Tensor:
    """(batch,) mean share of units that two factors' lists (batch, factors, k) have in common; lower is more distinct.

    Source: BANDVAE, its table on the weight of the text.
    Deviations: none.
    """
    n = tops.shape[1]
    common = (tops[:, :, None, :, None] == tops[:, None, :, None, :]).any(-1).float().mean(-1)  # (batch, n, n)
    first, second = torch.triu_indices(n, n, 1)
    return common[:, first, second].mean(-1) if n > 1 else common.new_zeros(len(tops))
