"""A sparse users x items matrix, and batches of its rows or entries assembled on the device without per-user Python."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_array


# Whose parameters learn from a batch: every group's, the decoder's or critic's alone, or all but theirs.
Turn = Literal["all", "encoder", "decoder", "generator", "critic"]

# Users times items up to which the items that users left are listed, four bytes each: a look-up is ten times as fast as
# a search.
_CELLS_LISTED = 1 << 24


@dataclass(frozen=True)
class InteractionMatrix:
    """Interactions as compressed sparse rows.

    Args:
        indptr: (n_users + 1,) int64; row u owns the entries indptr[u]:indptr[u + 1].
        indices: (nnz,) int32 item indices, ascending inside a row, no duplicates.
        values: (nnz,) float32; 1.0 for implicit feedback, else ratings.
        n_items: number of columns.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    n_items: int

    @classmethod
    def from_pairs(
        cls, user_index: ArrayLike, item_index: ArrayLike, values: ArrayLike | None, *, n_users: int, n_items: int
    ) -> InteractionMatrix:
        """The matrix of (user, item[, value]) pairs in any order; of a repeated pair the last one counts."""
        users = np.asarray(user_index, dtype=np.int64)
        items = np.asarray(item_index, dtype=np.int64)
        weights = np.ones(len(users), np.float32) if values is None else np.asarray(values, dtype=np.float32)
        if len(users) and (users.min() < 0 or users.max() >= n_users or items.min() < 0 or items.max() >= n_items):
            raise IndexError(
                f"pairs reach user {users.max()} and item {items.max()}; the matrix is {n_users} x {n_items}"
            )
        cells = users * n_items + items
        order = np.argsort(cells, kind="stable")
        cells = cells[order]
        last = np.append(cells[1:] != cells[:-1], True) if len(cells) else np.zeros(0, bool)
        kept = order[last]
        indptr = np.zeros(n_users + 1, np.int64)
        np.cumsum(np.bincount(users[kept], minlength=n_users), out=indptr[1:])
        return cls(indptr, items[kept].astype(np.int32), weights[kept], n_items)

    @classmethod
    def load(cls, directory: Path, part: str, n_items: int) -> InteractionMatrix:
        """The part written by `save`, memory mapped."""
        indptr, indices, values = (
            np.load(directory / f"{part}.{name}.npy", mmap_mode="r") for name in ("indptr", "indices", "values")
        )
        return cls(indptr, indices, values, n_items)

    def save(self, directory: Path, part: str) -> list[Path]:
        """Writes `<part>.{indptr,indices,values}.npy` and returns their paths."""
        paths = []
        for name, array in (("indptr", self.indptr), ("indices", self.indices), ("values", self.values)):
            paths.append(directory / f"{part}.{name}.npy")
            np.save(paths[-1], array)
        return paths

    @property
    def n_users(self) -> int:
        return len(self.indptr) - 1

    @property
    def shape(self) -> tuple[int, int]:
        return self.n_users, self.n_items

    @property
    def nnz(self) -> int:
        return len(self.indices)

    def lengths(self) -> NDArray[np.int64]:
        """(n_users,) how many items each user has."""
        return np.diff(self.indptr)

    def active(self) -> NDArray[np.int64]:
        """The users with at least one item, ascending."""
        return np.flatnonzero(self.lengths())

    def item_counts(self) -> NDArray[np.int64]:
        """(n_items,) how many users each item has."""
        return np.bincount(self.indices, minlength=self.n_items)

    def transposed(self) -> InteractionMatrix:
        """(n_items, n_users) the same interactions by item."""
        users = np.repeat(np.arange(self.n_users), self.lengths())
        return InteractionMatrix.from_pairs(
            self.indices, users, self.values, n_users=self.n_items, n_items=self.n_users
        )

    def csr(self, dtype: DTypeLike = np.float32) -> csr_array:
        """The same rows for scipy, with values of a type."""
        from scipy.sparse import csr_array

        return csr_array((np.array(self.values, dtype), np.array(self.indices), np.array(self.indptr)), self.shape)

    def damped_item_means(self, damping: float) -> NDArray[np.float32]:
        """(n_items,) mean value of each item, begun with `damping` values at the mean of all; 0 of nothing at all."""
        middle = float(self.values.mean()) if self.nnz else 0.0
        summed = np.bincount(self.indices, self.values, minlength=self.n_items)
        return ((summed + damping * middle) / (self.item_counts() + damping)).astype(np.float32)

    def rated_at_least(self, rating: float) -> InteractionMatrix:
        """The entries of that value and above."""
        kept = np.asarray(self.values) >= rating
        before = np.zeros(self.nnz + 1, np.int64)
        np.cumsum(kept, out=before[1:])
        return InteractionMatrix(before[self.indptr], self.indices[kept], self.values[kept], self.n_items)

    def of_some(self, n_users: int | None) -> InteractionMatrix:
        """The rows of so many users, spread evenly over those with an item; the others' are empty. None keeps all."""
        if n_users is None or n_users >= len(self.active()):
            return self
        lengths = np.zeros(self.n_users, np.int64)
        chosen = spread(self.active(), n_users)
        lengths[chosen] = self.lengths()[chosen]
        kept = np.repeat(lengths > 0, self.lengths())
        return InteractionMatrix(np.append(0, lengths.cumsum()), self.indices[kept], self.values[kept], self.n_items)

    def as_ones(self) -> InteractionMatrix:
        """The same entries as implicit feedback."""
        return replace(self, values=np.ones(self.nnz, np.float32))

    def union(self, *others: InteractionMatrix) -> InteractionMatrix:
        """Every pair of this matrix and of the others."""
        users = [np.repeat(np.arange(part.n_users), part.lengths()) for part in (self, *others)]
        items = [part.indices for part in (self, *others)]
        weights = [part.values for part in (self, *others)]
        return InteractionMatrix.from_pairs(
            np.concatenate(users),
            np.concatenate(items),
            np.concatenate(weights),
            n_users=self.n_users,
            n_items=self.n_items,
        )


def spread(users: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """`n` of these, evenly from the first to the last; all where they are fewer."""
    return users[np.linspace(0, len(users) - 1, min(len(users), n)).astype(np.int64)]


@dataclass(frozen=True)
class UserBatch:
    """The rows of a batch of users, flat, on one device.

    Attributes:
        users: (batch,) int64 user indices.
        rows: (nnz,) int64 position in the batch of each entry, ascending.
        items: (nnz,) int64 item index of each entry.
        values: (nnz,) float32.
        offsets: (batch,) int64 where each user's entries begin.
        lengths: (batch,) int64.
        n_items: number of columns of the matrix.
        turn: who learns from it, where a model's two sides take turns.
    """

    users: torch.Tensor
    rows: torch.Tensor
    items: torch.Tensor
    values: torch.Tensor
    offsets: torch.Tensor
    lengths: torch.Tensor
    n_items: int
    turn: Turn = "all"

    def with_values(self, values: torch.Tensor) -> UserBatch:
        """The same entries carrying other values, such as after dropout."""
        return replace(self, values=values)

    def only(self, kept: torch.Tensor) -> UserBatch:
        """The entries (nnz,) that are kept."""
        rows = self.rows[kept]
        lengths = rows.bincount(minlength=len(self))
        taken = {"rows": rows, "items": self.items[kept], "values": self.values[kept]}
        return replace(self, **taken, offsets=lengths.cumsum(0) - lengths, lengths=lengths)

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class PairBatch:
    """A batch of interactions on one device, and the history that says which items are no negatives.

    Attributes:
        users: (pairs,) int64 user indices.
        items: (pairs,) int64 the item each of them took.
        history: everything the users took.
        entries: (pairs,) int64 position of each of them in the history.
    """

    users: torch.Tensor
    items: torch.Tensor
    history: ResidentInteractions
    entries: torch.Tensor

    @property
    def values(self) -> torch.Tensor:
        """(pairs,) float32, ones or ratings."""
        return self.history.values[self.entries]

    def negatives(self, rng: torch.Generator | None, each: int = 1) -> torch.Tensor:
        """(pairs, each) int64 items drawn uniformly, with replacement, from those a pair's user never took."""
        return self.history.untouched(self.users, each, rng)

    def __len__(self) -> int:
        return len(self.users)


class ResidentInteractions:
    """An InteractionMatrix kept on the device, cut into batches there."""

    def __init__(self, matrix: InteractionMatrix, device: torch.device | str = "cpu") -> None:
        import torch

        self.n_users, self.n_items = matrix.shape
        self._host_indptr = np.ascontiguousarray(matrix.indptr)
        self.indptr = torch.from_numpy(self._host_indptr.copy()).to(device)
        self.items = torch.from_numpy(np.array(matrix.indices, dtype=np.int64)).to(device)
        self.values = torch.from_numpy(np.array(matrix.values, dtype=np.float32)).to(device)
        self.device = self.items.device

    @cached_property
    def active(self) -> NDArray[np.int64]:
        """The users with at least one entry, ascending: those whom there is something to learn from."""
        return np.flatnonzero(np.diff(self._host_indptr))

    def batch(self, users: NDArray[np.int64]) -> UserBatch:
        """The rows of `users`, in the order given."""
        import torch

        lengths_host = self._host_indptr[users + 1] - self._host_indptr[users]
        nnz = int(lengths_host.sum())  # known on the host, so that no device has to be asked
        chosen = torch.from_numpy(np.ascontiguousarray(users)).to(self.device, non_blocking=True)
        lengths = torch.from_numpy(lengths_host).to(self.device, non_blocking=True)
        offsets = torch.cumsum(lengths, 0) - lengths
        rows = torch.repeat_interleave(torch.arange(len(users), device=self.device), lengths, output_size=nnz)
        entries = torch.arange(nnz, device=self.device) + (self.indptr[chosen] - offsets)[rows]
        return UserBatch(chosen, rows, self.items[entries], self.values[entries], offsets, lengths, self.n_items)

    def pairs(self, entries: NDArray[np.int64]) -> PairBatch:
        """The interactions at these positions of the matrix, of `paired`."""
        import torch

        chosen = torch.from_numpy(np.ascontiguousarray(entries)).to(self.device, non_blocking=True)
        return PairBatch(self._users[chosen], self.items[chosen], self, chosen)

    @cached_property
    def paired(self) -> NDArray[np.int64]:
        """Positions of the entries whose user left at least one item: the others have no negative to be paired with."""
        lengths = np.diff(self._host_indptr)
        return np.flatnonzero(np.repeat(lengths < self.n_items, lengths))

    def user_of(self, entries: NDArray[np.int64]) -> NDArray[np.int64]:
        """(len(entries),) the user each position of the matrix belongs to."""
        return np.searchsorted(self._host_indptr, entries, side="right") - 1

    def any_entry(self, users: NDArray[np.int64], order: np.random.Generator) -> NDArray[np.int64]:
        """(len(users),) position of one entry of each user, drawn uniformly; every user must have one."""
        begins = self._host_indptr[users]
        return begins + (order.random(len(users)) * (self._host_indptr[users + 1] - begins)).astype(np.int64)

    def untouched(self, users: torch.Tensor, each: int, rng: torch.Generator | None) -> torch.Tensor:
        """(len(users), each) int64 items drawn uniformly from what each user has not taken.

        The r-th item a user left is r plus the number of taken items before it. Taken items minus their rank ascend
        within a row, so one binary search finds that number: no rejection, no second draw, and no waiting for a device.
        Of a small world the items that were left are simply listed.
        """
        import torch

        begins = self.indptr[users][:, None]
        left = (self.n_items - (self.indptr[users + 1] - self.indptr[users]))[:, None]
        drawn = torch.rand((len(users), each), generator=rng, device=self.device, dtype=torch.float64)
        rank = (drawn * left).long().clamp_max(left - 1)
        if self._left is not None:
            return self._left[users[:, None] * self.n_items - begins + rank].long()
        before = torch.searchsorted(self._gaps, users[:, None] * (self.n_items + 1) + rank, right=True) - begins
        return rank + before

    @cached_property
    def _users(self) -> torch.Tensor:
        """(nnz,) int64 the user of each entry."""
        import torch

        return torch.repeat_interleave(torch.arange(self.n_users, device=self.device), self.indptr.diff())

    @cached_property
    def _left(self) -> torch.Tensor | None:
        """(cells without an interaction,) int32 items each user left, ascending, users in turn; None if too many."""
        import torch

        if self.n_users * self.n_items > _CELLS_LISTED:
            return None
        left = torch.ones(self.n_users * self.n_items, dtype=torch.bool, device=self.device)
        left[self._users * self.n_items + self.items] = False
        return (torch.nonzero(left).squeeze(1) % self.n_items).int()

    @cached_property
    def _gaps(self) -> torch.Tensor:
        """(nnz,) int64, ascending: each entry's item minus its rank in the row, offset by the user."""
        import torch

        ranks = torch.arange(len(self.items), device=self.device) - self.indptr[self._users]
        return self._users * (self.n_items + 1) + self.items - ranks
