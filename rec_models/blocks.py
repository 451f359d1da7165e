"""Layers that several papers share: sparse input layers, two-layer perceptrons, dropout on entries."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rec_models.interactions import UserBatch

Init = Literal["torch_default", "xavier_uniform"]


def dropout_entries(batch: UserBatch, share: float, rng: torch.Generator | None) -> Tensor:
    """(nnz,) the batch's values, a `share` of them zeroed and the rest scaled by 1 / (1 - share).

    Exactly dropout of the dense row: its zeros stay zero either way.
    """
    if share == 0:
        return batch.values
    kept = torch.rand(batch.values.shape, generator=rng, device=batch.values.device) >= share
    return batch.values * kept / (1 - share)


def l2_normalised(batch: UserBatch) -> Tensor:
    """(nnz,) values divided by the Euclidean norm of their user's row; an empty row stays empty."""
    squares = torch.zeros(len(batch), dtype=batch.values.dtype, device=batch.values.device)
    squares.index_add_(0, batch.rows, batch.values.square())
    return batch.values / squares.clamp_min(1e-24).sqrt()[batch.rows]


def rows_times(batch: UserBatch, table: Tensor) -> Tensor:
    """(batch, width) the sparse rows of the batch times a dense (n_items, width) table."""
    return F.embedding_bag(
        batch.items, table, batch.offsets, mode="sum", per_sample_weights=batch.values.to(table.dtype)
    )


class SparseLinear(nn.Module):
    """A linear layer over n_items inputs that reads only the entries a user has.

    The weight is kept as (n_items, width), transposed against nn.Linear, so that a user's entries are whole rows.
    """

    def __init__(self, n_items: int, width: int, init: Init = "torch_default") -> None:
        super().__init__()
        dense = linear(n_items, width, init)
        self.weight = nn.Parameter(dense.weight.detach().t().contiguous())
        self.bias = nn.Parameter(dense.bias.detach().clone())

    def forward(self, batch: UserBatch) -> Tensor:
        """(batch, width)."""
        return rows_times(batch, self.weight) + self.bias


def linear(n_in: int, n_out: int, init: Init = "torch_default") -> nn.Linear:
    """nn.Linear with its own initialisation or Xavier-uniform weights and zero bias."""
    layer = nn.Linear(n_in, n_out)
    if init == "xavier_uniform":
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer
