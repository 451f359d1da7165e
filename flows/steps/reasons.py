"""Why an item is recommended, in words: the item of the user's history whose text is nearest to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from flows.steps.bundle import semantic_matrix
from flows.steps.rows import positions, strings
from flows.steps.split import KNOWN

if TYPE_CHECKING:
    from warehouse import Snapshot, Warehouse

MAX_TITLE = 80
# Numbers of one block of gathered vectors: 64 MB.
_NUMBERS_AT_ONCE = 1 << 24


def reasons(
    warehouse: Warehouse, snapshot: Snapshot, ids: Mapping[str, list[str]], users: np.ndarray, items: np.ndarray
) -> np.ndarray:
    """(rows, k) texts, None where there is no reason to give: no vectors, or none of the item or of the history.

    Args:
        users: (rows,) indices of the users.
        items: (rows, k) indices of the recommended items, -1 where there is none.
    """
    words = np.full(items.shape, None, object)
    if "embed" not in snapshot.stages:
        return words
    matrix, present = semantic_matrix(warehouse, snapshot, "items", ids["items"]).open()
    nearest = nearest_in_history(users, items, matrix, present, *_histories(snapshot, ids, present))
    told = np.array([f"near {title} in their history" for title in _titles(snapshot, ids["items"])], object)
    words[nearest >= 0] = told[nearest[nearest >= 0]]
    return words


def nearest_in_history(
    users: np.ndarray,
    items: np.ndarray,
    matrix: np.ndarray,
    present: np.ndarray,
    indptr: np.ndarray,
    history: np.ndarray,
) -> np.ndarray:
    """(rows, k) int64 item of each user's history that is nearest to each of their items by cosine, -1 for none.

    Args:
        users: (rows,) user indices.
        items: (rows, k) item indices, -1 where there is none.
        matrix: (n_items, dim) unit vectors; only rows that are present are read.
        indptr: (users + 1,) where each user's entries of `history` begin.
        history: item indices, all of them present.
    """
    found = np.full(items.shape, -1, np.int64)
    begins, lengths = indptr[users], np.diff(indptr)[users]
    # users of like lengths together: little of a block is padding
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    start = 0
    while start < len(order):
        n_rows = _fitting(lengths[order[start:]], items.shape[1], matrix.shape[1])
        rows = order[start : start + n_rows]
        start += n_rows
        places = np.arange(int(lengths[rows[-1]]))
        taken = history[np.minimum(begins[rows][:, None] + places, len(history) - 1)]
        wanted = np.maximum(items[rows], 0)
        # (rows, k, dim) @ (rows, dim, longest) -> (rows, k, longest)
        cosines = matrix[wanted] @ matrix[taken].transpose(0, 2, 1)
        cosines[np.broadcast_to((places >= lengths[rows][:, None])[:, None, :], cosines.shape)] = -np.inf
        best = np.take_along_axis(taken, cosines.argmax(2), 1)
        found[rows] = np.where(present[wanted] & (items[rows] >= 0), best, -1)
    return found


def _fitting(lengths: np.ndarray, k: int, dim: int) -> int:
    """How many of the next users make one block, given their ascending history lengths; at least one."""
    numbers = np.arange(1, len(lengths) + 1) * (np.maximum(lengths, k) * max(dim, 1))
    return max(1, int(np.searchsorted(numbers, _NUMBERS_AT_ONCE, side="right")))


def _titles(snapshot: Snapshot, order: Sequence[str]) -> list[str]:
    rows = snapshot.read("items", columns=["item_id", "title"])
    known = dict(zip(strings(rows, "item_id"), rows.column("title").to_pylist(), strict=True))
    return [f"“{title[:MAX_TITLE]}”" if (title := known.get(item_id)) else f"item {item_id}" for item_id in order]


def _histories(snapshot: Snapshot, ids: Mapping[str, list[str]], present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """indptr (users + 1,) and the items (entries,) of training or fold-in rows that have a vector, by user."""
    splits = snapshot.read("splits")
    users = positions(strings(splits, "user_id"), ids["users"])
    items = positions(strings(splits, "item_id"), ids["items"])
    kept = present[items] & np.isin(np.array(strings(splits, "part")), KNOWN)
    order = np.argsort(users[kept], kind="stable")
    counts = np.bincount(users[kept], minlength=len(ids["users"]))
    return np.r_[0, np.cumsum(counts)], items[kept][order]
