"""How users share a latent: distances of posteriors beside those of rows, drift under masks, the radius of sharing.

Source: PIA's analysis of collaboration in VAEs (theorem 2.3, proposition 3.2, equation 6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rec_models.analysis import base_of, decoded_posterior, posteriors_of
from rec_models.gaussians import DiagonalGaussian, kl_to_standard, log_density, wasserstein1_bounds
from rec_models.information import log_densities
from rec_models.interactions import ResidentInteractions, UserBatch
from rec_models.recommender import Recommender, VariationalRecommender

# Users that are looked at, spread evenly over those who have a row: distances between all of them are 16 MB.
_USERS = 2000
_PAIRS = 4000
# Draws from each posterior for one mean gradient.
_DRAWS = 8
_NEIGHBOURS, _PURITY_NEIGHBOURS = 10, 15
# A dimension whose posterior mean varies less than this between users tells nothing about them.
ACTIVE = 0.01

Arrays = dict[str, NDArray]


def distances_and_radii(
    model: Recommender,
    history: ResidentInteractions,
    name: str,
    *,
    keep: float = 0.5,
    gradients: int = 200,
    seed: int = 0,
) -> Arrays:
    """Pairs of users: how far apart in rows and in latent, and within which distance a step on one helps the other.

    Args:
        gradients: pairs of which gradients are taken.

    Returns:
        of pairs (pairs,): `first`, `second` users; `differing` items that one of them has; `shared` items;
        `w1_low`, `w1_high`, see `wasserstein1_bounds`. Of the first `gradients` pairs:
        `gain` |g_u| - D_uv, `steepness` of the decoder's gradient in the latent, `cosine` of g_u and g_v, see `radii`.
        Of users (users,): `neighbour_drift`, the 2-Wasserstein distance of two masked posteriors of one user,
        `neighbour_overlap`, of the lists of ten nearest users under either mask, Jaccard.

    Raises:
        NoLatentError: the model has no diagonal posterior.
    """
    model.eval()
    base_of(model, name)
    users, rng = _some_users(history), np.random.default_rng(seed)
    whole = posteriors_of(model, history, users, name)
    first = rng.integers(0, len(users), _PAIRS)
    second = (first + rng.integers(1, max(2, len(users)), _PAIRS)) % len(users)
    low, high = wasserstein1_bounds(_at(whole, first), _at(whole, second))
    shared = _shared(history, users[first], users[second])
    lengths = np.diff(history.indptr.cpu().numpy())
    differing = lengths[users[first]] + lengths[users[second]] - 2 * shared
    some = slice(0, gradients)
    found = radii(model, history, users[first[some]], users[second[some]], name, seed)
    drift, overlap = _neighbourhoods(model, history, users, name, keep, seed)
    return {
        "first": users[first],
        "second": users[second],
        "differing": differing,
        "shared": shared,
        "w1_low": low.cpu().numpy(),
        "w1_high": high.cpu().numpy(),
        **found,
        "neighbour_drift": drift,
        "neighbour_overlap": overlap,
    }


def radii(
    model: Recommender,
    history: ResidentInteractions,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    name: str,
    seed: int = 0,
) -> Arrays:
    """What the sharing radius of each pair (u, v) of users is made of.

    With g_u the mean gradient of u's reconstruction with respect to the decoder over u's posterior, D_uv the change of
    it when v's row is decoded from v's posterior instead of u's row, and L the steepness of the gradient in the latent,
    a small step on v lowers u's loss wherever W1(q_u, q_v) < (|g_u| - D_uv) / L.

    Source: theorem 2.3, as its proof has it.
    Deviations: expectations are means over eight draws. `steepness` is the gradient's change over the distance between
    a draw of either posterior, so the largest of many pairs comes near L from below.

    Returns:
        (pairs,) `gain` |g_u| - D_uv, `steepness`, `cosine` of g_u and g_v: above 0 the step on v does help u.
    """
    base = base_of(model, name)
    rows = []
    for u, v in zip(first, second, strict=True):
        us, vs = (history.batch(np.full(_DRAWS, user)) for user in (u, v))
        rng = torch.Generator(us.values.device).manual_seed(seed)
        with torch.no_grad():
            z_u, z_v = (decoded_posterior(model, batch, name).sample(rng) for batch in (us, vs))
        own, other = _gradient(base, z_u, us, seed), _gradient(base, z_v, vs, seed)
        mixed = _gradient(base, z_v, us, seed)
        one = history.batch(np.array([u]))
        change = [a - b for a, b in zip(*(_gradient(base, z[:1], one, seed) for z in (z_u, z_v)), strict=True)]
        gain = _norm(own) - _norm([a - b for a, b in zip(other, mixed, strict=True)])
        inner = sum(float((a * b).sum()) for a, b in zip(own, other, strict=True))
        distance = float((z_u[0] - z_v[0]).norm())
        rows.append((gain, _norm(change) / max(distance, 1e-12), inner / max(_norm(own) * _norm(other), 1e-12)))
    table = np.array(rows, np.float64).reshape(len(rows), 3)
    return dict(zip(("gain", "steepness", "cosine"), table.T, strict=True))


@torch.no_grad()
def drift_under_masks(
    model: Recommender,
    history: ResidentInteractions,
    name: str,
    *,
    masks: int = 50,
    keep: float = 0.5,
    seed: int = 0,
) -> Arrays:
    """How far masks move the posterior mean of a user: over `masks` draws that keep a share of the row.

    Source: proposition 3.2: an alignment of weight w shrinks both by M = (A + 2 w)^-1 A, A the loss's curvature.
    Deviations: the centroid is of anchors that lie best for the posteriors as they are, so that a model trained
    without anchors has one too: an anchor is the mean of the posterior means of whoever has the item, each weighted by
    one over the length of their row, which minimises the alignment term. A latent that merely shrinks has less of
    either; `between` is what to divide by.

    Returns:
        (users,) `variance` of the mean over masks, summed over dimensions; `drift`, mean squared distance of masked
        means from the user's centroid; `users`; and () `between`, variance of whole-row means over users, summed.

    Raises:
        NoLatentError: the model has no diagonal posterior.
    """
    model.eval()
    users, rng = _some_users(history), torch.Generator(history.device).manual_seed(seed)
    whole = posteriors_of(model, history, np.arange(history.n_users), name).mean.double()
    centroids = _best_centroids(whole, history)[torch.from_numpy(users).to(whole.device)]
    total, squares = torch.zeros_like(centroids), torch.zeros_like(centroids[:, 0])
    away = torch.zeros_like(squares)
    for _ in range(masks):
        mean = posteriors_of(model, history, users, name, keep, rng).mean.double()
        total += mean
        squares += mean.square().sum(1)
        away += (mean - centroids).square().sum(1)
    variance = (squares / masks - (total / masks).square().sum(1)).clamp_min(0)
    return {
        "users": users,
        "variance": variance.cpu().numpy(),
        "drift": (away / masks).cpu().numpy(),
        "between": whole[torch.from_numpy(users).to(whole.device)].var(0, correction=0).sum().cpu().numpy(),
    }


@torch.no_grad()
def spread(model: Recommender, history: ResidentInteractions, name: str, *, seed: int = 0) -> Arrays:
    """How far apart posteriors lie and what that costs, of whole rows.

    The mean divergence from N(0, I) falls into what the latent tells of the row and the distance of all posteriors
    together from the prior: E KL = I(x; z) + KL(q(z) || p(z)). Posteriors as near to the prior as that are near to each
    other: E W1 <= 2 sqrt(2 E KL).

    Source: PIA, equation 6 and its background results.
    Deviations: q(z) is the mixture over the users looked at, so I cannot exceed the logarithm of their number. One
    draw a user.

    Returns:
        () `w1_low`, `w1_high` means over pairs, `w1_bound`, `kl`, `information`, `kl_aggregate` in nats, `active`
        dimensions, `latent_dim`.

    Raises:
        NoLatentError: the model has no diagonal posterior.
    """
    model.eval()
    users, pairs = _some_users(history), np.random.default_rng(seed)
    found = posteriors_of(model, history, users, name)
    first = pairs.integers(0, len(users), _PAIRS)
    second = (first + pairs.integers(1, max(2, len(users)), _PAIRS)) % len(users)
    low, high = wasserstein1_bounds(_at(found, first), _at(found, second))
    exact = DiagonalGaussian(found.mean.double(), found.log_variance.double())
    z = exact.sample(torch.Generator(exact.mean.device).manual_seed(seed))
    mixture = torch.logsumexp(log_densities(exact, z), 1) - math.log(len(users))
    divergence, information = kl_to_standard(exact).mean(), (log_density(exact, z) - mixture).mean()
    return {
        "w1_low": low.mean().cpu().numpy(),
        "w1_high": high.mean().cpu().numpy(),
        "w1_bound": (2 * (2 * divergence).sqrt()).cpu().numpy(),
        "kl": divergence.cpu().numpy(),
        "information": information.cpu().numpy(),
        "kl_aggregate": (divergence - information).cpu().numpy(),
        "active": np.array(int((exact.mean.var(0, correction=0) >= ACTIVE).sum())),
        "latent_dim": np.array(exact.mean.shape[1]),
    }


@torch.no_grad()
def cohorts(
    model: Recommender, history: ResidentInteractions, name: str, *, counts: Sequence[int], most: int = 200
) -> Arrays:
    """Users of a few activities in the latent: at most so many whose rows have within a tenth of a count of items.

    Returns:
        (users,) `users`, `cohort`, the place among `counts`; `points` (users, 2 * latent) means, then deviations,
        whose Euclidean distance is the 2-Wasserstein distance; (users,) `purity`, the share of the 15 nearest that
        are of one's own cohort; (cohorts, cohorts) `apart`, the distance between the mean points, NaN without users.

    Raises:
        NoLatentError: the model has no diagonal posterior.
    """
    model.eval()
    lengths = np.diff(history.indptr.cpu().numpy())
    chosen, cohort = [], []
    for place, count in enumerate(counts):
        near = np.flatnonzero((np.abs(lengths - count) <= 0.1 * count) & (lengths > 0))
        near = near[np.argsort(np.abs(lengths[near] - count), kind="stable")][:most]
        chosen.append(near)
        cohort.append(np.full(len(near), place))
    users, labels = np.concatenate(chosen), np.concatenate(cohort)
    base_of(model, name)
    if len(users) == 0:
        return {"users": users, "cohort": labels, "points": np.zeros((0, 0), np.float32), "purity": np.zeros(0)} | {
            "apart": np.full((len(counts), len(counts)), np.nan)
        }
    points = _points(posteriors_of(model, history, users, name))
    centres = torch.stack([points[torch.from_numpy(labels == place)].mean(0) for place in range(len(counts))])
    nearest = _nearest(points, _PURITY_NEIGHBOURS).cpu().numpy()
    return {
        "users": users,
        "cohort": labels,
        "points": points.cpu().numpy(),
        "purity": (labels[nearest] == labels[:, None]).mean(1),
        "apart": torch.cdist(centres, centres).cpu().numpy(),
    }


def _some_users(history: ResidentInteractions) -> NDArray[np.int64]:
    active = history.active
    return active[np.linspace(0, len(active) - 1, min(len(active), _USERS)).astype(np.int64)]


def _at(gaussian: DiagonalGaussian, places: NDArray[np.int64]) -> DiagonalGaussian:
    chosen = torch.from_numpy(places).to(gaussian.mean.device)
    return DiagonalGaussian(gaussian.mean[chosen], gaussian.log_variance[chosen])


def _points(gaussian: DiagonalGaussian) -> Tensor:
    """(batch, 2 * latent) whose Euclidean distances are the 2-Wasserstein distances."""
    return torch.cat([gaussian.mean, torch.exp(0.5 * gaussian.log_variance)], 1)


def _nearest(points: Tensor, k: int) -> Tensor:
    """(n, k) int64 the nearest others of each point."""
    distances = torch.cdist(points, points)
    distances.fill_diagonal_(torch.inf)
    return distances.topk(max(1, min(k, len(points) - 1)), largest=False).indices


def _shared(history: ResidentInteractions, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    indptr, items = history.indptr.cpu().numpy(), history.items.cpu().numpy()

    def row(user: int) -> NDArray[np.int64]:
        return items[indptr[user] : indptr[user + 1]]

    counts = [len(np.intersect1d(row(u), row(v), assume_unique=True)) for u, v in zip(first, second, strict=True)]
    return np.array(counts, np.int64)


def _neighbourhoods(
    model: Recommender, history: ResidentInteractions, users: NDArray[np.int64], name: str, keep: float, seed: int
) -> tuple[NDArray, NDArray]:
    rng = torch.Generator(history.device).manual_seed(seed)
    points = [_points(posteriors_of(model, history, users, name, keep, rng)) for _ in range(2)]
    lists = [_nearest(each, _NEIGHBOURS).cpu().numpy() for each in points]
    both = np.array([len(np.intersect1d(a, b)) for a, b in zip(*lists, strict=True)])
    overlap = both / np.maximum(2 * lists[0].shape[1] - both, 1)
    return (points[0] - points[1]).norm(dim=1).cpu().numpy(), overlap


def _best_centroids(means: Tensor, history: ResidentInteractions) -> Tensor:
    """(n_users, latent) for each user the mean of the anchors of their items, which minimise the alignment term."""
    lengths = history.indptr.diff()
    users = torch.repeat_interleave(torch.arange(history.n_users, device=means.device), lengths)
    shares = 1.0 / lengths.clamp_min(1).to(means.dtype)
    size = (history.n_users, history.n_items)
    weighted = torch.sparse_coo_tensor(torch.stack([users, history.items]), shares[users], size, check_invariants=False)
    weight = torch.zeros(history.n_items, dtype=means.dtype, device=means.device)
    weight.index_add_(0, history.items, shares[users])
    anchors = torch.sparse.mm(weighted.t(), means) / weight.clamp_min(1e-12)[:, None]
    return torch.sparse.mm(weighted, anchors)


def _gradient(base: VariationalRecommender, z: Tensor, batch: UserBatch, seed: int) -> list[Tensor]:
    """Of the mean reconstruction over the batch, with respect to whatever decodes z."""
    weights = [weight for weight in base.parameters() if weight.requires_grad]
    rng = torch.Generator(z.device).manual_seed(seed)
    loss = base.likelihood(z, batch, rng, 0)["reconstruction"]
    return [found for found in torch.autograd.grad(loss, weights, allow_unused=True) if found is not None]


def _norm(gradient: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(part.square().sum()) for part in gradient))
