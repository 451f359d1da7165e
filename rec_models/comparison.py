"""Paired comparison of two models over the same users. Imports no torch, so that tables can be made anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rec_models.errors import NotComparableError


@dataclass(frozen=True)
class PairedComparison:
    """How much better one model is than another, over the users both were evaluated on.

    Attributes:
        difference: mean of a - b.
        relative: difference over the mean of b; NaN where that is 0.
        low, high: 95 % bootstrap interval of the difference.
        p_value: two-sided paired t-test.
        n_users: number of pairs.
    """

    difference: float
    relative: float
    low: float
    high: float
    p_value: float
    n_users: int


def paired_comparison(a: ArrayLike, b: ArrayLike, seed: int = 0) -> PairedComparison:
    """The comparison of two lists of per-user values in the same user order.

    Raises:
        NotComparableError: the lists differ in length, hold fewer than two users or are not finite.
    """
    from scipy import stats  # half a second to import

    left, right = np.asarray(a, float), np.asarray(b, float)
    if left.shape != right.shape or left.ndim != 1:
        raise NotComparableError(
            f"got values of {left.shape} and {right.shape} users, expected the same users for both"
        )
    if len(left) < 2:
        raise NotComparableError(f"got {len(left)} user(s), expected at least 2")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise NotComparableError("a value is NaN or infinite")
    gain = left - right
    difference, reference = float(gain.mean()), float(right.mean())
    if np.ptp(gain) == 0:  # identical lists: no spread to resample, no test to make
        return PairedComparison(
            difference, _ratio(difference, reference), difference, difference, float(difference == 0), len(gain)
        )
    rng = np.random.default_rng(seed)
    interval = stats.bootstrap((gain,), np.mean, n_resamples=2000, batch=100, method="percentile", rng=rng)
    low, high = interval.confidence_interval
    p_value = float(stats.ttest_rel(left, right).pvalue)
    return PairedComparison(difference, _ratio(difference, reference), float(low), float(high), p_value, len(gain))


def _ratio(difference: float, reference: float) -> float:
    return difference / reference if reference else float("nan")
