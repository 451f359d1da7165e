"""Laws of the random split, and of index order."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.steps.filters import screened_users
from flows.steps.rows import index_order, sequence_hash
from flows.steps.split import random_parts

PAIRS = st.sets(st.tuples(st.integers(0, 12), st.integers(0, 15)), min_size=1, max_size=120)


def split_of(pairs, seed=0, shares=(3.0, 1.0, 1.0)):
    rows = np.array(sorted(pairs))
    _, users = np.unique(rows[:, 0], return_inverse=True)
    _, items = np.unique(rows[:, 1], return_inverse=True)
    return users, items, random_parts(users, items, shares=shares, rng=np.random.default_rng(seed))


@given(PAIRS, st.integers(0, 5))
def test_every_user_and_every_item_keeps_a_training_row(pairs, seed):
    users, items, parts = split_of(pairs, seed)
    assert set(users[parts == 0]) == set(users)
    assert set(items[parts == 0]) == set(items)


@given(PAIRS)
def test_the_same_seed_gives_the_same_split(pairs):
    assert (split_of(pairs)[2] == split_of(pairs)[2]).all()


@given(PAIRS)
def test_validation_and_test_never_exceed_their_shares(pairs):
    _, _, parts = split_of(pairs)
    for part in (1, 2):
        assert (parts == part).sum() <= round(len(parts) / 5)


@settings(max_examples=10)
@given(st.integers(0, 100))
def test_dense_tables_meet_the_shares_exactly(seed):
    pairs = {(user, item) for user in range(20) for item in range(20)}
    _, _, parts = split_of(pairs, seed)
    assert [int((parts == part).sum()) for part in range(3)] == [240, 80, 80]


@given(st.lists(st.text(min_size=1, max_size=4), max_size=20))
def test_index_order_does_not_depend_on_the_order_of_the_rows(ids):
    assert index_order(ids) == index_order(reversed(ids)) and set(index_order(ids)) == set(ids)


def test_numbers_are_ordered_as_numbers():
    assert index_order(["10", "9", "2"]) == ["2", "9", "10"]
    assert index_order(["10", "9", "b"]) == ["10", "9", "b"]


@given(st.lists(st.text(max_size=3), max_size=6), st.lists(st.text(max_size=3), max_size=6))
def test_two_sequences_share_a_hash_only_when_they_are_equal(left, right):
    assert (sequence_hash(left) == sequence_hash(right)) == (left == right)


@given(st.integers(1, 60), st.floats(0.05, 1.0), st.integers(0, 3))
def test_a_screen_is_a_seeded_share_of_the_users(n_users, share, seed):
    users = [f"u{number}" for number in range(n_users)]
    chosen = screened_users(users, share, seed)
    assert chosen == screened_users(users[::-1], share, seed) and chosen <= set(users)
    assert len(chosen) == max(1, round(share * n_users))
