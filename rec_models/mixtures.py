"""A softmax over all units that is a mixture over factors: its likelihood and logits, a few users at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rec_models.blocks import products_with_all
from rec_models.interactions import UserBatch

# Users a slice: with four factors and 17,000 units its scores are 17 MB, which a third-level cache holds.
_USERS_AT_ONCE = 32
_USERS_OF_A_DEVICE = 512
# Lower, and float32 no longer holds the exponentials of two sharp cosines and a large Gumbel draw.
LOWEST_TEMPERATURE = 0.03


def mixture_nll(units: Tensor, factors: Tensor, bias: Tensor, assigned: Tensor | None, batch: UserBatch) -> Tensor:
    """() mean over users of the negative log-likelihood of their entries under a mixture over factors, in nats.

    The logit of unit i is logsumexp_k(<units_i, factors_k> + bias_ki), where `assigned` is given less
    logsumexp_k(<units_i, assigned_k> + bias_ki). With factors q/tau + c/tau, assigned q/tau and a Gumbel draw as bias
    that is log sum_k A_ik exp(cos(c_k, units_i)/tau) for assignments A = softmax_k(<units_i, q_k>/tau + bias_ki) that
    nobody holds; with log A as bias and nothing assigned it is the same for an A that all users share.

    Args:
        units: (n_units, dim) rows of unit length.
        factors: (n_factors, batch, dim).
        bias: (n_factors, n_units), or (n_factors, batch, n_units) where users differ.
        assigned: (n_factors, batch, dim) or None.
        batch: the true rows; an entry's value is its count or weight.

    Source: the decoder of MacridVAE (Ma et al. 2019) and both of BANDVAE's, differentiated by hand.
    Deviations: none; BANDVAE's printed normaliser keeps the numerator's index on its assignments. Equal to autograd
    over the dense form up to rounding. No maxima are taken out: scores of unit vectors are bounded, so that their
    exponentials stay in range down to `LOWEST_TEMPERATURE`.
    """
    return _MixtureNLL.apply(units, factors, bias, assigned, batch)  # type: ignore[no-any-return]


@torch.no_grad()
def mixture_logits(units: Tensor, factors: Tensor, bias: Tensor, assigned: Tensor | None) -> Tensor:
    """(batch, n_units) the logits of `mixture_nll`, outside any graph."""
    logits = torch.empty(factors.shape[1], len(units), dtype=units.dtype, device=units.device)
    with torch.autocast(units.device.type, enabled=False):
        for some in _slices(factors.shape[1], units.device):
            block, _ = _exponentials(units, factors[:, some], _of_users(bias, some), _some(assigned, some))
            torch.log(block[0].sum(0), out=logits[some])
            if assigned is not None:
                logits[some] -= block[1].sum(0).log_()
    return logits


class _MixtureNLL(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx, units: Tensor, factors: Tensor, bias: Tensor, assigned: Tensor | None, batch: UserBatch
    ) -> Tensor:
        wanted = ctx.needs_input_grad[:4]
        of_units, of_factors = torch.zeros_like(units), torch.empty_like(factors)
        of_bias = torch.zeros_like(bias) if wanted[2] else None
        of_assigned = torch.empty_like(factors) if wanted[3] else None
        loss = units.new_zeros(())
        values = batch.values.to(units.dtype) / len(batch)
        with torch.autocast(units.device.type, enabled=False):
            for some, entries in _slices_with_entries(batch):
                rows, items = batch.rows[entries] - some.start, batch.items[entries]
                block, vectors = _exponentials(units, factors[:, some], _of_users(bias, some), _some(assigned, some))
                loss += _slopes_in_place(block, rows, items, values[entries])
                if not any(wanted):
                    continue
                of_units.addmm_(block.view(len(vectors), -1).t(), vectors)
                of_factors[:, some] = (block[0].view(-1, len(units)) @ units).view(len(factors), -1, units.shape[1])
                if of_assigned is not None:
                    of_assigned[:, some] = (block[1].view(-1, len(units)) @ units).view_as(of_assigned[:, some])
                if of_bias is not None:
                    _of_users(of_bias, some).add_(block.sum(0) if bias.dim() == 3 else block.sum((0, 2))[:, None])
        ctx.save_for_backward(of_units, of_factors, of_bias, of_assigned)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return *(None if grad is None else grad * grad_loss for grad in ctx.saved_tensors), None


def _exponentials(units: Tensor, factors: Tensor, bias: Tensor, assigned: Tensor | None) -> tuple[Tensor, Tensor]:
    """(1 or 2, factors, users, units) exponentials of scores of factors and of assigned, and the vectors multiplied."""
    both = factors[None] if assigned is None else torch.stack([factors, assigned])
    vectors = both.reshape(-1, units.shape[1])
    block = products_with_all(vectors, units).view(*both.shape[:3], len(units))
    return block.add_(bias).exp_(), vectors


def _slopes_in_place(block: Tensor, rows: Tensor, items: Tensor, values: Tensor) -> Tensor:
    """() likelihood of some users' entries; `block` becomes the derivative of it by every score."""
    mass = block.sum(1)  # (1 or 2, users, units)
    odds = mass[0] if len(mass) == 1 else mass[0] / mass[1]  # exp(logit)
    totals = odds.sum(-1)
    counts = torch.zeros_like(totals).index_add_(0, rows, values)
    nll = (counts * totals.log()).sum() - (odds[rows, items].log() * values).sum()
    # by each logit: what is expected of it less what is there, the same for all factors
    slope = odds * (counts / totals)[:, None]
    slope.view(-1).index_add_(0, rows * slope.shape[1] + items, -values)
    block[0].mul_(slope / mass[0])
    if len(mass) == 2:
        block[1].mul_(slope.div_(mass[1]).neg_())
    return nll


def _slices(n_users: int, device: torch.device) -> Iterator[slice]:
    width = _USERS_AT_ONCE if device.type == "cpu" else _USERS_OF_A_DEVICE
    return (slice(start, min(start + width, n_users)) for start in range(0, n_users, width))


def _slices_with_entries(batch: UserBatch) -> Iterator[tuple[slice, slice]]:
    """Some users at a time, and where their entries lie."""
    starts = list(_slices(len(batch), batch.rows.device))
    bounds = [*batch.offsets[[some.start for some in starts]].tolist(), len(batch.rows)]  # one wait for a device
    return zip(starts, (slice(*pair) for pair in pairwise(bounds)), strict=True)


def _of_users(bias: Tensor, some: slice) -> Tensor:
    """(factors, 1 or users, units)."""
    return bias[:, None] if bias.dim() == 2 else bias[:, some]


def _some(assigned: Tensor | None, some: slice) -> Tensor | None:
    return None if assigned is None else assigned[:, some]
