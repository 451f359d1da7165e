"""Which interactions are trained on, validated on and tested on, and which of a held-out user are only shown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from flows.errors import SplitColumnError
from flows.source_settings import SplitSettings
from flows.split_errors import EmptyPartError, MissingTimestampsError
from flows.steps.rows import index_order, positions, strings

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = ("train", "valid", "test", "fold_in")
TRAIN, VALID, TEST, FOLD_IN = range(len(PARTS))
LEFT_OUT = -1
# Parts that tell who a user is: a held-out user's fold-in rows stand for the training rows they do not have.
KNOWN = ("train", "fold_in")
_SPELLINGS = {"train": 0, "training": 0, "valid": 1, "validation": 1, "val": 1, "test": 2, "fold_in": 3, "fold-in": 3}


def split_rows(interactions: pa.Table, split: SplitSettings) -> tuple[np.ndarray, dict[str, int]]:
    """int8 part of each row, LEFT_OUT where its item is unknown in training and the settings drop such, and counts.

    Args:
        interactions: in (user, item) order, so that the split does not depend on the order of the source.

    Raises:
        SplitColumnError, MissingTimestampsError, EmptyPartError.
    """
    ids = {name: strings(interactions, f"{name}_id") for name in ("user", "item")}
    users, items = (positions(found, index_order(found)) for found in ids.values())
    counts: dict[str, int] = {}
    if split.kind == "users":
        rng = np.random.default_rng([split.seed, 0x35])
        parts = held_out_parts(
            users, items, split.held_out, target_share=split.target_share, drop_unseen=split.drops_unseen, rng=rng
        )
        trained, asked = (len(np.unique(users[np.isin(parts, some)])) for some in ([TRAIN], [VALID, TEST]))
        counts["users_not_evaluated"] = len(np.unique(users)) - trained - asked
    elif split.kind == "random":
        parts = random_parts(users, items, shares=split.shares, rng=np.random.default_rng([split.seed, 0x31]))
    elif split.kind == "given":
        parts = given_parts(interactions, split.column, split.valid_share)
        if split.valid_share is not None:
            drawn_validation(users, parts, split.valid_share, np.random.default_rng([split.seed, 0x7A]))
    elif split.kind == "last":
        parts = last_parts(users, _times_us(interactions, split.kind), rng=np.random.default_rng([split.seed, 0x1A]))
        counts["users_not_evaluated"] = len(np.unique(users)) - len(np.unique(users[parts == TEST]))
    else:
        parts = time_parts(_times_us(interactions, split.kind), split.cuts, split.shares)
    if split.drops_unseen:
        parts = without_unseen(items, parts)
        counts["rows_on_unseen_items"] = int((parts == LEFT_OUT).sum())
    if split.kind in ("users", "last", "time"):
        _refuse_empty(parts, split.kind)
    return parts, counts


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
    parts[free[:n_valid]] = VALID
    parts[free[n_valid : n_valid + n_test]] = TEST
    return parts


def held_out_parts(
    user_index: np.ndarray,
    item_index: np.ndarray,
    held_out: tuple[float, float],
    *,
    target_share: float,
    drop_unseen: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """int8 part of each interaction where validation and test users are held out of training altogether.

    Of a held-out user's n rows floor(target_share n), drawn at random, are to be found; the rest is fold-in. A user
    with too few rows for a single target is all fold-in.

    Args:
        held_out: validation and test users, as shares of all users below 1, or as numbers.
        drop_unseen: rows of held-out users on items without a training row are LEFT_OUT before targets are drawn.

    Source: Liang et al. 2018, section 4, with the fold-in drawn for each user.
    Deviations: chance falls on rows in (user, item) order, and every user's rows have keys of their own, so the split
    does not depend on the order of the source. Users with fewer than 5 rows are the ones without a target at the
    default share, as there.
    """
    n_users = int(user_index.max(initial=-1)) + 1
    n_valid, n_test = (round(n_users * said) if said < 1 else round(said) for said in held_out)
    if n_valid + n_test >= n_users:
        raise EmptyPartError(
            "users", "train", f"{n_valid} + {n_test} of {n_users} users are held out. Lower `held_out`"
        )
    role = np.zeros(n_users, np.int8)
    drawn = rng.permutation(n_users)
    role[drawn[:n_valid]] = VALID
    role[drawn[n_valid : n_valid + n_test]] = TEST
    keys = rng.random(len(user_index))
    parts = role[user_index]
    if drop_unseen:
        parts = without_unseen(item_index, parts)
    rows = np.flatnonzero(parts > TRAIN)
    rows = rows[np.lexsort((keys[rows], user_index[rows]))]
    counts = np.bincount(user_index[rows], minlength=n_users)
    n_targets = np.floor(target_share * counts + 1e-9).astype(np.int64)  # 0.2 of 5 rows is one, whatever floats say
    begins = np.cumsum(counts) - counts
    rank = np.arange(len(rows)) - begins[user_index[rows]]
    parts[rows[rank >= n_targets[user_index[rows]]]] = FOLD_IN
    return parts


def last_parts(user_index: np.ndarray, times: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """int8 part of each interaction: a user's last is test, the one before validation; with fewer than 3 all train.

    Rows of one moment are ordered by chance: in the order of ids, the last would say what the id is.

    Args:
        times: (rows,) int64 moments.
    """
    order = np.lexsort((rng.random(len(times)), times, user_index))
    counts = np.bincount(user_index)
    from_end = np.cumsum(counts)[user_index[order]] - np.arange(len(order))  # 1 is the last
    enough = counts[user_index[order]] >= 3
    parts = np.zeros(len(times), np.int8)
    parts[order[enough & (from_end == 2)]] = VALID
    parts[order[enough & (from_end == 1)]] = TEST
    return parts


def time_parts(
    times_us: np.ndarray, cuts: tuple[datetime, datetime] | None, shares: tuple[float, float, float]
) -> np.ndarray:
    """int8 part of each interaction: before the first cut train, before the second valid, from then on test.

    Args:
        times_us: (rows,) int64 microseconds since 1970, UTC.
        cuts: the first moments of validation and test; None takes the moments at which `shares` of the rows have gone
            by. Rows of one moment stay together, so the shares are met as far as moments differ.
    """
    if cuts is None:
        ahead = np.cumsum(shares)[:2] / sum(shares) * len(times_us)
        places = np.minimum(np.round(ahead).astype(np.int64), len(times_us) - 1)
        starts = np.sort(times_us)[places]
    else:
        starts = np.array([round(cut.timestamp() * 1e6) for cut in cuts])
    return np.searchsorted(starts, times_us, side="right").astype(np.int8)


def without_unseen(item_index: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The parts with LEFT_OUT where the row's item has no training row."""
    seen = np.zeros(int(item_index.max(initial=-1)) + 1, bool)
    seen[item_index[parts == TRAIN]] = True
    return np.where(seen[item_index], parts, np.int8(LEFT_OUT))


def given_parts(interactions: pa.Table, column: str, valid_share: float | None = None) -> np.ndarray:
    """int8 part of each interaction as a column of the source says it; `fold_in` is of users who are held out.

    Args:
        valid_share: validation is yet to be drawn from training; the column must not name any.

    Raises:
        SplitColumnError: the column is missing, holds other words, names no training, validation or test row, or folds
            in rows of a user who is trained on.
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
    if valid_share is not None and (parts == VALID).any():
        raise SplitColumnError(column, got, "it names validation rows; leave `split.valid_share` out")
    wanted = [code for code in range(FOLD_IN) if code != VALID or valid_share is None]
    missing = [PARTS[code] for code in wanted if not (parts == code).any()]
    if missing:
        raise SplitColumnError(column, got, f"no row is in the {missing[0]} part")
    if (parts == FOLD_IN).any():
        _refuse_half_held_out(strings(interactions, "user_id"), parts, column, got)
    return parts


def drawn_validation(user_index: np.ndarray, parts: np.ndarray, share: float, rng: np.random.Generator) -> None:
    """Turns a share of each user's training rows, rounded down, into validation rows, in place."""
    train = np.flatnonzero(parts == TRAIN)
    order = train[np.lexsort((rng.random(len(train)), user_index[train]))]
    owners = user_index[order]
    places = np.arange(len(order)) - np.searchsorted(owners, owners)
    parts[order[places < np.floor(np.bincount(owners)[owners] * share)]] = VALID


def _refuse_half_held_out(user_ids: Sequence[str], parts: np.ndarray, column: str, got: Sequence[str]) -> None:
    trained, folded, asked = (
        {user_id for user_id, part in zip(user_ids, parts, strict=True) if part in wanted}
        for wanted in ((TRAIN,), (FOLD_IN,), (VALID, TEST))
    )
    if both := sorted(trained & (folded | asked)):
        problem = f"user {both[0]!r} is trained on and held out; with fold_in rows a user is one or the other"
        raise SplitColumnError(column, got, problem)


def _times_us(interactions: pa.Table, kind: str) -> np.ndarray:
    column = interactions.column("timestamp")
    if column.null_count:
        raise MissingTimestampsError(kind, column.null_count, len(column))
    return column.cast("int64").to_numpy()


def _refuse_empty(parts: np.ndarray, kind: str) -> None:
    cures = {
        "users": "every held-out user has too few rows. Raise `held_out` or `target_share`",
        "last": "no user has three rows. Choose another `split.kind`",
        "time": "no row lies there. Move `cuts`, or let `shares` place them",
    }
    for code, name in enumerate(PARTS[:FOLD_IN]):
        if not (parts == code).any():
            raise EmptyPartError(kind, name, cures[kind])


def _first_rows(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The first row of each label, in the order given."""
    _, first = np.unique(labels[order], return_index=True)
    return order[first]
