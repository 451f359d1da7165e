"""Likelihoods and contrasts; the multinomial one without ever holding a dense target or a float32 softmax."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor
from torch.autograd.function import once_differentiable

from rec_models.blocks import products_with_all
from rec_models.interactions import UserBatch

# Rows per slice of the element-wise part: 64 x 10,000 float32 stay in the second-level cache.
_ROWS_AT_ONCE = 64
_ROWS_OF_A_DEVICE = 4096
# Products of a matrix product that a CPU makes in the time of one product by gathered rows.
_CELLS_A_CHOICE = 10


def multinomial_nll(logits: Tensor, batch: UserBatch) -> Tensor:
    """(batch,) negative log-likelihood of each user's entries under softmax(logits), in nats.

    Args:
        logits: (batch, n_items).
        batch: the true, undropped rows; an entry's value is its count.

    Source: Mult-VAE (Liang et al. 2018), equation 2.
    Deviations: users weigh by their number of items, as in DMRec's code; DMRec's equation 18 omits the minus sign.
    """
    normaliser = torch.logsumexp(logits.float() if logits.dtype != torch.float64 else logits, dim=-1)
    picked = logits[batch.rows, batch.items].to(normaliser.dtype) * batch.values
    total = torch.zeros_like(normaliser).index_add_(0, batch.rows, picked)
    counts = torch.zeros_like(normaliser).index_add_(0, batch.rows, batch.values.to(normaliser.dtype))
    return counts * normaliser - total


def decoded_multinomial_nll(hidden: Tensor, weight: Tensor, bias: Tensor, batch: UserBatch) -> Tensor:
    """() mean over users of multinomial_nll(hidden @ weight.T + bias), with its gradient made on the way.

    Args:
        hidden: (batch, width).
        weight: (n_items, width).
        bias: (n_items,).

    Source: Mult-VAE (Liang et al. 2018), equation 2, differentiated by hand.
    Deviations: none; equal to autograd over `multinomial_nll` up to rounding.

    The logits are overwritten by their own gradient, slice by slice while they are in cache, so that a step moves
    (batch, n_items) twice instead of the eight times that autograd over log-softmax would. Under autocast the matrix
    products run in bfloat16 and the normaliser stays in float32.
    """
    low = torch.is_autocast_enabled(hidden.device.type)
    compute = torch.get_autocast_dtype(hidden.device.type) if low else weight.dtype
    return _DecodedMultinomialNLL.apply(hidden, weight, bias, batch, compute)  # type: ignore[no-any-return]


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """(pairs,) -log of the probability that the positive outranks the negative, in nats.

    Source: Rendle et al. 2009, BPR-Opt, without its regulariser.
    Deviations: none.
    """
    return F.softplus(negative - positive)


def unit(rows: Tensor) -> Tensor:
    """Rows scaled to unit length, smoothly at 0: x / sqrt(1e-8 + |x|^2), in float32 at least."""
    exact = rows if rows.dtype == torch.float64 else rows.float()
    return exact / (1e-8 + exact.square().sum(-1, keepdim=True)).sqrt()


def mean_where(terms: Tensor, counted: Tensor) -> Tensor:
    """() mean of the terms that are counted; 0 if there is none.

    Args:
        terms: (n,).
        counted: (n,) bool.
    """
    return torch.where(counted, terms, 0).sum() / counted.sum().clamp_min(1)


def info_nce(
    anchors: Tensor,
    targets: Tensor,
    pool: Tensor,
    temperature: float,
    *,
    weights: Tensor | None = None,
    counts: Tensor | None = None,
) -> Tensor:
    """() sum over anchors of -log of the softmax weight each gives its target, by cosine, in nats.

    Args:
        anchors: (n, width).
        targets: (n, width), the match of each.
        pool: (m, width), what the softmax runs over. A target need not be in it.
        weights: (n,) how often each anchor counts; None is once.
        counts: (m,) how often each row of the pool counts; None is once.

    Source: RLMRec's code (its equation 5 is one formula for all). Non-negative where targets are in the pool.
    Deviations: the normaliser is a log-sum-exp, where the code exponentiates and adds 1e-8. It is made slice by slice
    together with its gradient, so that the (n, m) products never leave the cache; equal to autograd up to rounding.
    """
    anchors, targets, pool = unit(anchors) / temperature, unit(targets), unit(pool)
    times = torch.ones_like(anchors[:, 0]) if weights is None else weights.to(anchors.dtype)
    offsets = torch.zeros_like(pool[:, 0]) if counts is None else counts.to(pool.dtype).log()
    own = ((anchors * targets).sum(-1) * times).sum()
    return _Normalisers.apply(anchors, pool, times, offsets) - own  # type: ignore[no-any-return]


def contrast_of_pairs(
    anchors: Tensor, table: Tensor, rows: Tensor, temperature: float, mask_duplicates: bool
) -> Tensor:
    """() mean InfoNCE of (n, width) anchors with table[rows], against all of those.

    Args:
        table: (_, width).
        rows: (n,) int64; a row may be named many times.
        mask_duplicates: a row that is named twice is no negative of itself.

    Source: RecGOAT's code, where a row named twice is its own negative.
    Deviations: `mask_duplicates`.
    """
    pool, counts = torch.unique(rows, return_counts=True)
    times = None if mask_duplicates else counts
    return info_nce(anchors, table[rows], table[pool], temperature, counts=times) / len(rows)


def contrast_of_sides(a: Tensor, b: Tensor, rows: Tensor, temperature: float, mask_duplicates: bool) -> Tensor:
    """() summed InfoNCE of a[rows] with b[rows], against all of b[rows]; arguments as of `contrast_of_pairs`."""
    pool, counts = torch.unique(rows, return_counts=True)
    times = None if mask_duplicates else counts
    return info_nce(a[pool], b[pool], b[pool], temperature, weights=counts, counts=times)


class _Normalisers(torch.autograd.Function):
    """() weighted sum of log-sum-exps of anchors @ pool.T + offsets."""

    @staticmethod
    def forward(ctx, anchors: Tensor, pool: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:  # type: ignore[override]
        total = anchors.new_zeros(())
        grad_anchors, grad_pool = torch.empty_like(anchors), torch.zeros_like(pool)
        rows = _ROWS_AT_ONCE if anchors.device.type == "cpu" else _ROWS_OF_A_DEVICE
        with torch.autocast(anchors.device.type, enabled=False):
            for start in range(0, len(anchors) if len(pool) else 0, rows):
                some = slice(start, start + rows)
                block = torch.addmm(offsets, anchors[some], pool.t())
                highest = block.amax(-1, keepdim=True)
                mass = block.sub_(highest).exp_().sum(-1, keepdim=True)
                total += (weights[some, None] * (highest + mass.log())).sum()
                block.mul_(weights[some, None] / mass)
                torch.mm(block, pool, out=grad_anchors[some])
                grad_pool.addmm_(block.t(), anchors[some])
        ctx.save_for_backward(grad_anchors, grad_pool)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_total: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return *(grad * grad_total for grad in ctx.saved_tensors), None, None


def sampled_softmax(positive: Tensor, negatives: Tensor) -> Tensor:
    """(n,) -log of the softmax weight of the positive logit among itself and its (n, k) negatives.

    Source: AlphaRec's code, the InfoNCE of its equation 5.
    Deviations: none.
    """
    return F.softplus(torch.logsumexp(negatives, dim=-1) - positive)


def chosen_products(table: Tensor, rows: Tensor, others: Tensor, columns: Tensor) -> Tensor:
    """(n, k) the entries of table[rows] @ others.T that `columns` names in each row.

    Args:
        table: (_, width).
        rows: (n,) int64; a row may be named many times.
        others: (m, width), of the same type.
        columns: (n, k) int64; a column may be named twice.

    Where the whole product of the different rows is small beside what is chosen of it, and on a GPU, it is made and
    gathered from; otherwise the chosen entries alone are made, forwards and backwards.
    """
    found, places = torch.unique(rows, return_inverse=True)
    if table.device.type == "cpu" and len(found) * len(others) > _CELLS_A_CHOICE * columns.numel():
        return _ChosenProducts.apply(table[rows], others, columns)  # type: ignore[no-any-return]
    whole = (table[found] @ others.t()).flatten()
    return whole.gather(0, (places[:, None] * len(others) + columns).flatten()).view(columns.shape)


class _ChosenProducts(torch.autograd.Function):
    """The chosen entries of left @ right.T by the kernels of embedding bags."""

    @staticmethod
    def forward(ctx, left: Tensor, right: Tensor, columns: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(left, right, columns)
        # the gradient of a bag's weights is the product of each member with what is pulled at the bag: left
        weights = torch.ones(columns.shape, dtype=left.dtype, requires_grad=True)
        with torch.enable_grad():
            bags = F.embedding_bag(columns, right.detach(), mode="sum", per_sample_weights=weights)
        [products] = torch.autograd.grad(bags, weights, left.detach())
        return products

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        left, right, columns = ctx.saved_tensors
        rows, k = columns.shape
        grad_left = F.embedding_bag(columns, right, mode="sum", per_sample_weights=grad)
        starts = np.arange(0, rows * k + 1, k)
        by_row = sparse.csr_array(
            (grad.contiguous().numpy().ravel(), columns.numpy().ravel(), starts), (rows, len(right))
        )
        entries = by_row.tocsc()  # counts, where a sort would take four times as long
        members, starts = (torch.from_numpy(array.astype(np.int64)) for array in (entries.indices, entries.indptr))
        weights = torch.from_numpy(entries.data)
        grad_right = F.embedding_bag(
            members, left, starts, mode="sum", per_sample_weights=weights, include_last_offset=True
        )
        return grad_left, grad_right, None


class _DecodedMultinomialNLL(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, bias: Tensor, batch: UserBatch, compute: torch.dtype) -> Tensor:  # type: ignore[override]
        exact = torch.float64 if weight.dtype == torch.float64 else torch.float32
        with torch.autocast(hidden.device.type, enabled=False):
            h, w = hidden.to(compute), weight.to(compute)
            logits = products_with_all(h, w)  # (batch, items); the bias joins while rows are in cache
            values = batch.values.to(exact)
            counts = torch.zeros(len(h), dtype=exact, device=h.device).index_add_(0, batch.rows, values)
            picked = ((logits[batch.rows, batch.items].to(exact) + bias[batch.items].to(exact)) * values).sum()
            normalisers, grad_bias = _softmax_in_place(logits, bias.to(exact), counts / len(h), exact)
            loss = ((counts * normalisers).sum() - picked) / len(h)
            if any(ctx.needs_input_grad[:3]):
                flat = batch.rows * logits.shape[1] + batch.items
                logits.view(-1).index_add_(0, flat, (values / -len(h)).to(compute))
                grad_bias.index_add_(0, batch.items, values / -len(h))
                # Where the sides of a model take turns, one of the two products is of no use.
                grad_hidden = (logits @ w).to(hidden.dtype) if ctx.needs_input_grad[0] else None
                grad_weight = (logits.t() @ h).to(weight.dtype) if ctx.needs_input_grad[1] else None
                ctx.save_for_backward(grad_hidden, grad_weight, grad_bias.to(bias.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return *(None if grad is None else grad * grad_loss for grad in ctx.saved_tensors), None, None


def _softmax_in_place(logits: Tensor, bias: Tensor, scale: Tensor, exact: torch.dtype) -> tuple[Tensor, Tensor]:
    """(batch,) log-normalisers of logits + bias, and (n_items,) the column sums of what `logits` becomes.

    `logits` becomes scale * softmax(logits + bias).
    """
    normalisers = torch.empty(len(logits), dtype=exact, device=logits.device)
    columns = torch.zeros(logits.shape[1], dtype=exact, device=logits.device)
    rows = _ROWS_AT_ONCE if logits.device.type == "cpu" else len(logits)
    for start in range(0, len(logits), rows):
        block = logits[start : start + rows]
        part = block.add_(bias) if block.dtype == exact else block + bias
        highest = part.amax(-1, keepdim=True)
        part.sub_(highest).exp_()
        mass = part.sum(-1, keepdim=True)
        normalisers[start : start + rows] = (highest + mass.log()).squeeze(-1)
        part.mul_(scale[start : start + rows, None] / mass)
        columns += part.sum(0)
        if part is not block:
            block.copy_(part)
    return normalisers, columns
