"""What stands behind a user's list, for people: factors, their items and words, and which factors go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
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
        plan: (batch, factors, n) mass that goes from each factor of the interactions to each of the text, 1 a user;
            where `signed`, the weight from -1 to 1 with which each factor takes on each of the text.
        sharp: the plan at a smaller epsilon, for people: it says who is nearest to whom where the model's own plan is
            almost even. None where `signed`: attention has no epsilon.
        signed: whether factors attend to each other, and may take on the opposite, rather than share out mass.
    """

    name: str
    shares: Tensor
    tops: Tensor
    unit_names: tuple[str, ...]
    plan: Tensor
    sharp: Tensor | None
    signed: bool = False


@dataclass(frozen=True)
class Explanation:
    """The factors of some users.

    Attributes:
        shares: (batch, factors) how much of a user's history each factor holds; rows sum to 1, or 0 without history.
        held: (batch, factors, k) int64 items of the history of which this factor holds more than any other does, the
            first the most; -1 where there are no more.
        tops: (batch, factors, k) int64 items each factor would show, the first the most.
        scores: (batch, factors, k) the factor's part of their log-odds; -inf where there are no more items to show.
        similarity: (batch,) mean cosine between two factors, as decoded.
        sides: one for each text channel; none without.
    """

    shares: Tensor
    held: Tensor
    tops: Tensor
    scores: Tensor
    similarity: Tensor
    sides: tuple[TextSide, ...] = ()


# At costs of unit vectors, 0 to 4, this plan follows the nearest pairs and still converges.
SHARP = 0.02


@runtime_checkable
class Explainable(Protocol):
    """A model that can say which factors stand behind a user's list."""

    def factors_of(
        self, batch: UserBatch, *, top: int = 10, epsilon: float = SHARP, taken: bool = False
    ) -> Explanation:
        """The factors of a batch, for looking at few users.

        Args:
            top: items and words a factor.
            epsilon: of the sharp plans.
            taken: whether items of the history may be among those a factor shows.
        """
        ...


def explanation_of(
    batch: UserBatch,
    weights: Tensor,
    scores: Tensor,
    factors: Tensor,
    *,
    top: int,
    taken: bool,
    sides: tuple[TextSide, ...] = (),
) -> Explanation:
    """An explanation from what a model computes anyway.

    Args:
        batch: the histories.
        weights: (nnz, factors) how much of each entry every factor holds.
        scores: (factors, batch, n_items) each factor's part of the log-odds.
        factors: (batch, factors, dim) as decoded.
    """
    n_users, n_factors, n_items = len(batch), weights.shape[1], scores.shape[-1]
    by_user = scores.transpose(0, 1).clone()
    if not taken:
        by_user[batch.rows, :, batch.items] = -torch.inf
    best, tops = by_user.topk(min(top, n_items))
    share, holder = weights.max(1)
    held = share.new_full((n_users, n_factors, n_items), -1.0)
    held[batch.rows, holder, batch.items] = share
    most, owned = held.topk(min(top, n_items))
    return Explanation(shares_of(batch, weights), owned.where(most >= 0, -1), tops, best, similarity(factors), sides)


def tops_of(scores: Tensor, top: int) -> Tensor:
    """(batch, factors, at most top) int64 units that factors score highest, from (factors, batch, n_units) scores."""
    by_user = scores.transpose(0, 1)
    return by_user.topk(min(top, by_user.shape[-1])).indices


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


def similarity(factors: Tensor) -> Tensor:
    """(batch,) mean cosine between two factors (batch, factors, dim) of a user; 0 of one alone."""
    unit, n = F.normalize(factors, dim=-1), factors.shape[1]
    cosines = (unit @ unit.mT).sum((1, 2)) - n
    return cosines / max(1, n * (n - 1))
