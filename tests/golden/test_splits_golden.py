"""Splits of one made-up table, frozen: a changed draw would change every number measured on it.

Provenance: drawn by this code when the kinds `users`, `last` and `time` were new, after their laws held.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from flows.source_settings import SourceSettings, SplitSettings
from flows.steps.filters import filtered
from flows.steps.rows import sequence_hash
from flows.steps.split import LEFT_OUT, PARTS, split_rows
from warehouse import arrow_table


def made_up():
    """60 users over 50 items, the popular ones first; a row an hour."""
    rng = np.random.default_rng(42)
    likely = 1 / np.arange(1, 51)
    pairs = [
        (user, item)
        for user in range(60)
        for item in rng.choice(50, size=int(rng.integers(2, 20)), replace=False, p=likely / likely.sum())
    ]
    hours = rng.permutation(len(pairs))
    begin = datetime(2021, 3, 1, tzinfo=UTC)
    columns = {
        "user_id": [f"u{user:02d}" for user, _ in pairs],
        "item_id": [f"i{item:02d}" for _, item in pairs],
        "timestamp": [begin + timedelta(hours=int(hour)) for hour in hours],
    }
    return arrow_table(None, columns), arrow_table(None, {"item_id": [f"i{item:02d}" for item in range(50)]})


FROZEN = {
    "users": {
        "train": 495,
        "valid": 6,
        "test": 14,
        "fold_in": 107,
        "left_out": 0,
        "items": 50,
        "users_not_evaluated": 2,
        "rows_on_unseen_items": 0,
        "hash": "2635fb691f42",
    },
    "last": {
        "train": 512,
        "valid": 55,
        "test": 55,
        "fold_in": 0,
        "left_out": 0,
        "items": 50,
        "users_not_evaluated": 5,
        "hash": "1c5104e3f052",
    },
    "time": {
        "train": 373,
        "valid": 121,
        "test": 122,
        "fold_in": 0,
        "left_out": 6,
        "items": 50,
        "rows_on_unseen_items": 6,
        "hash": "dc4becf4af65",
    },
    "core": {
        "train": 398,
        "valid": 8,
        "test": 4,
        "fold_in": 61,
        "left_out": 0,
        "items": 29,
        "users_outside_core": 15,
        "rows_outside_core": 151,
        "items_outside_core": 21,
        "users_not_evaluated": 0,
        "rows_on_unseen_items": 0,
        "hash": "dce5fd04c95c",
    },
}
KINDS = {
    "users": (SourceSettings(), SplitSettings(kind="users")),
    "last": (SourceSettings(), SplitSettings(kind="last")),
    "time": (SourceSettings(), SplitSettings(kind="time", unseen_items="drop")),
    "core": (SourceSettings(min_user_interactions=6, min_item_interactions=8), SplitSettings(kind="users", seed=3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_is_the_one_it_always_was(kind):
    source, split = KINDS[kind]
    kept, items, left_out = filtered(*made_up(), source, split.seed)
    parts, without = split_rows(kept, split)
    lines = [
        f"{user}\x1f{item}\x1f{part}"
        for user, item, part in zip(
            kept["user_id"].to_pylist(), kept["item_id"].to_pylist(), parts.tolist(), strict=True
        )
    ]
    found = {name: int((parts == code).sum()) for code, name in enumerate(PARTS)}
    found |= {"left_out": int((parts == LEFT_OUT).sum()), "items": items.num_rows, **left_out, **without}
    assert found | {"hash": sequence_hash(lines)[:12]} == FROZEN[kind]
