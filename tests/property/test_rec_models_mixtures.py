"""The mixture decoder against its dense form, and plans between factors against laws and an independent solver."""

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_models.alignment import alignment_plan, plan_entropy, squared_distances
from rec_models.factors import factor_rows_times
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.mixtures import LOWEST_TEMPERATURE, mixture_logits, mixture_nll
from rec_models.transport import barycentric

seeds = st.integers(0, 2**31 - 1)


def rows_of(n_users, n_units, rng, *, values=True):
    """Random rows; the first is empty and the last is full."""
    taken = rng.random((n_users, n_units)) < 0.3
    taken[0], taken[-1] = False, True
    users, units = np.nonzero(taken)
    weights = rng.random(len(users)) + 0.1 if values else None
    matrix = InteractionMatrix.from_pairs(users, units, weights, n_users=n_users, n_items=n_units)
    batch = ResidentInteractions(matrix).batch(np.arange(n_users))
    dense = torch.zeros(n_users, n_units)
    dense[batch.rows, batch.items] = batch.values
    return batch, dense


def dense_logits(units, factors, bias, assigned):
    bias = bias[:, None] if bias.dim() == 2 else bias
    above = torch.logsumexp(factors @ units.t() + bias, 0)
    return above if assigned is None else above - torch.logsumexp(assigned @ units.t() + bias, 0)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 70), st.integers(2, 30), st.integers(1, 5), st.booleans(), st.booleans())
def test_the_mixture_is_its_dense_form_in_value_gradients_and_logits(seed, n_users, n_units, k, own_bias, assigned):
    rng = np.random.default_rng(seed)
    batch, dense = rows_of(n_users, n_units, rng)
    g = torch.Generator().manual_seed(seed)

    def unit(*shape):
        return F.normalize(torch.randn(*shape, generator=g), dim=-1)

    units, factors, prototypes = unit(n_units, 7), 10 * unit(k, n_users, 7), 10 * unit(k, n_users, 7)
    bias = torch.randn((k, n_users, n_units) if own_bias else (k, n_units), generator=g)
    given_ = [units, factors + prototypes if assigned else factors, bias, prototypes if assigned else None]
    leaves = [None if each is None else each.detach().requires_grad_() for each in given_]
    ours = mixture_nll(*leaves, batch)
    reference = -(F.log_softmax(dense_logits(*leaves), -1) * dense).sum(-1).mean()
    wanted = [leaf for leaf in leaves if leaf is not None]
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)
    for got, expected in zip(torch.autograd.grad(ours, wanted), torch.autograd.grad(reference, wanted), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * max(1, expected.abs().max().item()))
    torch.testing.assert_close(mixture_logits(*given_), dense_logits(*given_), rtol=1e-5, atol=1e-5)


def test_at_the_lowest_temperature_exponentials_stay_in_range():
    """Everything opposed: units along one axis, factors and prototypes along and against it, noise at its largest."""
    axis = F.one_hot(torch.tensor([0, 0]), 4).float()
    units = torch.stack([axis[0], -axis[0]])
    factors = torch.stack([2 * axis, -2 * axis]) / LOWEST_TEMPERATURE
    batch, dense = rows_of(2, 2, np.random.default_rng(0), values=False)
    for bias in (torch.full((2, 2), 17.0), torch.full((2, 2), -4.0)):
        leaves = [units.clone().requires_grad_(), factors.clone().requires_grad_()]
        loss = mixture_nll(*leaves, bias, factors / 2, batch)
        reference = -(F.log_softmax(dense_logits(units, factors, bias, factors / 2), -1) * dense).sum(-1).mean()
        assert loss.item() == pytest.approx(reference.item(), rel=1e-4)
        assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(loss, leaves))


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(2, 9), st.integers(2, 12), st.integers(1, 4))
def test_rows_of_factors_times_a_table_are_the_dense_product(seed, n_users, n_units, k):
    rng = np.random.default_rng(seed)
    batch, _ = rows_of(n_users, n_units, rng)
    weights = torch.from_numpy(rng.standard_normal((len(batch.rows), k))).requires_grad_()
    table = torch.from_numpy(rng.standard_normal((n_units, 3))).requires_grad_()
    dense = torch.zeros(n_users, n_units, k, dtype=torch.float64).index_put((batch.rows, batch.items), weights)
    ours, reference = factor_rows_times(batch, weights, table), torch.einsum("bnk,nw->bkw", dense, table)
    torch.testing.assert_close(ours, reference)
    probe = torch.from_numpy(rng.standard_normal(reference.shape))
    for got, expected in zip(
        torch.autograd.grad((ours * probe).sum(), [weights, table]),
        torch.autograd.grad((reference * probe).sum(), [weights, table]),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


def clouds(seed, n_users, n, m):
    g = torch.Generator().manual_seed(seed)
    return (F.normalize(torch.randn(n_users, count, 100, generator=g), dim=-1) for count in (n, m))


@settings(max_examples=6, deadline=None)
@given(seeds, st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.2, 0.5, 1.0, 2.0, 5.0]))
def test_plans_agree_with_pot(seed, n, m, epsilon):
    costs = squared_distances(*clouds(seed, 3, n, m))
    plans = alignment_plan(costs, "sinkhorn", epsilon, 1000)
    for cost, plan in zip(costs.double().numpy(), plans.numpy(), strict=True):
        rows, columns = np.full(n, 1 / n), np.full(m, 1 / m)
        expected = ot.sinkhorn(rows, columns, cost, epsilon, method="sinkhorn_log", numItermax=5000, stopThr=1e-10)
        np.testing.assert_allclose(plan, expected, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 6), st.integers(1, 6), st.floats(0.005, 5), st.floats(0.1, 6))
def test_plans_are_finite_and_keep_their_mass_at_every_epsilon(seed, n, m, epsilon, scale):
    costs = scale * squared_distances(*clouds(seed, 8, n, m))
    plan = alignment_plan(costs, "sinkhorn", epsilon)
    assert torch.isfinite(plan).all() and (plan >= 0).all()
    torch.testing.assert_close(plan.sum(1), torch.full((8, m), 1 / m))
    if epsilon >= 0.5 * scale:
        torch.testing.assert_close(plan.sum(2), torch.full((8, n), 1 / n), atol=1e-4, rtol=0)
    assert (plan_entropy(plan) <= (np.log2(n) + np.log2(m)) / 2 + 1e-4).all()


def test_permuting_factors_permutes_the_plan_and_a_large_epsilon_evens_it():
    costs = squared_distances(*clouds(3, 4, 4, 3))
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        alignment_plan(costs[:, order], "sinkhorn", 0.3), alignment_plan(costs, "sinkhorn", 0.3)[:, order]
    )
    torch.testing.assert_close(alignment_plan(costs, "sinkhorn", 1e4), torch.full((4, 4, 3), 1 / 12), atol=1e-5, rtol=0)


def test_the_ablations_of_the_plan_are_as_defined():
    costs = squared_distances(*clouds(4, 5, 3, 3))
    softmax = alignment_plan(costs, "softmax", 0.2)
    torch.testing.assert_close(softmax.sum((1, 2)), torch.ones(5))
    torch.testing.assert_close(softmax, torch.softmax((-costs / 0.2).flatten(1), 1).view_as(costs))
    assert torch.equal(alignment_plan(costs, "diagonal", 0.2)[2], torch.eye(3) / 3)


def test_barycentric_maps_take_the_partner_and_leave_equal_factors_equal():
    _, texts = clouds(5, 2, 3, 3)
    plan = alignment_plan(torch.zeros(2, 3, 3), "diagonal", 1.0)
    torch.testing.assert_close(barycentric(plan, texts), texts)
    same = texts[:, :1].expand(2, 3, 100)
    torch.testing.assert_close(barycentric(alignment_plan(torch.rand(2, 3, 3), "sinkhorn", 0.2), same), same)
