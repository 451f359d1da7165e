"""Distances, radii and drift of latents against closed forms and scipy, and proposition 3.2 on a trained model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, wasserstein_distance
from torch import nn

from rec_models.analysis import masked, posterior_means, posteriors_of
from rec_models.collaboration import cohorts, distances_and_radii, drift_under_masks, radii, spread
from rec_models.errors import NoLatentError
from rec_models.gaussians import DiagonalGaussian, wasserstein1_bounds
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.recommender import Encoding, VariationalRecommender
from rec_models.semantic import ModelInputs, SemanticMatrix, pooled_users
from rec_models.settings import parse_config

SEED = 57
N_USERS, N_ITEMS = 48, 24
BASE = {"name": "mult_vae", "hidden_dim": 10, "latent_dim": 5, "kl_weight": 0.1}


@pytest.fixture(scope="module")
def world():
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    tastes, topics = rng.standard_normal((N_USERS, 3)), rng.standard_normal((N_ITEMS, 3))
    cells = tastes @ topics.T > 1.0
    cells[7] = False
    train = InteractionMatrix.from_pairs(*np.nonzero(cells), None, n_users=N_USERS, n_items=N_ITEMS)
    items = SemanticMatrix(torch.randn(N_ITEMS, 6), torch.ones(N_ITEMS, dtype=torch.bool))
    return ModelInputs(train, {"items": items, "users": pooled_users(items, train)}, SEED)


def trained(mapping, world, steps=150):
    torch.manual_seed(SEED)
    model, rng, order = (
        parse_config(mapping).build(world),
        torch.Generator().manual_seed(SEED),
        np.random.default_rng(0),
    )
    optimiser, history = torch.optim.Adam(model.parameters(), lr=1e-2), ResidentInteractions(world.train)
    step = 0
    while step < steps:
        for batch in model.batches(history, order, 24):
            optimiser.zero_grad()
            torch.stack(list(model.loss(batch, rng, step).values())).sum().backward()
            optimiser.step()
            step += 1
    return model.served().eval(), history


@pytest.fixture(scope="module")
def base(world):
    return trained(BASE, world)


def gaussian(seed, width, spread=1.0):
    rng = torch.Generator().manual_seed(seed)
    mean, log_variance = torch.randn(1, width, generator=rng), torch.randn(1, width, generator=rng) * spread
    return DiagonalGaussian(mean.double(), log_variance.double())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), spread=st.sampled_from([0.0, 1.0, 3.0]))
def test_in_one_dimension_the_lower_bound_is_the_distance_itself(seed, spread):
    q, p = gaussian(seed, 1, spread), gaussian(seed + 1, 1, spread)
    levels = (np.arange(20_000) + 0.5) / 20_000
    draws = [norm.ppf(levels, float(g.mean), math.exp(0.5 * float(g.log_variance))) for g in (q, p)]
    low, high = wasserstein1_bounds(q, p)
    assert float(low) == pytest.approx(wasserstein_distance(*draws), rel=2e-3, abs=2e-3)
    assert float(low) <= float(high) <= math.sqrt(math.pi / 2) * float(low) + 1e-9


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), width=st.integers(1, 6))
def test_bounds_hold_the_cost_of_any_coupling_and_meet_for_equal_covariances(seed, width):
    q, p = gaussian(seed, width), gaussian(seed + 1, width)
    low, high = (float(bound) for bound in wasserstein1_bounds(q, p))
    assert 0 <= low <= high <= math.sqrt(math.pi / 2) * low + 1e-9
    noise = torch.randn(4000, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    coupled = [g.mean + torch.exp(0.5 * g.log_variance) * noise for g in (q, p)]
    cost = (coupled[0] - coupled[1]).norm(dim=1)
    assert low <= float(cost.mean()) + 5 * float(cost.std()) / math.sqrt(4000) + 1e-9
    moved = DiagonalGaussian(q.mean + 1, q.log_variance)
    assert [float(bound) for bound in wasserstein1_bounds(q, moved)] == pytest.approx([math.sqrt(width)] * 2)
    assert [float(bound) for bound in wasserstein1_bounds(q, q)] == [0, 0]


def test_a_mask_leaves_entries_out_and_keeps_the_rows_in_order(world):
    batch = ResidentInteractions(world.train).batch(np.arange(N_USERS))
    some = masked(batch, 0.4, torch.Generator().manual_seed(SEED))
    assert 0 < len(some.items) < len(batch.items) and torch.equal(some.users, batch.users)
    assert torch.equal(torch.bincount(some.rows, minlength=N_USERS), some.lengths)
    assert torch.equal(some.offsets, torch.cumsum(some.lengths, 0) - some.lengths)
    assert torch.equal(some.values, torch.full_like(some.values, 1 / 0.4))
    whole = set(zip(batch.rows.tolist(), batch.items.tolist(), strict=True))
    assert set(zip(some.rows.tolist(), some.items.tolist(), strict=True)) < whole
    assert torch.equal(masked(batch, 1.0, None).items, batch.items)


class Line(VariationalRecommender):
    """Each user's posterior is a point; the loss of a row at z is (its length) * <weight, z>, so L is that length."""

    def __init__(self, means):
        super().__init__()
        self.latent_dim, self.clamp_log_variance, self.means = means.shape[1], None, means
        self.weight = nn.Parameter(torch.ones(means.shape[1], dtype=means.dtype))

    def encode(self, batch, rng):
        mean = self.means[batch.users].double()
        return Encoding(DiagonalGaussian(mean, torch.full_like(mean, -80.0)), batch)

    def likelihood(self, z, batch, rng, step):
        return {"reconstruction": (batch.lengths * (z @ self.weight)).mean()}


def test_the_parts_of_a_radius_are_those_of_a_loss_whose_gradient_is_known():
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    means = torch.from_numpy(rng.standard_normal((6, 3)))
    items = [item for user in range(6) for item in range(user + 1)]
    train = InteractionMatrix.from_pairs(
        [user for user in range(6) for _ in range(user + 1)], items, None, n_users=6, n_items=7
    )
    u, v = np.array([0, 3, 5]), np.array([4, 1, 5])
    found = radii(Line(means), ResidentInteractions(train), u, v, "line")
    length, place = np.arange(1, 7), means.numpy()
    norms = np.linalg.norm(place, axis=1)
    np.testing.assert_allclose(found["gain"], length[u] * norms[u] - np.abs(length[v] - length[u]) * norms[v])
    np.testing.assert_allclose(found["steepness"][:2], length[u][:2])
    cosines = (place[u] * place[v]).sum(1) / norms[u] / norms[v]
    np.testing.assert_allclose(found["cosine"], cosines)


def test_inside_the_radius_a_step_on_one_user_helps_the_other(base, world):
    """Theorem 2.3 on a trained model: wherever the distance is below the radius, gradients point the same way."""
    model, history = base
    found = distances_and_radii(model, history, "mult_vae", gradients=60)
    n = len(found["gain"])
    radius = found["gain"] / found["steepness"].max()
    inside = found["w1_high"][:n] < radius
    print(f"{inside.sum()} of {n} pairs inside; {(found['cosine'] > 0).mean():.2f} of all pairs help")
    assert (found["cosine"][inside] > 0).all()
    rows = world.train.csr().toarray() > 0
    u, v = found["first"], found["second"]
    np.testing.assert_array_equal(found["shared"], (rows[u] & rows[v]).sum(1))
    np.testing.assert_array_equal(found["differing"], (rows[u] ^ rows[v]).sum(1))
    assert (found["w1_low"] <= found["w1_high"]).all() and not np.isin(7, u)
    assert ((found["neighbour_overlap"] >= 0) & (found["neighbour_overlap"] <= 1)).all()
    near, far = (found["w1_high"][cells].mean() for cells in (found["differing"] < 5, found["differing"] > 10))
    assert near < far


def test_alignment_shrinks_variance_over_masks_and_drift_as_proposition_3_2_says(world):
    found = {}
    for weight in (0.0, 2.0):
        model, history = trained({"name": "pia", "weight": weight, "base": BASE}, world)
        drift = drift_under_masks(model, history, "pia", masks=50)
        found[weight] = drift["variance"].mean(), drift["drift"].mean()
        assert drift["users"].tolist() == history.active.tolist() and 7 not in drift["users"]
    print(found)
    assert found[2.0][0] < 0.7 * found[0.0][0] and found[2.0][1] < 0.7 * found[0.0][1]


def test_the_centroid_is_of_the_anchors_that_minimise_the_alignment(base, world):
    model, history = base
    means = posteriors_of(model, history, np.arange(N_USERS), "mult_vae").mean.double()
    batch = history.batch(np.arange(N_USERS))
    anchors = torch.zeros(N_ITEMS, 5, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([anchors], max_iter=200, line_search_fn="strong_wolfe")

    def alignment():
        optimiser.zero_grad()
        squares = (means[batch.rows] - anchors[batch.items]).square().sum(1)
        loss = (squares / batch.lengths[batch.rows]).sum()
        loss.backward()
        return loss

    optimiser.step(alignment)
    taken = torch.tensor(world.train.csr().toarray() > 0)
    shares = taken / taken.sum(1, keepdim=True).clamp_min(1)
    away = (means - shares.double() @ anchors.detach()).square().sum(1)
    found = drift_under_masks(model, history, "mult_vae", masks=1, keep=1.0)
    torch.testing.assert_close(torch.from_numpy(found["drift"]), away[found["users"]], atol=1e-6, rtol=1e-4)
    assert found["variance"].max() < 1e-9  # nothing was masked


def test_the_divergence_falls_into_two_parts_and_bounds_the_distances(base, world):
    model, history = base
    found = spread(model, history, "mult_vae")
    assert found["kl"] == pytest.approx(found["information"] + found["kl_aggregate"])
    assert 0 < found["information"] <= math.log(N_USERS) and found["kl_aggregate"] > -0.5
    assert 0 < found["w1_low"] <= found["w1_high"] <= found["w1_bound"]
    means = posterior_means(model, history, "mult_vae")["decoded"][history.active]
    assert found["active"] == (means.var(0) >= 0.01).sum() and found["latent_dim"] == 5


def test_cohorts_are_users_of_about_so_many_items_and_purity_is_their_share_among_neighbours(base, world):
    model, history = base
    lengths = world.train.lengths()
    counts = [int(np.quantile(lengths[lengths > 0], level)) for level in (0.2, 0.8)]
    found = cohorts(model, history, "mult_vae", counts=[*counts, 900], most=6)
    for place, count in enumerate(counts):
        members = found["users"][found["cohort"] == place]
        assert 0 < len(members) <= 6 and (np.abs(lengths[members] - count) <= 0.1 * count).all()
    whole = posteriors_of(model, history, found["users"], "mult_vae")
    expected = torch.cat([whole.mean, torch.exp(whole.log_variance / 2)], 1).numpy()
    np.testing.assert_allclose(found["points"], expected, atol=1e-6)
    distances = np.linalg.norm(expected[:, None] - expected, axis=2) + np.diag(np.full(len(expected), np.inf))
    nearest = np.argsort(distances, axis=1)[:, : min(15, len(expected) - 1)]
    np.testing.assert_allclose(found["purity"], (found["cohort"][nearest] == found["cohort"][:, None]).mean(1))
    centres = [expected[found["cohort"] == place].mean(0) for place in (0, 1)]
    assert found["apart"][0, 1] == pytest.approx(np.linalg.norm(centres[0] - centres[1]), rel=1e-4)
    assert np.isnan(found["apart"][2]).all()
    assert len(cohorts(model, history, "mult_vae", counts=[900])["users"]) == 0


@pytest.mark.parametrize(
    "mapping",
    [
        {"name": "cvga", "latent_dim": 5},
        {"name": "rec_vae", "hidden_dim": 10, "hidden_layers": 2, "latent_dim": 5},
        {"name": "macrid_vae", "hidden_dim": 10, "factors": 2, "dim": 4},
        {"name": "l_diffrec", "latent_dim": 5, "denoiser_hidden_dim": 8},
        BASE | {"flow_layers": 2, "flow_hidden_dim": 8},
        {"name": "dmrec", "base": BASE, "meta_network": {"hidden_dim": 8}},
    ],
    ids=lambda mapping: mapping["name"] + "-flow" * ("flow_layers" in mapping),
)
def test_every_base_and_whatever_wraps_one_can_be_looked_at(mapping, world):
    model, history = trained(mapping, world, steps=4)
    name = mapping["name"]
    pairs = np.array([0, 1]), np.array([2, 3])
    for arrays in (
        radii(model, history, *pairs, name),
        drift_under_masks(model, history, name, masks=3, keep=0.2),
        spread(model, history, name),
    ):
        assert all(np.isfinite(values).all() for values in arrays.values())


def test_a_model_without_a_latent_is_refused_by_name(world):
    model, history = parse_config({"name": "popularity"}).build(world), ResidentInteractions(world.train)
    for look in (distances_and_radii, drift_under_masks, spread):
        with pytest.raises(NoLatentError, match="popularity has no latent"):
            look(model, history, "popularity")
    with pytest.raises(NoLatentError):
        cohorts(model, history, "popularity", counts=[3])


def test_after_a_flow_the_decoded_means_are_where_the_flow_takes_them(world):
    flow = BASE | {"flow_layers": 2, "flow_hidden_dim": 8}
    model, history = trained(flow, world, steps=40)
    batch = history.batch(np.arange(N_USERS))
    with torch.no_grad():
        posterior = model.encode(batch, None).posterior
        expected = model.point(posterior).numpy()
    np.testing.assert_allclose(posterior_means(model, history, "mult_vae")["decoded"], expected)
    assert not np.allclose(expected, posterior.mean.numpy(), atol=1e-3)
