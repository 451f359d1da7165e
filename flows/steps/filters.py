"""What is left out before the split: low ratings, items of few words, users beyond a screen, the thinly connected."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.errors import NothingLeftError, SettingValueError
from flows.source_settings import SourceSettings
from flows.steps.rows import index_order, positions, strings, values

if TYPE_CHECKING:
    import pyarrow as pa

# A word as scikit-learn's vectorizers take it by default: two or more letters, digits or underscores.
WORD = re.compile(r"\b\w\w+\b")


def filtered(
    interactions: pa.Table, items: pa.Table, source: SourceSettings, seed: int
) -> tuple[pa.Table, pa.Table, dict[str, int]]:
    """Interactions in (user, item) order and items that pass every filter, and how many rows, users, items did not.

    Filters run in the order moment, window, rating, words, screen, core: the core is of what the others leave.

    Raises:
        NothingLeftError: no row passes.
        SettingValueError: `source.word_columns` names a column the items do not have.
    """
    left_out: dict[str, int] = {}
    kept = interactions
    if source.as_of is not None:
        passing = _before(kept, source.as_of)
        left_out["rows_since_as_of"] = int((~passing).sum())
        kept = kept.take(np.flatnonzero(passing))
    if source.window_days is not None:
        passing = _recent(kept, source.window_days)
        left_out["rows_before_window"] = int((~passing).sum())
        kept = kept.take(np.flatnonzero(passing))
    if source.min_rating is not None:
        passing = _rated(kept, source.min_rating)
        left_out["rows_below_min_rating"] = int((~passing).sum())
        kept = kept.take(np.flatnonzero(passing))
    if source.min_item_words is not None:
        wordy = wordy_items(items, source.word_columns, source.min_item_words)
        items = _only(items, "item_id", wordy, left_out, "items_of_few_words")
        kept = _only(kept, "item_id", wordy, left_out, "rows_on_items_of_few_words")
    if source.screen is not None:
        chosen = screened_users(strings(kept, "user_id"), source.screen, seed)
        kept = _only(kept, "user_id", chosen, left_out, "rows_outside_screen")
    if source.cores != (1, 1):
        kept = _core(kept, source.cores, left_out)
    if kept.num_rows == 0:
        raise NothingLeftError(interactions.num_rows, ", ".join(left_out) or "the checks at the door")
    if source.min_item_interactions is not None:
        items = _only(items, "item_id", set(strings(kept, "item_id")), left_out, "items_outside_core")
    return kept.sort_by([("user_id", "ascending"), ("item_id", "ascending")]), items, left_out


def left_out_words(counts: Mapping[str, int]) -> str:
    """The counts as words of a sentence; nothing without any."""
    return ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in counts.items())


def k_core(users: np.ndarray, items: np.ndarray, min_user: int, min_item: int) -> np.ndarray:
    """Rows, ascending, of the largest set in which every user has `min_user` rows and every item `min_item`.

    Args:
        users, items: (rows,) int64 indices of the two ends of each row.
    """
    rows = np.arange(len(users))
    while True:
        of_user, of_item = np.bincount(users[rows]), np.bincount(items[rows])
        inside = (of_user[users[rows]] >= min_user) & (of_item[items[rows]] >= min_item)
        if inside.all():
            return rows
        rows = rows[inside]


def screened_users(user_ids: Sequence[str], share: float, seed: int) -> set[str]:
    """A seeded share of the users, at least one; the same ones whatever the order of the rows."""
    order = index_order(user_ids)
    chosen = np.random.default_rng([seed, 0x5C]).permutation(len(order))[: max(1, round(share * len(order)))]
    return {order[position] for position in chosen}


def wordy_items(items: pa.Table, columns: Sequence[str] | None, least: int) -> set[str]:
    """Items with at least that many words in these columns together; None takes every column of text."""
    for name in columns or ():
        if name not in items.column_names:
            raise SettingValueError("source.word_columns", name, f"the items have {', '.join(items.column_names)}")
    texts = (text_of(row, columns) for row in items.drop_columns(["item_id"]).to_pylist())
    counted = (sum(1 for _ in WORD.finditer(text)) for text in texts)
    return {item_id for item_id, n_words in zip(strings(items, "item_id"), counted, strict=True) if n_words >= least}


def text_of(attributes: Mapping[str, Any], columns: Iterable[str] | None) -> str:
    """What an item's columns say, a line each: texts, and lists of texts such as tags; None takes every such column."""
    named = attributes if columns is None else columns
    found = (attributes.get(name) for name in named)
    lines = (
        " ".join(said for said in value if isinstance(said, str)) if isinstance(value, list) else value
        for value in found
    )
    return "\n".join(line for line in lines if isinstance(line, str))


def _before(rows: pa.Table, moment: datetime) -> np.ndarray:
    if "timestamp" not in rows.column_names:
        raise NothingLeftError(rows.num_rows, f"as_of = {moment.isoformat()}: the source has no timestamp column")
    # NaT is before nothing
    return values(rows, "timestamp").astype("datetime64[us]") < np.datetime64(
        moment.astimezone(UTC).replace(tzinfo=None)
    )


def _recent(rows: pa.Table, days: float) -> np.ndarray:
    """Which rows lie within so many days before the latest one: the rows decide, no clock does."""
    times = values(rows, "timestamp").astype("datetime64[us]") if "timestamp" in rows.column_names else None
    if times is None or np.isnat(times).all():
        raise NothingLeftError(rows.num_rows, f"window_days = {days:g}: no interaction has a timestamp")
    return times > np.nanmax(times) - np.timedelta64(round(days * 86_400e6), "us")


def _rated(rows: pa.Table, least: float) -> np.ndarray:
    if "rating" not in rows.column_names:
        raise NothingLeftError(rows.num_rows, f"min_rating = {least:g}: the source has no rating column")
    return np.nan_to_num(values(rows, "rating").astype(float), nan=-np.inf) >= least


def _only(rows: pa.Table, column: str, kept: set[str], left_out: dict[str, int], reason: str) -> pa.Table:
    inside = np.fromiter((identifier in kept for identifier in strings(rows, column)), bool, rows.num_rows)
    left_out[reason] = int((~inside).sum())
    return rows.take(np.flatnonzero(inside))


def _core(rows: pa.Table, cores: tuple[int, int], left_out: dict[str, int]) -> pa.Table:
    ids = {name: strings(rows, f"{name}_id") for name in ("user", "item")}
    orders = {name: index_order(found) for name, found in ids.items()}
    users, items = (positions(ids[name], orders[name]) for name in ids)
    inside = k_core(users, items, *cores)
    left_out["users_outside_core"] = len(orders["user"]) - len(np.unique(users[inside]))
    left_out["rows_outside_core"] = rows.num_rows - len(inside)
    return rows.take(inside)
