"""Exact nearest neighbours by cosine, in the time of the matrix product they need, and the graphs they make."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from rec_models.derived import DerivedArrays
from rec_models.graph import SparseMatrix

# A CPU keeps a tile of products in its second-level cache while the highest of each group is taken.
_ROWS_AT_ONCE = 256
_COLUMNS_AT_ONCE = 1024
_ROWS_OF_A_DEVICE = 2048
# Columns that stand behind one maximum: fewer make more maxima to choose from, more make more products to look at.
_GROUP = 32
# Products of one chunk of rows with everything, in bytes.
_BUFFER_BYTES = 1 << 28


class Neighbours(NamedTuple):
    """The nearest others of each row, nearest first.

    Attributes:
        indices: (n, k) int64; -1 where there is none.
        cosines: (n, k) float32; 0 where there is none.
    """

    indices: Tensor
    cosines: Tensor


@torch.no_grad()
def nearest_neighbours(vectors: Tensor, present: Tensor, k: int, *, chunk: int | None = None) -> Neighbours:
    """The k others of highest cosine of each row; of equal ones the lower index comes first.

    A row never neighbours itself. Rows that are not present or have length 0 have no neighbours and are nobody's.
    Nothing is approximate: cosines are float32 products of unit rows, whatever the type of `vectors`. Of each group of
    32 products only the highest is looked at until the k best groups are known, so that choosing costs next to nothing
    beside the n x n x dim products; at most 256 MB of those are held.

    Args:
        vectors: (n, dim) float32, float16 or bfloat16, on the device that is to do the work.
        present: (n,) bool.
        k: neighbours a row.
        chunk: rows that are compared at once; decides memory and time, never the result.

    Raises:
        ValueError: k or chunk is below 1, or a row that is present is not finite.
    """
    if k < 1 or (chunk is not None and chunk < 1):
        raise ValueError(f"nearest_neighbours takes k and chunk from 1 up, got k = {k}, chunk = {chunk}")
    indices = torch.full((len(vectors), k), -1, device=vectors.device)
    cosines = torch.zeros(len(vectors), k, device=vectors.device)
    places, units = _unit_rows(vectors, present)
    found = min(k, len(places) - 1)
    if found < 1:
        return Neighbours(indices, cosines)
    rows = chunk or _rows_at_once(units)
    buffer = _Products(units, min(rows, len(units)))
    for start in range(0, len(units), rows):
        own = places[start : start + rows]
        nearest, values = buffer.best(start, len(own), found)
        indices[own, :found], cosines[own, :found] = places[nearest], values
    return Neighbours(indices, cosines)


def kept_neighbours(derived: DerivedArrays, vectors: Tensor, present: Tensor, k: int) -> Neighbours:
    """`nearest_neighbours`, on the host, found once for the same vectors, whichever model or seed asks next.

    Raises:
        ValueError: as `nearest_neighbours`.
    """

    def make() -> dict[str, Tensor]:
        return nearest_neighbours(vectors, present, k)._asdict()

    return Neighbours(**derived.get("nearest_neighbours 1", [vectors, present], {"k": k}, make))


def _unit_rows(vectors: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """(m,) int64 rows that have a direction, ascending, and (m, dim) float32 those directions."""
    places = torch.nonzero(present).squeeze(1)
    units = vectors[places].float()
    lengths = torch.linalg.vector_norm(units, dim=1)
    if not bool(torch.isfinite(lengths).all()):
        bad = places[~torch.isfinite(lengths)]
        raise ValueError(
            f"{len(bad)} vectors are not finite, the first in row {int(bad[0])}; make the embeddings again"
        )
    if not bool((lengths > 0).all()):
        places, units, lengths = places[lengths > 0], units[lengths > 0], lengths[lengths > 0]
    return places, units.div_(lengths[:, None])


def _rows_at_once(units: Tensor) -> int:
    most = _ROWS_AT_ONCE if units.device.type == "cpu" else _ROWS_OF_A_DEVICE
    return min(most, max(1, _BUFFER_BYTES // (4 * len(units))))


class _Products:
    """Cosines of some rows with every row, and the highest of each group of them.

    They lie transposed, (all, some): a group is then neighbouring rows of the buffer, whose maxima are taken over whole
    registers, and its columns are consecutive, so that among equal maxima the first group holds the lowest index.
    """

    def __init__(self, units: Tensor, rows: int) -> None:
        self.units = units
        self.n_groups = -(-len(units) // _GROUP)
        width = _COLUMNS_AT_ONCE if units.device.type == "cpu" else self.n_groups * _GROUP
        self.tiles = [(start, min(start + width, len(units))) for start in range(0, len(units), width)]
        self.products = units.new_full((self.n_groups * _GROUP, rows), -torch.inf)  # what pads the last group stays
        self.maxima = units.new_empty((self.n_groups, rows))

    def best(self, start: int, rows: int, k: int) -> tuple[Tensor, Tensor]:
        """(rows, k) positions and cosines of the nearest of the rows from `start`, nearest first."""
        if rows < self.products.shape[1]:  # the last chunk, in memory of its own shape
            self.products = self.products[:, :rows].clone()
            self.maxima = self.maxima[:, :rows].clone()
        products, maxima = self.products, self.maxima
        own = self.units[start : start + rows]
        for first, last in self.tiles:
            torch.mm(self.units[first:last], own.t(), out=products[first:last])
            for_self = slice(max(first, start), min(last, start + rows))
            if for_self.start < for_self.stop:
                among = slice(for_self.start - start, for_self.stop - start)
                products[for_self, among].fill_diagonal_(-torch.inf)
            groups = slice(first // _GROUP, -(-last // _GROUP))
            tile = products[first : groups.stop * _GROUP].unflatten(0, (-1, _GROUP))
            torch.amax(tile, 1, out=maxima[groups])
        groups = first_highest(maxima.t().contiguous(), min(k, self.n_groups)).sort(1).values
        members = (groups[:, :, None] * _GROUP + torch.arange(_GROUP, device=own.device)).flatten(1)
        values = products.t().gather(1, members)
        chosen = first_highest(values, k)
        return members.gather(1, chosen), values.gather(1, chosen)


def first_highest(values: Tensor, k: int) -> Tensor:
    """(rows, k) columns of the k highest of each row, highest first; of equal ones the lower column comes first."""
    found, columns = values.topk(k, dim=1)
    crowded = torch.nonzero((values >= found[:, -1:]).sum(1) > k).squeeze(1)
    if len(crowded):  # topk took any of those that equal the last
        columns[crowded] = values[crowded].sort(dim=1, descending=True, stable=True).indices[:, :k]
        found = values.gather(1, columns)
    columns, order = columns.sort(1)
    return columns.gather(1, found.gather(1, order).sort(dim=1, descending=True, stable=True).indices)


def neighbour_matrix(neighbours: Neighbours, *, symmetric: bool, weighted: bool = False) -> sparse.csr_array:
    """(n, n) float64 matrix whose row i holds the neighbours of i.

    Args:
        symmetric: j is a neighbour of i as soon as i is one of j.
        weighted: entries are cosines, of which those up to 0 are left out; otherwise 1.
    """
    indices, cosines = neighbours.indices.cpu().numpy(), neighbours.cosines.cpu().numpy()
    rows, slots = np.nonzero((indices >= 0) & (cosines > 0) if weighted else indices >= 0)
    values = cosines[rows, slots].astype(np.float64) if weighted else np.ones(len(rows))
    n = len(indices)
    matrix = sparse.csr_array((values, (rows, indices[rows, slots])), shape=(n, n))
    return matrix.maximum(matrix.T).tocsr() if symmetric else matrix


def normalised(matrix: sparse.csr_array) -> sparse.csr_array:
    """(n, n) D^-1/2 A D^-1/2 with D the sums of rows; an empty row stays empty."""
    degrees = np.asarray(matrix.sum(axis=1)).ravel()
    scale = np.divide(1, np.sqrt(degrees), out=np.zeros_like(degrees), where=degrees > 0)
    return (sparse.diags_array(scale) @ matrix @ sparse.diags_array(scale)).tocsr()


def as_graph(matrix: sparse.csr_array) -> SparseMatrix:
    """The square matrix as models multiply by it."""
    entries = sparse.csr_array(matrix, copy=True)
    entries.sort_indices()
    n = len(entries.indptr) - 1
    rows = np.repeat(np.arange(n), np.diff(entries.indptr))
    return SparseMatrix(rows, entries.indices.astype(np.int64), entries.data, (n, n))
