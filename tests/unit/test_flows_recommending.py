"""Parts of publishing: arms of an A/B test, and the item of a history that an item is near to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.settings import RecommendSettings
from flows.steps import reasons
from flows.steps.reasons import nearest_in_history
from flows.steps.variants import arm_of_each

USERS = [f"u{number}" for number in range(20_000)]


def test_arms_get_their_shares_and_a_user_keeps_the_arm():
    shares = {"control": 0.7, "diverse": 0.2, "other": 0.1}
    arms = arm_of_each(USERS, shares, "spring")
    counted = np.bincount(arms, minlength=3) / len(USERS)
    assert np.abs(counted - [0.7, 0.2, 0.1]).max() < 0.02
    assert (arm_of_each(USERS[5000:6000], shares, "spring") == arms[5000:6000]).all()
    assert (arm_of_each(USERS[::-1], shares, "spring") == arms[::-1]).all()


def test_another_salt_deals_anew_and_a_larger_share_moves_nobody_back():
    first = arm_of_each(USERS, {"a": 0.5, "b": 0.5}, "one")
    assert 0.45 < (first == arm_of_each(USERS, {"a": 0.5, "b": 0.5}, "two")).mean() < 0.55
    larger = arm_of_each(USERS, {"a": 0.6, "b": 0.4}, "one")
    assert (larger[first == 0] == 0).all() and 0.08 < (larger != first).mean() < 0.12


def test_shares_that_are_not_everybody_are_refused():
    with pytest.raises(ValueError, match=r"add up to 0\.9"):
        RecommendSettings.model_validate({"variants": {"a": {"share": 0.5}, "b": {"share": 0.4}}})


def test_only_lists_that_are_diversified_are_ranked_deeper():
    assert RecommendSettings(k=10).depth == 10
    assert RecommendSettings(k=10, diversity=0.3).depth == 50
    arm = {"a": {"share": 1.0, "diversity": 0.1}}
    assert RecommendSettings.model_validate({"k": 10, "candidates": 30, "variants": arm}).depth == 30


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 200))
def test_the_nearest_of_a_history_is_found_whatever_the_blocks(seed, numbers_at_once):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((12, 4)).astype(np.float32)
    present = rng.random(12) < 0.8
    taken = [np.flatnonzero(present & (rng.random(12) < share)) for share in rng.random(7)]
    indptr = np.r_[0, np.cumsum([len(items) for items in taken])]
    users = rng.permutation(7)[:5]
    items = rng.integers(-1, 12, (5, 3)).astype(np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reasons, "_NUMBERS_AT_ONCE", numbers_at_once)
        found = nearest_in_history(users, items, matrix, present, indptr, np.concatenate(taken))
    for row, user in enumerate(users):
        for place, item in enumerate(items[row]):
            if item < 0 or not present[item] or not len(taken[user]):
                assert found[row, place] == -1, f"seed {seed}"
            else:
                expected = taken[user][(matrix[taken[user]] @ matrix[item]).argmax()]
                assert found[row, place] == expected, f"seed {seed}"
