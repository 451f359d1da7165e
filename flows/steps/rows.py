"""Columns of tables as ids and arrays: the flows count and index, the warehouse holds tables."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def index_order(ids: Iterable[str]) -> list[str]:
    """Distinct ids in index order: by number where all are numbers, else as text; whatever the order of the rows."""
    distinct = set(ids)
    if all(identifier.isascii() and identifier.isdigit() for identifier in distinct):
        return sorted(distinct, key=lambda identifier: (int(identifier), identifier))
    return sorted(distinct)


def positions(ids: Sequence[str], order: Sequence[str]) -> np.ndarray:
    """int64 index of each id in the order.

    Raises:
        KeyError: an id is not in the order.
    """
    index = {identifier: position for position, identifier in enumerate(order)}
    return np.fromiter((index[identifier] for identifier in ids), np.int64, len(ids))


def strings(table: pa.Table, column: str) -> list[str]:
    """A column of ids as Python strings."""
    return table.column(column).to_pylist()


def values(table: pa.Table, column: str) -> np.ndarray:
    """A column as a NumPy array; nulls of numbers become NaN."""
    return table.column(column).to_numpy()


def vectors(table: pa.Table, column: str = "embedding") -> np.ndarray:
    """(rows, dim) float32 of a fixed-size list column, without a copy."""
    if table.num_rows == 0:
        return np.zeros((0, 0), np.float32)
    chunks = table.column(column).combine_chunks()
    return chunks.flatten().to_numpy().reshape(table.num_rows, -1)


def records(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as dictionaries; for small tables."""
    return table.to_pylist()


def sequence_hash(parts: Iterable[str]) -> str:
    """sha256 of a sequence of texts; no two different sequences share their bytes."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()
