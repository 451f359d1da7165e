"""Factors of two channels of a user brought together: which go with which, and what each takes from the other."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rec_models.transport import sinkhorn

Alignment = Literal["sinkhorn", "softmax", "diagonal"]

# A plan is close enough where its rows miss their mass by less; the maps divide by what rows really hold.
_TOLERANCE = 1e-5


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """(batch, n, m) squared Euclidean distances of (batch, n, dim) and (batch, m, dim)."""
    return (a[:, :, None] - b[:, None]).square().sum(-1)


@torch.no_grad()
def alignment_plan(costs: Tensor, kind: Alignment, epsilon: float, iterations: int = 100) -> Tensor:
    """(batch, n, m) mass 1 a user, between the factors of two channels; no gradient.

    Args:
        costs: (batch, n, m).
        kind: `sinkhorn` an entropic transport plan between uniform factors; `softmax` of -costs / epsilon over all
            pairs, which leaves factors uneven; `diagonal` each factor with its namesake, which asks for n = m.
        epsilon: > 0, in units of the costs.
        iterations: of Sinkhorn, at most.

    Source: BANDVAE, its alignment and the ablations Norm and Diagonal.
    Deviations: none; in the log domain, since exp(-costs / epsilon) underflows at the smaller of the paper's epsilons.
    """
    costs = costs.detach() if costs.dtype == torch.float64 else costs.detach().float()
    if kind == "sinkhorn":
        return sinkhorn(costs, epsilon, iterations=iterations, tolerance=_TOLERANCE).plan
    if kind == "softmax":
        return torch.softmax((-costs / epsilon).flatten(1), -1).view_as(costs)
    return torch.eye(costs.shape[1], dtype=costs.dtype, device=costs.device).expand_as(costs) / costs.shape[1]


class AdaptiveFusion(nn.Module):
    """How much of what the other channel says a factor takes on: one positive number from the two vectors.

    Source: BANDVAE, its adaptive fusion; one network serves all channels.
    Deviations: the hidden activation, which the paper does not name, is tanh.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(2 * dim, max(1, dim // 2)), nn.Linear(max(1, dim // 2), 1)
        for layer in (self.hidden, self.out):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, own: Tensor, mapped: Tensor) -> Tensor:
        """(batch, factors, dim) what is added to `own`: `mapped` times the number."""
        return F.softplus(self.out(torch.tanh(self.hidden(torch.cat([own, mapped], -1))))) * mapped


def plan_entropy(plan: Tensor) -> Tensor:
    """(batch,) mean entropy of a plan's rows and columns as distributions, in bits; log2 of the factors if uniform.

    Source: BANDVAE, its table on epsilon.
    Deviations: none.
    """
    sides = []
    for axis in (-1, -2):
        shares = plan / plan.sum(axis, keepdim=True).clamp_min(1e-12)
        sides.append(torch.special.entr(shares).sum(axis).mean(-1))
    return (sides[0] + sides[1]) / (2 * torch.log(torch.tensor(2.0)).item())
