"""Laws of transport plans and of the distances made from them; POT is the reference that shares no line with ours."""

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_models.adaptive_transport import EntropicSettings
from rec_models.transport import (
    assignment_w1,
    barycentric,
    dimension_costs,
    euclidean_costs,
    relative_epsilon,
    scaling_sinkhorn,
    sinkhorn,
    sinkhorn_divergence,
    sliced_w1,
)

SEED = 20260611
sizes = st.integers(1, 40)  # above 32 x 32 cells the tensors lie another way
seeds = st.integers(0, 2**31)


def cloud(rng, n, width=8, scale=1.0):
    return torch.from_numpy(rng.normal(0, scale, (n, width)))


def masses(rng, *shape):
    return torch.from_numpy(rng.dirichlet(np.ones(shape[-1]), shape[:-1]))


@pytest.fixture
def rng():
    print(f"seed {SEED}")
    return np.random.default_rng(SEED)


@settings(max_examples=20)
@given(seeds, sizes, sizes, st.sampled_from([0.02, 0.1, 1.0]))
def test_plans_have_their_marginals_and_never_cost_more_than_the_independent_one(seed, n, m, share):
    rng = np.random.default_rng(seed)
    cost = euclidean_costs(cloud(rng, n), cloud(rng, m))
    rows, columns = masses(rng, n), masses(rng, m)
    found = sinkhorn(cost, relative_epsilon(cost, share), rows=rows, columns=columns, iterations=20_000, tolerance=1e-9)
    assert (found.plan >= 0).all()
    torch.testing.assert_close(found.plan.sum(0), columns, atol=1e-12, rtol=0)
    torch.testing.assert_close(found.plan.sum(1), rows, atol=1e-8, rtol=0)
    assert found.marginal_error == pytest.approx(float((found.plan.sum(1) - rows).abs().sum()), abs=1e-12)
    assert found.value <= (rows[:, None] * columns * cost).sum() + 1e-9
    assert found.value <= found.regularised + 1e-12


@settings(max_examples=20)
@given(seeds, sizes, sizes)
def test_moving_rows_and_columns_about_moves_the_plan_with_them(seed, n, m):
    rng = np.random.default_rng(seed)
    cost, p, q = torch.from_numpy(rng.random((n, m))), rng.permutation(n), rng.permutation(m)
    straight, moved = (sinkhorn(each, 0.1, iterations=30) for each in (cost, cost[p][:, q]))
    torch.testing.assert_close(moved.plan, straight.plan[p][:, q], atol=1e-12, rtol=0)
    torch.testing.assert_close(moved.regularised, straight.regularised)


@settings(max_examples=20)
@given(seeds, st.integers(1, 12), st.integers(1, 12))
def test_a_problem_of_a_batch_is_solved_as_it_is_alone(seed, n, m):
    rng = np.random.default_rng(seed)
    cost, epsilon = torch.from_numpy(rng.random((2, 3, n, m))), torch.from_numpy(rng.uniform(0.05, 1, (2, 3)))
    rows, columns = masses(rng, 2, 3, n), masses(rng, 2, 3, m)
    together = sinkhorn(cost, epsilon, rows=rows, columns=columns, iterations=25)
    for at in np.ndindex(2, 3):
        alone = sinkhorn(cost[at], epsilon[at], rows=rows[at], columns=columns[at], iterations=25)
        for of_batch, of_one in zip(together[:-1], alone[:-1], strict=True):
            torch.testing.assert_close(of_batch[at], of_one)


def test_padding_with_massless_points_changes_nothing(rng):
    cost, rows = torch.from_numpy(rng.random((5, 7))), masses(rng, 5)
    padded = torch.full((8, 7), 3.0, dtype=torch.float64)
    padded[:5] = cost
    alone, wide = sinkhorn(cost, 0.1, rows=rows), sinkhorn(padded, 0.1, rows=torch.cat([rows, torch.zeros(3)]))
    torch.testing.assert_close(wide.plan[:5], alone.plan)
    assert (wide.plan[5:] == 0).all()
    torch.testing.assert_close(wide.regularised, alone.regularised)


@pytest.mark.parametrize("share", [1.0, 0.3, 0.1])
def test_the_converged_plan_is_that_of_pot(rng, share):
    a, b, rows, columns = cloud(rng, 60), cloud(rng, 50) + 0.5, masses(rng, 60), masses(rng, 50)
    cost = euclidean_costs(a, b)
    epsilon = float(relative_epsilon(cost, share))
    reference = ot.bregman.sinkhorn_log(
        rows.numpy(), columns.numpy(), cost.numpy(), epsilon, numItermax=10_000, stopThr=1e-12
    )
    for each, within in ((cost, 1e-9), (cost.float(), 1e-5)):
        found = sinkhorn(each, epsilon, rows=rows, columns=columns, iterations=5000, tolerance=1e-6)
        assert np.abs(found.plan.numpy() - reference).max() < max(within, 1e-8)


@pytest.mark.filterwarnings("ignore:Sinkhorn did not converge")
@pytest.mark.parametrize("share", [0.05, 0.01, 0.003])
@pytest.mark.parametrize("n", [20, 60])
def test_where_neither_converges_iterates_are_those_of_pot(rng, share, n):
    cost = euclidean_costs(cloud(rng, n), cloud(rng, 50))
    epsilon, uniform = float(relative_epsilon(cost, share)), [np.full(size, 1 / size) for size in (50, n)]
    # POT updates columns first and ends with rows
    reference = ot.bregman.sinkhorn_log(*uniform, cost.numpy().T, epsilon, numItermax=30, stopThr=0).T
    for each in (cost, cost.float()):
        assert np.abs(sinkhorn(each, epsilon, iterations=30).plan.numpy() - reference).max() < 1e-5


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
@pytest.mark.parametrize("epsilon", [0.1, 0.005])
def test_small_epsilon_stays_finite_and_near_its_marginals(rng, scale, epsilon):
    cost = euclidean_costs(cloud(rng, 128, 32, scale), cloud(rng, 128, 32, scale)).float()
    found = sinkhorn(cost, epsilon, iterations=2000, tolerance=1e-3, scaling=0.5)
    assert torch.isfinite(found.plan).all()
    assert found.marginal_error <= 1e-3
    torch.testing.assert_close(found.plan.sum(0), torch.full((128,), 1 / 128), atol=1e-7, rtol=0)


def test_limits_of_epsilon_are_the_independent_plan_and_the_exact_one(rng):
    a, b = cloud(rng, 40), cloud(rng, 40) + 1
    cost = euclidean_costs(a, b)
    torch.testing.assert_close(sinkhorn(cost, 1e6).plan, torch.full_like(cost, 1 / 1600), atol=1e-8, rtol=0)
    exact = float(ot.emd2(np.full(40, 1 / 40), np.full(40, 1 / 40), cost.numpy()))
    assert assignment_w1(a, b) == pytest.approx(exact, rel=1e-9)
    small = sinkhorn(cost, 1e-3, iterations=5000, tolerance=1e-5, scaling=0.5)
    assert float(small.value) == pytest.approx(exact, rel=2e-3)


def test_costs_of_zero_and_of_a_permutation(rng):
    torch.testing.assert_close(sinkhorn(torch.zeros(6, 6), 0.1).plan, torch.full((6, 6), 1 / 36))
    order = torch.from_numpy(rng.permutation(6))
    cost = 1 - torch.eye(6)[order]
    torch.testing.assert_close(sinkhorn(cost, 0.01).plan, torch.eye(6)[order] / 6)


@settings(max_examples=20)
@given(seeds, st.integers(2, 30))
def test_on_a_line_the_cost_nears_the_distance_of_the_sorted(seed, n):
    rng = np.random.default_rng(seed)
    a, b = (torch.from_numpy(np.sort(rng.random((n, 1)), 0)) for _ in range(2))
    expected = float((a - b).abs().mean())
    assert assignment_w1(a, b) == pytest.approx(expected, abs=1e-5)
    assert float(sliced_w1(a, b, torch.ones(1, 1, dtype=torch.float64))) == pytest.approx(expected)
    near = sinkhorn(euclidean_costs(a, b), 1e-3, iterations=3000, tolerance=1e-6, scaling=0.5)
    assert float(near.value) == pytest.approx(expected, abs=5e-3)


@settings(max_examples=20)
@given(seeds, sizes, sizes)
def test_divergences_are_zero_between_equal_clouds_positive_otherwise_and_blind_to_order(seed, n, m):
    rng = np.random.default_rng(seed)
    a, b = cloud(rng, n, 4), cloud(rng, m, 4)
    shuffled = a[rng.permutation(n)]
    assert float(sinkhorn_divergence(a, shuffled, 0.1)) == pytest.approx(0, abs=1e-5)
    apart = float(sinkhorn_divergence(a, b, 0.1))
    assert apart > 0
    assert float(sinkhorn_divergence(shuffled, b, 0.1)) == pytest.approx(apart, abs=1e-9)


@settings(max_examples=20)
@given(seeds, sizes, sizes)
def test_the_sliced_distance_is_that_of_pot_and_bounds_the_distance_from_below(seed, n, m):
    rng = np.random.default_rng(seed)
    a, b = cloud(rng, n, 5), cloud(rng, m, 5) + rng.random()
    directions = torch.nn.functional.normalize(cloud(rng, 16, 5), dim=1)
    sliced = float(sliced_w1(a, b, directions))
    reference = ot.sliced_wasserstein_distance(a.numpy(), b.numpy(), projections=directions.numpy().T, p=1)
    assert sliced == pytest.approx(float(reference), rel=1e-6)
    exact = float(ot.emd2(np.full(n, 1 / n), np.full(m, 1 / m), euclidean_costs(a, b).numpy()))
    assert sliced <= exact + 1e-9


def test_the_gradient_of_the_regularised_cost_is_the_plan(rng):
    cost = torch.from_numpy(rng.random((9, 11))).requires_grad_()
    found = sinkhorn(cost, 0.2, iterations=500)
    (slope,) = torch.autograd.grad(found.regularised, cost)
    torch.testing.assert_close(slope, found.plan)
    moved = cost.detach().clone()
    moved[3, 4] += 1e-5
    difference = sinkhorn(moved, 0.2, iterations=500).regularised - found.regularised.detach()
    assert float(difference) == pytest.approx(1e-5 * float(found.plan[3, 4]), rel=1e-3)


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4), (33, 40)])
def test_unrolled_gradients_are_those_of_finite_differences(rng, shape):
    cost, towards = (torch.from_numpy(rng.random(shape)) for _ in range(2))

    def value(each):
        found = sinkhorn(each, 0.3, iterations=10, gradient="unrolled")
        return (found.value + found.regularised).sum()

    slope = torch.autograd.functional.jvp(value, cost, towards)[1]
    difference = (value(cost + 1e-6 * towards) - value(cost - 1e-6 * towards)) / 2e-6
    assert float(slope) == pytest.approx(float(difference), rel=1e-6)
    detached = sinkhorn(cost, 0.3, iterations=10)
    torch.testing.assert_close(sinkhorn(cost, 0.3, iterations=10, gradient="unrolled").plan, detached.plan)


def test_a_divergence_has_one_gradient_whether_its_plan_is_held_or_unrolled_and_scaling_leaves_it(rng):
    """Once iterations have converged, by the envelope theorem."""
    a, b, slopes = cloud(rng, 12), cloud(rng, 15), []
    for how in ({}, {"gradient": "unrolled"}, {"scaling": 0.5}):
        points = a.clone().requires_grad_()
        sinkhorn_divergence(points, b, 0.2, iterations=400, **how).backward()
        slopes.append(points.grad)
    for slope in slopes[1:]:
        torch.testing.assert_close(slope, slopes[0], atol=1e-7, rtol=1e-5)


def test_scaling_brings_small_epsilon_to_its_marginals(rng):
    cost = euclidean_costs(cloud(rng, 40), cloud(rng, 40))
    at_once, stepwise = (
        float(EntropicSettings(0.01, 30, "detached", scaling=each).plan(cost).marginal_error) for each in (None, 0.5)
    )
    assert stepwise < 0.5 * at_once


def test_gradients_of_a_cloud_against_itself_are_finite(rng):
    points = cloud(rng, 30).float().requires_grad_()
    sinkhorn_divergence(points, points.detach().clone(), 0.05).backward()
    assert points.grad is not None and torch.isfinite(points.grad).all()


def test_a_barycentric_map_averages_targets_by_where_mass_goes(rng):
    targets, order = cloud(rng, 7), rng.permutation(7)
    cost = euclidean_costs(targets[order], targets)
    torch.testing.assert_close(barycentric(sinkhorn(cost, 1e-3).plan, targets), targets[order])
    spread = barycentric(sinkhorn(cost, 1e6).plan, targets)
    torch.testing.assert_close(spread, targets.mean(0).expand(7, 8), atol=1e-5, rtol=0)


@pytest.mark.parametrize("power", [1, 2])
def test_costs_of_dimensions_are_those_of_the_broadcast(rng, power):
    a, b = cloud(rng, 50), cloud(rng, 50, 6)
    whole = ((a[:, :, None] - b[:, None, :]).abs() ** power).mean(0)
    torch.testing.assert_close(dimension_costs(a, b, power), whole)


def test_the_released_scaling_form_loses_all_mass_where_ours_keeps_it(rng):
    """With features of scale 0.1 the released cost is 200 ε; at 0.03 both plans are right."""
    masses_of = {}
    for scale in (0.03, 0.1):
        a, b = (cloud(rng, 2000, 64, scale).float() for _ in range(2))
        cost = 100 * dimension_costs(a, b, 2)
        released, ours = scaling_sinkhorn(cost, 0.01), sinkhorn(cost, 0.01).plan
        masses_of[scale] = float(released.sum()), float(ours.sum())
    assert masses_of[0.03] == pytest.approx((1, 1), rel=1e-2)
    assert masses_of[0.1] == pytest.approx((0, 1))
