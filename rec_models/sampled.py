"""Large catalogues: a likelihood over some of the items, and an optimiser that moves the rows a batch has touched."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rec_models.interactions import UserBatch
from rec_models.losses import decoded_multinomial_nll


@dataclass(frozen=True)
class Candidates:
    """Items that stand for the catalogue in one step.

    Attributes:
        items: (n,) int64, those of the batch first, ascending, then the drawn ones, ascending.
        places: (nnz,) where each entry of the batch stands among them.
        corrections: (n,) what is added to their logits: 0 for the items of the batch, and for each drawn one the
            logarithm of how many items it stands for.
    """

    items: Tensor
    places: Tensor
    corrections: Tensor


def candidates_of(batch: UserBatch, n_drawn: int, rng: torch.Generator | None) -> Candidates:
    """The items of a batch, and one of each of `n_drawn` equal shares of all others.

    Each other item is expected n_drawn / (number of others) times, so that the sum of exp(logit + correction) over the
    candidates is on average that over the catalogue. As many draws as there are others are all of them, once each.
    """
    own, places = torch.unique(batch.items, return_inverse=True)
    n_others = batch.n_items - len(own)
    n_drawn = min(n_drawn, n_others)
    if n_drawn == 0:
        return Candidates(own, places, torch.zeros(len(own), device=own.device))
    within = torch.rand(n_drawn, generator=rng, device=own.device, dtype=torch.float64)
    share = n_others / n_drawn
    ranks = ((torch.arange(n_drawn, device=own.device) + within) * share).long().clamp_max(n_others - 1)
    # the r-th item that is not in the batch is r plus the number of the batch's items before it
    before = torch.searchsorted(own - torch.arange(len(own), device=own.device), ranks, right=True)
    corrections = torch.cat([torch.zeros(len(own)), torch.full((n_drawn,), math.log(share))]).to(own.device)
    return Candidates(torch.cat([own, ranks + before]), places, corrections)


def sampled_multinomial_nll(
    hidden: Tensor, weight: Tensor, bias: Tensor, batch: UserBatch, n_drawn: int, rng: torch.Generator | None
) -> Tensor:
    """() mean over users of the multinomial negative log-likelihood, its normaliser estimated from candidates.

    Args:
        hidden: (batch, width).
        weight: (n_items, width); its gradient is sparse.
        bias: (n_items,).
        n_drawn: items drawn beside those of the batch.

    Source: importance sampling of the softmax with the logQ correction (Bengio and Senecal 2008; Yi et al. 2019).
    Deviations: the items of the batch are all counted, at their own weight, and only the others are estimated: what
    users of a batch took is what most of the mass is on. The normaliser's logarithm is then a little too low on
    average, by Jensen's inequality, and exact where everything is drawn.
    """
    chosen = candidates_of(batch, n_drawn, rng)
    among = replace(batch, items=chosen.places, n_items=len(chosen.items))
    rows = F.embedding(chosen.items, weight, sparse=True)
    return decoded_multinomial_nll(hidden, rows, bias[chosen.items] + chosen.corrections, among)


class RowAdam(torch.optim.Adam):
    """Adam, which of a sparse gradient takes the rows alone: each row has an Adam of its own over the steps it was in.

    A step then moves the rows of a batch and not the table. Dense gradients are taken as ever.

    Source: Adam (Kingma and Ba 2015), a row at a time.
    Deviations: Adam itself would go on moving a row by its old moments while nothing is said of it, and would decay
    its weights. torch's SparseAdam counts the steps of the whole table, which makes the first step of a rare row three
    times as long as that of a row from the first batch.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and weight.grad.is_sparse:
                    self._move_rows(weight, weight.grad.coalesce(), group)
                    weight.grad = None
        return super().step(closure)

    def _move_rows(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(len(weight), device=weight.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        rows, values = grad.indices()[0], grad.values()
        if group["weight_decay"]:
            values = values + group["weight_decay"] * weight[rows]
        state["step"].index_add_(0, rows, torch.ones_like(rows, dtype=torch.float32))
        steps = state["step"][rows][:, None]
        (first, second), rate = group["betas"], group["lr"]
        mean = state["exp_avg"][rows].lerp_(values, 1 - first)
        square = state["exp_avg_sq"][rows].lerp_(values.square(), 1 - second)
        state["exp_avg"].index_copy_(0, rows, mean)
        state["exp_avg_sq"].index_copy_(0, rows, square)
        spread = (square / (1 - second**steps)).sqrt_().add_(group["eps"])
        weight.index_add_(0, rows, (mean / (1 - first**steps)).div_(spread), alpha=-rate)
