"""Laws of held-out users, of the last row, of time, and of cores: nothing that is tested is trained on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flows.source_settings import SourceSettings, SplitSettings
from flows.split_errors import EmptyPartError, MissingTimestampsError
from flows.steps.filters import WORD, filtered, k_core, text_of
from flows.steps.ingest import split_words
from flows.steps.split import FOLD_IN, LEFT_OUT, TEST, TRAIN, VALID, held_out_parts, last_parts, split_rows, time_parts
from warehouse import arrow_table

PAIRS = st.sets(st.tuples(st.integers(0, 11), st.integers(0, 14)), min_size=30, max_size=120)
SEEDS = st.integers(0, 9)
DAY_US = 86_400_000_000


def indexed(pairs):
    rows = np.array(sorted(pairs))
    return tuple(np.unique(rows[:, end], return_inverse=True)[1] for end in (0, 1))


def held_out(users, items, seed, *, drop=True, of=(2, 2), share=0.2):
    return held_out_parts(users, items, of, target_share=share, drop_unseen=drop, rng=np.random.default_rng(seed))


def table(pairs, **columns):
    rows = sorted(pairs)
    named = {"user_id": [f"u{user}" for user, _ in rows], "item_id": [f"i{item:02d}" for _, item in rows]}
    return arrow_table(None, named | columns)


def dated(pairs, days):
    return table(pairs, timestamp=[datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in days])


@given(PAIRS, SEEDS, st.sampled_from([0.2, 0.5]), st.booleans())
def test_no_held_out_user_has_a_training_row_and_what_is_shown_is_never_asked_for(pairs, seed, share, drop):
    users, items = indexed(pairs)
    parts = held_out(users, items, seed, drop=drop, share=share)
    owners = {part: set(users[parts == part].tolist()) for part in (TRAIN, VALID, TEST, FOLD_IN)}
    assert not owners[TRAIN] & (owners[VALID] | owners[TEST] | owners[FOLD_IN])
    assert not owners[VALID] & owners[TEST]
    assert len(owners[TRAIN]) == users.max() + 1 - 4
    # every row has one part, so what is shown and what is asked for share no row, and a pair occurs once
    shown = {(user, item) for user, item, part in zip(users, items, parts, strict=True) if part == FOLD_IN}
    asked = {(user, item) for user, item, part in zip(users, items, parts, strict=True) if part in (VALID, TEST)}
    assert not shown & asked
    for user in set(users.tolist()) - owners[TRAIN]:
        own = parts[(users == user) & (parts != LEFT_OUT)]
        n_targets = int(np.isin(own, (VALID, TEST)).sum())
        assert n_targets == int(len(own) * share + 1e-9), "floor(share n), and with none the user is all fold-in"


@given(PAIRS, SEEDS)
def test_whatever_training_has_not_met_leaves_with_its_rows_and_only_that(pairs, seed):
    users, items = indexed(pairs)
    parts = held_out(users, items, seed)
    met = set(items[parts == TRAIN].tolist())
    assert [part == LEFT_OUT for part in parts] == [item not in met for item in items]
    kept = held_out(users, items, seed, drop=False)
    assert not (kept == LEFT_OUT).any() and (kept == TRAIN).sum() == (parts == TRAIN).sum()


@given(PAIRS, SEEDS, st.randoms(use_true_random=False))
def test_the_split_does_not_depend_on_the_order_of_the_source(pairs, seed, chance):
    shuffled = list(pairs)
    chance.shuffle(shuffled)
    split = SplitSettings(kind="users", held_out=(2, 2), target_share=0.4, seed=seed)
    found = []
    for rows in (sorted(pairs), shuffled):
        named = {"user_id": [f"u{user}" for user, _ in rows], "item_id": [f"i{item}" for _, item in rows]}
        kept, _, _ = filtered(arrow_table(None, named), arrow_table(None, {"item_id": ["i0"]}), SourceSettings(), 0)
        try:
            parts, _ = split_rows(kept, split)
        except EmptyPartError:
            return
        found.append(list(zip(kept["user_id"].to_pylist(), kept["item_id"].to_pylist(), parts.tolist(), strict=True)))
    assert found[0] == found[1]


def test_held_out_users_may_be_counted_or_shared():
    users, items = indexed({(user, item) for user in range(40) for item in range(10)})
    for of, expected in (((0.1, 0.2), (4, 8)), ((3, 0.25), (3, 10)), ((1, 1), (1, 1))):
        parts = held_out(users, items, 0, of=of)
        assert tuple(len(set(users[parts == part].tolist())) for part in (VALID, TEST)) == expected
    with pytest.raises(EmptyPartError, match="40 users are held out"):
        held_out(users, items, 0, of=(20, 20))
    with pytest.raises(ValueError, match="whole numbers of users"):
        SplitSettings(held_out=(2.5, 3))


@given(PAIRS, SEEDS, st.lists(st.integers(0, 5), min_size=120, max_size=120))
def test_a_users_last_row_is_tested_and_nothing_trained_on_is_later_than_what_is_validated(pairs, seed, days):
    users, _ = indexed(pairs)
    times = np.array(days[: len(users)])
    parts = last_parts(users, times, rng=np.random.default_rng(seed))
    for user in range(users.max() + 1):
        own, when = parts[users == user], times[users == user]
        if len(own) < 3:
            assert (own == TRAIN).all()
            continue
        assert [(own == part).sum() for part in (VALID, TEST)] == [1, 1]
        assert when[own == TRAIN].max() <= when[own == VALID][0] <= when[own == TEST][0] == when.max()


def test_rows_of_one_moment_are_ordered_by_chance_not_by_their_ids():
    users, times = np.repeat(np.arange(200), 5), np.zeros(1000, np.int64)
    parts = last_parts(users, times, rng=np.random.default_rng(0))
    places = np.flatnonzero(parts == TEST) % 5
    assert set(places.tolist()) == set(range(5)) and np.bincount(places).max() < 80


@given(st.lists(st.integers(0, 40), min_size=10, max_size=80), st.sampled_from([(3, 1, 1), (8, 1, 1)]))
def test_parts_in_time_follow_each_other_and_a_moment_is_in_one_of_them(days, shares):
    times = np.array(days) * DAY_US
    parts = time_parts(times, None, shares)
    assert (np.diff(parts[np.argsort(times, kind="stable")]) >= 0).all()
    assert all(len(set(parts[times == moment].tolist())) == 1 for moment in times)
    assert (parts == TEST).sum() >= round(len(days) * shares[2] / sum(shares)) - 1


def test_dates_cut_where_they_say_in_utc_unless_they_say_otherwise():
    split = SplitSettings(kind="time", cuts=("2020-01-03", "2020-01-05T02:00:00+02:00"))
    rows = dated({(user, item) for user in range(2) for item in range(3)}, [0, 2, 3, 4, 5, 1])
    parts, counts = split_rows(rows, split)
    assert parts.tolist() == [TRAIN, VALID, VALID, TEST, TEST, TRAIN] and not counts
    with pytest.raises(ValueError, match="before the first of test"):
        SplitSettings(cuts=("2020-01-05", "2020-01-03"))
    with pytest.raises(EmptyPartError, match="valid part"):
        split_rows(rows, SplitSettings(kind="time", cuts=("2021-01-03", "2021-01-05")))


@pytest.mark.parametrize("kind", ["last", "time"])
def test_without_every_timestamp_there_is_no_split_in_time(kind):
    pairs = {(0, item) for item in range(4)}
    moments = [datetime(2020, 1, 1, tzinfo=UTC), None, None, datetime(2020, 1, 2, tzinfo=UTC)]
    with pytest.raises(MissingTimestampsError, match=r"2 of 4 .*`source\.columns\.interactions`"):
        split_rows(table(pairs, timestamp=moments), SplitSettings(kind=kind))


@given(PAIRS, st.integers(0, 5))
def test_unseen_items_can_be_dropped_from_any_split(pairs, last_day):
    days = [min(item, last_day + 6) for _, item in sorted(pairs)]
    rows = dated(pairs, days)
    try:
        parts, counts = split_rows(rows, SplitSettings(kind="time", unseen_items="drop"))
    except EmptyPartError:
        return
    met = {item for item, part in zip(rows["item_id"].to_pylist(), parts, strict=True) if part == TRAIN}
    for item, part in zip(rows["item_id"].to_pylist(), parts, strict=True):
        assert (part == LEFT_OUT) == (item not in met)
    assert counts["rows_on_unseen_items"] == (parts == LEFT_OUT).sum()


def slow_core(pairs, min_user, min_item):
    left = set(pairs)
    while True:
        thin = {
            (user, item)
            for user, item in left
            if sum(other == user for other, _ in left) < min_user or sum(other == item for _, other in left) < min_item
        }
        if not thin:
            return left
        left -= {min(thin)}  # one at a time: the core does not depend on the order of leaving


@given(PAIRS, st.integers(1, 6), st.integers(1, 6))
@example({(0, 0)}, 2, 2)
def test_a_core_is_the_largest_set_in_which_everybody_has_enough(pairs, min_user, min_item):
    rows = np.array(sorted(pairs))
    inside = k_core(rows[:, 0], rows[:, 1], min_user, min_item)
    left = rows[inside]
    assert {tuple(pair) for pair in left.tolist()} == slow_core(pairs, min_user, min_item)
    again = k_core(left[:, 0], left[:, 1], min_user, min_item)
    assert len(again) == len(left)


def test_filters_say_how_many_rows_users_and_items_they_left_out():
    pairs = {(user, item) for user in range(5) for item in range(4)} | {(5, 0), (0, 4), (1, 5)}
    items = arrow_table(
        None,
        {
            "item_id": [f"i{item:02d}" for item in range(7)],
            "title": ["two words"] * 4 + ["alone", "two words", "never taken"],
            "tags": [["a", "tag"], [], ["of them"], None, ["x"], None, []],
            "year": list(range(7)),
        },
    )
    source = SourceSettings(min_item_words=2, min_user_interactions=2, min_item_interactions=2)
    kept, catalogue, counts = filtered(table(pairs), items, source, 0)
    assert catalogue["item_id"].to_pylist() == ["i00", "i01", "i02", "i03"] and kept.num_rows == 20
    assert counts == {
        "items_of_few_words": 1,
        "rows_on_items_of_few_words": 1,
        "users_outside_core": 1,
        "items_outside_core": 2,
        "rows_outside_core": 2,
    }
    words = split_words(SplitSettings(), source)
    assert words == "random 3:1:1, seed 0, items of 2 words and more, core of 2 per user and 2 per item"


def test_words_are_counted_in_the_columns_that_were_named():
    row = {"title": "Grand Prix 2", "tags": ["racing", "f1"], "year": 1996, "blurb": None}
    assert WORD.findall(text_of(row, None)) == ["Grand", "Prix", "racing", "f1"]
    assert WORD.findall(text_of(row, ("tags",))) == ["racing", "f1"] and text_of(row, ("blurb",)) == ""
