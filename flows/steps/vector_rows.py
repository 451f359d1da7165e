"""Vectors by the hash of what they were made of, and the rows of a table of embeddings made from them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from flows.steps.texts import HASH, SetTexts, pooled_hash

_ENTITIES_AT_ONCE = 4_096


class VectorIndex:
    """(n, d) float32 beside n sorted hashes; rows are known once they were put."""

    def __init__(self, hashes: np.ndarray) -> None:
        self._hashes = np.unique(hashes.astype(HASH))
        self._known = np.zeros(len(self._hashes), bool)
        self._settled = self._known
        self._matrix = np.empty((len(self._hashes), 0), np.float32)

    def put(self, hashes: np.ndarray, vectors: np.ndarray) -> int:
        """How many vectors were new; those nobody asks for are passed over."""
        hashes = hashes.astype(HASH)
        places = np.searchsorted(self._hashes, hashes)
        places[places == len(self._hashes)] = 0
        wanted = np.flatnonzero(self._hashes[places] == hashes) if len(self._hashes) else np.zeros(0, np.int64)
        new = wanted[~self._known[places[wanted]]]
        new = new[np.unique(places[new], return_index=True)[1]]
        if len(new):
            if not self._matrix.shape[1]:
                self._matrix = np.empty((len(self._hashes), vectors.shape[1]), np.float32)
            self._matrix[places[new]] = vectors[new]
            self._known[places[new]] = True
        return len(new)

    def settle(self) -> None:
        """What is known now was in a table before this run."""
        self._settled = self._known.copy()

    def settled(self, hashes: np.ndarray) -> np.ndarray:
        """(n,) bool, False for hashes the index was not made for."""
        hashes = hashes.astype(HASH)
        places = np.minimum(np.searchsorted(self._hashes, hashes), max(len(self._hashes) - 1, 0))
        return self._settled[places] & (self._hashes[places] == hashes) if len(self._hashes) else places == -1

    def places(self, hashes: np.ndarray) -> np.ndarray:
        """(n,) rows of the matrix; every hash must be one the index was made for."""
        return np.searchsorted(self._hashes, hashes.astype(HASH))

    def knows(self, hashes: np.ndarray) -> np.ndarray:
        """(n,) bool."""
        return self._known[self.places(hashes)]

    @property
    def matrix(self) -> np.ndarray:
        """(n, d) float32; rows of hashes that are not known hold nothing."""
        return self._matrix


def vector_rows(texts: SetTexts, index: VectorIndex, pooling: str) -> dict[str, Any]:
    """Columns of an embeddings table: entities with texts, then users with the unit mean of their items' vectors.

    A mean without direction is no vector, and an entity with a text that was put aside has none: no row.
    """
    n, p = len(texts.ids), len(texts.pooled)
    matrix = np.empty((n + p, index.matrix.shape[1]), np.float32)
    there = np.ones(n + p, bool)
    known = index.knows(texts.hashes)
    if known.all():
        np.take(index.matrix, index.places(texts.hashes), axis=0, out=matrix[:n])
    else:
        members, whole = index.places(texts.text_hashes), index.knows(texts.text_hashes)
        for part, rows, starts in _parts(texts.starts):
            there[part] = _pool(index.matrix[members[rows]], starts, pooling, out=matrix[part])
            there[part] &= np.logical_and.reduceat(whole[rows], starts)  # with a text that was put aside there is none
        matrix[:n][known] = index.matrix[index.places(texts.hashes[known])]
        there[:n] |= known
    pooled_starts, pooled_rows = _only(there, texts.pooled_starts, texts.pooled_rows)
    some = np.diff(pooled_starts) > 0
    for part, rows, starts in _parts(np.append(pooled_starts[:-1][some], pooled_starts[-1])):
        moved = n + np.flatnonzero(some)[part]
        unit = np.empty((len(moved), matrix.shape[1]), np.float32)
        there[moved] = _pool(matrix[pooled_rows[rows]], starts, "mean", out=unit)
        matrix[moved] = unit
    there[n:] &= some
    own = [value.decode() for value in texts.hashes.tolist()]
    spans = pairwise(pooled_starts)
    of_pooled = [pooled_hash([own[row] for row in pooled_rows[start:end]]) for start, end in spans]
    columns: dict[str, Any] = {
        "kind": [*texts.kinds, *["user"] * p],
        "entity_id": [*texts.ids, *texts.pooled],
        "text_hash": [*own, *of_pooled],
    }
    if not there.all():
        kept = np.flatnonzero(there)
        columns = {name: [values[row] for row in kept] for name, values in columns.items()}
        matrix = matrix[kept]
    return {**columns, "embedding": matrix if len(matrix) else np.zeros((0, 1), np.float32)}


def _only(there: np.ndarray, starts: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same owners with only those of their rows that are there."""
    kept = there[rows]
    return np.concatenate([[0], np.cumsum(kept)])[starts], rows[kept]


def _parts(starts: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Some thousand owners at a time: which owners, which of what they own, and where each one's begins in it."""
    n = len(starts) - 1
    for first in range(0, n, _ENTITIES_AT_ONCE):
        last = min(first + _ENTITIES_AT_ONCE, n)
        yield slice(first, last), slice(starts[first], starts[last]), starts[first:last] - starts[first]


def _pool(vectors: np.ndarray, starts: np.ndarray, pooling: str, out: np.ndarray) -> np.ndarray:
    """Writes one vector of length 1 a group of rows; returns (groups,) whether it has a direction."""
    if pooling == "max":
        joined = np.maximum.reduceat(vectors, starts, axis=0).astype(np.float64)
    else:
        joined = np.add.reduceat(vectors, starts, axis=0, dtype=np.float64)
        joined /= np.diff(np.append(starts, len(vectors)))[:, None]
    lengths = np.linalg.norm(joined, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        out[:] = joined / lengths
    return lengths[:, 0] > 0
