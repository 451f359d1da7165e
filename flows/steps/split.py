"""Which interactions are trained on, validated on and tested on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flows.errors import SplitColumnError

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = ("train", "valid", "test")
_SPELLINGS = {"train": 0, "training": 0, "valid": 1, "validation": 1, "val": 1, "test": 2}


def random_parts(
    user_index: np.ndarray, item_index: np.ndarray, *, shares: tuple[float, float, float], rng: np.random.Generator
) -> np.ndarray:
    """int8 part (0 train, 1 valid, 2 test) of each interaction, drawn at random in the given shares.

    One interaction of every user and of every item is kept for training first; validation and test are drawn from
    the rest, so their shares are met exactly unless the rest is too small.
    """
    n_rows = len(user_index)
    order = rng.permutation(n_rows)
    anchored = np.zeros(n_rows, bool)
    anchored[_first_rows(user_index, order)] = True
    covered = np.zeros(int(item_index.max(initial=-1)) + 1, bool)
    covered[item_index[anchored]] = True
    lone = order[~covered[item_index[order]]]
    anchored[_first_rows(item_index, lone)] = True
    free = order[~anchored[order]]
    total = sum(shares)
    n_valid, n_test = (round(n_rows * share / total) for share in shares[1:])
    if n_valid + n_test > len(free):
        n_valid = round(len(free) * n_valid / (n_valid + n_test))
        n_test = len(free) - n_valid
    parts = np.zeros(n_rows, np.int8)
    parts[free[:n_valid]] = 1
    parts[free[n_valid : n_valid + n_test]] = 2
    return parts


def given_parts(interactions: pa.Table, column: str) -> np.ndarray:
    """int8 part of each interaction as a column of the source says it.

    Raises:
        SplitColumnError: the column is missing, holds other words, or names no training, validation or test row.
    """
    if column not in interactions.column_names:
        known = ", ".join(interactions.column_names)
        raise SplitColumnError(column, (), f"the interactions have no such column (they have {known})")
    spoken = interactions.column(column).to_pylist()
    got = sorted({str(value) for value in spoken})
    unknown = [value for value in got if value.strip().lower() not in _SPELLINGS]
    if unknown:
        raise SplitColumnError(column, got[:10], f"{unknown[0]!r} is no part")
    codes = {value: _SPELLINGS[value.strip().lower()] for value in got}
    parts = np.fromiter((codes[str(value)] for value in spoken), np.int8, len(spoken))
    missing = [name for code, name in enumerate(PARTS) if not (parts == code).any()]
    if missing:
        raise SplitColumnError(column, got, f"no row is in the {missing[0]} part")
    return parts


def _first_rows(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The first row of each label, in the order given."""
    _, first = np.unique(labels[order], return_index=True)
    return order[first]
