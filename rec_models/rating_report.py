"""What a model that predicts ratings makes of them: errors, and whether the distribution of ratings has collapsed."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kstwo
from torch import Tensor

# Added to every bin before a logarithm is taken: an empty bin costs much, and not infinitely much.
_SMOOTHING = 1e-6
# Of p-values, in per cent: a user is a hit at a level where predicted and true ratings could be of one distribution.
KS_LEVELS = (1, 5, 10, 20)
# Users with fewer tested ratings give a test of distributions nothing to hold on to.
KS_RATINGS = 10


class RatingReport:
    """Gathers predictions batch by batch; what it keeps is as long as the tested part.

    Bins are the whole numbers of the scale; a prediction falls into the nearest, those beyond the ends into the ends.

    Source: the collapse figures of DGRM (KL distance, rating histograms, Kolmogorov-Smirnov counts).
    Deviations: the direction of the paper's KL is not told, so both are given, `rating_kl` from the true to the
    predicted; shares of users where the paper counts them.
    """

    def __init__(self, ratings: NDArray[np.float32]) -> None:
        """Args: all ratings of the tested part, which the scale is read from."""
        self.low, self.high = (max(1, int(np.floor(ratings.min()))), max(2, int(np.ceil(ratings.max()))))
        self.unrated = np.zeros(self.high - self.low + 1)
        self.parts: list[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]] = []
        self.users = 0

    def add(self, scores: Tensor, rows: Tensor, items: Tensor, ratings: Tensor) -> None:
        """Predictions (batch, n_items) of a batch, -inf where masked, and its tested entries."""
        predicted = scores[rows, items]
        unrated = torch.isfinite(scores)
        unrated[rows, items] = False
        self.unrated += self._counts(scores[unrated].float().cpu().numpy())
        found = (rows.cpu().numpy() + self.users, predicted.float().cpu().numpy(), ratings.float().cpu().numpy())
        self.parts.append(found)
        self.users += len(scores)

    def figures(self, *, distributions: bool = False) -> dict[str, float]:
        """Named numbers; shares are in 0..1.

        rmse, mae: of predictions cut to the scale. rating_kl, rating_kl_back: nats. rating_w1: rating units.
        rating_bins: bins that hold at least 1 % of the predictions; rating_least_bin: the smallest share.
        rating_deviation: mean over users of the deviation of their predictions; true_deviation of their ratings.
        rated_is_r, unrated_is_r: shares of the bins among tested and among all other items.

        Args:
            distributions: also `ks_share_<p>`, the share of users whose predicted and true ratings a Kolmogorov-
                Smirnov test cannot tell apart at p per cent, and `ks_share_<p>_of_10` of users with ten ratings.
        """
        rows, predicted, true = (np.concatenate(columns) for columns in zip(*self.parts, strict=True))
        cut = predicted.clip(self.low, self.high)
        shares, wanted = (self._shares(self._counts(values)) for values in (predicted, true))
        smooth, expected = (_smoothed(part) for part in (shares, wanted))
        found = {
            "rmse": float(np.sqrt(np.mean((cut - true) ** 2))),
            "mae": float(np.abs(cut - true).mean()),
            "rating_kl": float((expected * np.log(expected / smooth)).sum()),
            "rating_kl_back": float((smooth * np.log(smooth / expected)).sum()),
            "rating_w1": float(np.abs(np.cumsum(shares - wanted))[:-1].sum()),
            "rating_bins": float((shares >= 0.01).sum()),
            "rating_least_bin": float(shares.min()),
            "rating_deviation": _mean_deviation(rows, predicted),
            "true_deviation": _mean_deviation(rows, true),
        }
        for name, part in (("rated", shares), ("unrated", self._shares(self.unrated))):
            found |= {f"{name}_is_{self.low + place}": float(share) for place, share in enumerate(part)}
        if not distributions:
            return found
        return found | _ks_shares(self._by_user(rows, predicted), self._by_user(rows, true))

    def _by_user(self, rows: NDArray[np.int64], values: NDArray[np.float32]) -> NDArray[np.float64]:
        width = len(self.unrated)
        cells = rows * width + self._bins(values)
        return np.bincount(cells, minlength=self.users * width).reshape(self.users, width).astype(np.float64)

    def _bins(self, values: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.rint(values.clip(self.low, self.high)).astype(np.int64) - self.low

    def _counts(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.bincount(self._bins(values), minlength=len(self.unrated)).astype(np.float64)

    def _shares(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        return counts / max(counts.sum(), 1.0)


def _smoothed(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    return (shares + _SMOOTHING) / (shares + _SMOOTHING).sum()


def _mean_deviation(rows: NDArray[np.int64], values: NDArray[np.float32]) -> float:
    """Over the users with two values and more; 0 without any."""
    counts = np.bincount(rows)
    means = np.bincount(rows, values) / np.maximum(counts, 1)
    spread = np.bincount(rows, (values - means[rows]) ** 2) / np.maximum(counts, 1)
    return float(np.sqrt(spread[counts >= 2]).mean()) if (counts >= 2).any() else 0.0


def _ks_shares(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> dict[str, float]:
    """Of counts (users, bins); rounded predictions, since unrounded ones would differ from whole ratings by ties alone.

    Source: the two-sample test of Kolmogorov and Smirnov, its p-value as scipy's `asymp` has it.
    Deviations: none.
    """
    n = true.sum(1)
    predicted, true, n = predicted[n > 0], true[n > 0], n[n > 0]
    distance = np.abs((predicted - true).cumsum(1)).max(1) / n
    p = kstwo.sf(distance, np.maximum(np.round(n / 2), 1))
    found = {f"ks_share_{level}": float((p >= level / 100).mean()) for level in KS_LEVELS}
    if (many := n >= KS_RATINGS).any():
        found |= {f"ks_share_{level}_of_{KS_RATINGS}": float((p[many] >= level / 100).mean()) for level in KS_LEVELS}
    return found
