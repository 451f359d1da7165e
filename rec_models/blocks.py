"""Layers that several papers share: sparse input layers, dropout on entries, products with every item."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rec_models.interactions import UserBatch

# Columns a slice of a product with all items: on a CPU a tall slice keeps to few memory pages and runs a third faster
# than one wide product. A GPU has no such edge, and launches count there.
_ITEMS_AT_ONCE = 256
# Rows a slice where products are widened to float32 while they are in cache.
_ROWS_AT_ONCE = 256

Init = Literal["torch_default", "xavier_uniform"]


def dropout_entries(batch: UserBatch, share: float, rng: torch.Generator | None) -> Tensor:
    """(nnz,) the batch's values, a `share` of them zeroed and the rest scaled by 1 / (1 - share).

    Exactly dropout of the dense row: its zeros stay zero either way.
    """
    return dropped(batch.values, share, rng)


def dropped(values: Tensor, share: float, rng: torch.Generator | None) -> Tensor:
    """`values` with a `share` of them zeroed and the rest scaled by 1 / (1 - share), drawn from `rng`."""
    if share == 0:
        return values
    return values * (torch.rand(values.shape, generator=rng, device=values.device) >= share) / (1 - share)


def l2_normalised(batch: UserBatch) -> Tensor:
    """(nnz,) values divided by the Euclidean norm of their user's row; an empty row stays empty."""
    squares = torch.zeros(len(batch), dtype=batch.values.dtype, device=batch.values.device)
    squares.index_add_(0, batch.rows, batch.values.square())
    return batch.values / squares.clamp_min(1e-24).sqrt()[batch.rows]


def dense_rows(batch: UserBatch) -> Tensor:
    """(batch, n_items) the rows with their zeros, for models that are made of noise everywhere."""
    rows = batch.values.new_zeros(len(batch), batch.n_items)
    rows[batch.rows, batch.items] = batch.values
    return rows


def rows_times(batch: UserBatch, table: Tensor, *, sparse: bool = False) -> Tensor:
    """(batch, width) the sparse rows of the batch times a dense (n_items, width) table; its gradient may be sparse."""
    values = batch.values.to(table.dtype)
    return F.embedding_bag(batch.items, table, batch.offsets, mode="sum", per_sample_weights=values, sparse=sparse)


class SparseLinear(nn.Module):
    """A linear layer over n_items inputs that reads only the entries a user has.

    The weight is kept as (n_items, width), transposed against nn.Linear, so that a user's entries are whole rows. Its
    gradient is dense, or `sparse` for `RowAdam`.
    """

    def __init__(self, n_items: int, width: int, init: Init = "torch_default", *, sparse: bool = False) -> None:
        super().__init__()
        self.sparse = sparse
        dense = linear(n_items, width, init)
        self.weight = nn.Parameter(dense.weight.detach().t().contiguous())
        self.bias = nn.Parameter(dense.bias.detach().clone())

    def forward(self, batch: UserBatch) -> Tensor:
        """(batch, width)."""
        return rows_times(batch, self.weight, sparse=self.sparse) + self.bias


def of_distinct(layer: nn.Module, table: Tensor, rows: Tensor) -> Tensor:
    """(len(rows), width) layer(table[rows]), a row that is named twice computed once."""
    found, places = torch.unique(rows, return_inverse=True)
    return layer(table[found])[places]


def linear(n_in: int, n_out: int, init: Init = "torch_default") -> nn.Linear:
    """nn.Linear with its own initialisation or Xavier-uniform weights and zero bias."""
    layer = nn.Linear(n_in, n_out)
    if init == "xavier_uniform":
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer


def xavier_normal_(weight: Tensor, bias: Tensor) -> None:
    """Draws Xavier-normal weights, symmetric in their two sides, and sets the bias to zero."""
    nn.init.xavier_normal_(weight)
    nn.init.zeros_(bias)


def leaky_mlp(n_in: int, hidden: int, n_out: int, *, xavier: bool) -> nn.Sequential:
    """Linear, LeakyReLU(0.01), linear; with Xavier-uniform weights or torch's own, and torch's own biases."""
    layers = nn.Linear(n_in, hidden), nn.Linear(hidden, n_out)
    if xavier:
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
    return nn.Sequential(layers[0], nn.LeakyReLU(0.01), layers[1])


def products_with_all(hidden: Tensor, weight: Tensor) -> Tensor:
    """(batch, n_items) hidden @ weight.T, in their own precision and outside any graph.

    Args:
        hidden: (batch, width).
        weight: (n_items, width), of the same type.
    """
    if hidden.device.type != "cpu" or hidden.dtype == torch.bfloat16:  # these kernels slice by themselves
        return hidden @ weight.t()
    out = hidden.new_empty(len(hidden), len(weight))
    for start in range(0, len(weight), _ITEMS_AT_ONCE):
        items = slice(start, start + _ITEMS_AT_ONCE)
        torch.mm(hidden, weight[items].t(), out=out[:, items])
    return out


@torch.no_grad()
def scores_of_all(hidden: Tensor, layer: nn.Linear) -> Tensor:
    """(batch, n_items) scores of a linear output layer, in the layer's precision and outside any graph.

    Under autocast the products are rounded to the lower precision and the bias joins after that, unrounded: otherwise
    its eight bits would give hundreds of items equal scores.
    """
    device, weight = hidden.device.type, layer.weight
    if not torch.is_autocast_enabled(device):
        return products_with_all(hidden, weight).add_(layer.bias)
    compute = torch.get_autocast_dtype(device)
    hidden, low = hidden.to(compute), weight.to(compute)
    scores = torch.empty(len(hidden), len(weight), dtype=weight.dtype, device=weight.device)
    rows = _ROWS_AT_ONCE if device == "cpu" else len(hidden)
    with torch.autocast(device, enabled=False):
        for start in range(0, len(hidden), rows):
            block = scores[start : start + rows]
            block.copy_(hidden[start : start + rows] @ low.t()).add_(layer.bias)
    return scores
