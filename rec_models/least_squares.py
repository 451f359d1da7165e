"""Least squares over sparse rows: weighted ridge regression on a table of vectors, singular vectors, Gram matrices."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from rec_models.blocks import rows_times
from rec_models.interactions import InteractionMatrix, UserBatch

# Entries times width, and rows times width, of a slice: 4 MB of float32 stay near the processor.
_AT_ONCE = 1 << 20
_ITEMS_AT_ONCE = 512
_OVERSAMPLED = 10


class RidgeRows:
    """For each sparse row x the p that minimises sum_i c_i ([x_i > 0] - <p, q_i>)^2 + ridge |p|^2.

    Args:
        table: (n_items, width), the q.
        confidence: c is 1 + confidence * x_i.

    Source: Hu, Koren & Volinsky 2008, equations 4 and 5; conjugate gradients as in Takács et al. 2011.
    Deviations: preconditioned by the inverse of what all rows share, (Q^T Q + ridge)^-1, so that without confidence
    the first step is exact and a row of n entries needs n + 1 at most. Rows share matrix products; nobody has a matrix.
    """

    def __init__(self, table: Tensor, *, confidence: float, ridge: float) -> None:
        self.table, self.confidence = table, confidence
        self.shared = table.t() @ table
        self.shared.diagonal().add_(ridge)
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(self.shared))

    def solve(self, batch: UserBatch, *, steps: int, start: Tensor | None = None) -> Tensor:
        """(batch, width) after at most so many steps of conjugate gradients, begun at `start` or at zeros.

        Steps end where every residual is below 1e-6 of its right side.
        """
        goal = rows_times(batch.with_values(1 + self.confidence * batch.values), self.table)
        p = torch.zeros_like(goal) if start is None else start.clone()
        residual = goal if start is None else goal - self._applied(p, batch)
        enough = 1e-6 * goal.norm(dim=1).clamp_min(1e-30)
        direction = residual @ self.inverse
        size = (residual * direction).sum(1)
        for _ in range(steps):
            unsolved = residual.norm(dim=1) > enough
            if not unsolved.any():
                break
            image = self._applied(direction, batch)
            length = torch.where(unsolved, size / (direction * image).sum(1).clamp_min(1e-30), 0.0)[:, None]
            p, residual = p + length * direction, residual - length * image
            towards = residual @ self.inverse
            before, size = size, (residual * towards).sum(1)
            direction = towards + torch.where(unsolved, size / before.clamp_min(1e-30), 0.0)[:, None] * direction
        return p

    def _applied(self, p: Tensor, batch: UserBatch) -> Tensor:
        if self.confidence == 0:
            return p @ self.shared
        weighted = batch.with_values(self.confidence * batch.values * chosen_entries(p, self.table, batch))
        return p @ self.shared + rows_times(weighted, self.table)


def chosen_entries(p: Tensor, table: Tensor, batch: UserBatch) -> Tensor:
    """(nnz,) those entries of p @ table.T that the batch has, no vector gathered for any.

    Args:
        p: (batch, width).
        table: (n_items, width), of the same type.
    """
    ends = torch.cat([batch.offsets, batch.offsets.new_tensor([len(batch.items)])])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)  # of torch's, once a process
        cells = torch.sparse_csr_tensor(
            ends,
            batch.items,
            torch.zeros_like(batch.values, dtype=p.dtype),
            (len(p), len(table)),
            check_invariants=False,
        )
    return torch.sparse.sampled_addmm(cells, p, table.t(), beta=0.0).values()


def slices_of(indptr: NDArray[np.int64], width: int) -> Iterator[NDArray[np.int64]]:
    """Consecutive row indices whose entries, `width` numbers each, fit in 4 MB; at least one row a slice."""
    start, n = 0, len(indptr) - 1
    while start < n:
        stop = int(np.searchsorted(indptr, indptr[start] + _AT_ONCE // width, side="right")) - 1
        stop = min(max(stop, start + 1), n, start + _AT_ONCE // width)
        yield np.arange(start, stop)
        start = stop


def right_singular_vectors(rows: csr_array, rank: int, rng: np.random.Generator, passes: int = 4) -> NDArray:
    """(n_columns, rank) float64 orthonormal: the right singular vectors of the largest singular values, largest first.

    Source: Halko, Martinsson & Tropp 2011, algorithm 4.4.
    Deviations: subspace iteration on the columns' side with a QR in every pass; ten vectors more than asked for.
    """
    n_rows, n_columns = cast("tuple[int, int]", rows.shape)
    width = min(rank + _OVERSAMPLED, n_rows, n_columns)
    basis = np.linalg.qr(rng.standard_normal((n_columns, width)))[0]
    for _ in range(passes):
        basis = np.linalg.qr(rows.T @ (rows @ basis))[0]
    seen = rows @ basis
    _, rotation = np.linalg.eigh(seen.T @ seen)
    return basis @ rotation[:, ::-1][:, :rank]


def gram(train: InteractionMatrix, device: torch.device) -> Tensor:
    """(n_items, n_items) float32 products of all columns, filled a slice of items at a time."""
    rows = train.csr()
    by_item = rows.T.tocsr()
    found = torch.empty(train.n_items, train.n_items, device=device)
    for start in range(0, train.n_items, _ITEMS_AT_ONCE):
        chosen = slice(start, min(start + _ITEMS_AT_ONCE, train.n_items))
        found[chosen] = torch.from_numpy((by_item[chosen] @ rows).toarray()).to(device, torch.float32)
    return found
