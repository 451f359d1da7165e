"""Laws of divergences and matchings, against closed forms, quadrature-free references and POT."""

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rec_models.gaussians import DiagonalGaussian, kl, kl_to_standard, squared_wasserstein2, standard_normal
from rec_models.matching import CPDM, GODM, MDDM, NoMatching, fuse

moments = arrays(np.float64, (3, 4), elements=st.floats(-4, 4))


@st.composite
def gaussians(draw):
    return DiagonalGaussian(torch.from_numpy(draw(moments)), torch.from_numpy(draw(moments)))


def of(mean, variance):
    as_row = torch.tensor([[float(mean)]], dtype=torch.float64)
    return DiagonalGaussian(as_row, torch.tensor([[math.log(variance)]], dtype=torch.float64))


@given(gaussians(), gaussians())
def test_kl_is_never_negative_and_zero_only_for_equal_gaussians(q, p):
    assert (kl(q, p) >= -1e-9).all()
    assert kl(q, q).abs().max() < 1e-12


@given(gaussians())
def test_kl_to_the_standard_normal_is_the_general_formula_with_that_prior(q):
    torch.testing.assert_close(kl_to_standard(q), kl(q, standard_normal(q)))


@given(gaussians(), gaussians(), gaussians())
def test_wasserstein_is_a_metric(a, b, c):
    ab, bc, ac = (squared_wasserstein2(*pair).sqrt() for pair in ((a, b), (b, c), (a, c)))
    torch.testing.assert_close(squared_wasserstein2(a, b), squared_wasserstein2(b, a))
    assert (ac <= ab + bc + 1e-9).all()


@given(gaussians())
def test_talagrand_bounds_transport_by_twice_the_kl(q):
    assert (squared_wasserstein2(q, standard_normal(q)) <= 2 * kl_to_standard(q) + 1e-9).all()


@settings(max_examples=20)
@given(gaussians(), gaussians())
def test_wasserstein_equals_the_full_matrix_formula_of_pot(a, b):
    ours = squared_wasserstein2(a, b)
    for row in range(3):
        covariances = (np.diag(np.exp(g.log_variance[row].numpy())) for g in (a, b))
        reference = ot.gaussian.bures_wasserstein_distance(a.mean[row].numpy(), b.mean[row].numpy(), *covariances)
        assert float(ours[row]) == pytest.approx(float(reference) ** 2, rel=1e-6, abs=1e-6)


@given(gaussians(), gaussians())
def test_composite_divergence_is_symmetric_at_one_half_and_has_the_cosh_form(q, p):
    half = CPDM(alpha=0.5)
    torch.testing.assert_close(half.composite_divergence(q, p), half.composite_divergence(p, q))
    spread, shift = q.log_variance - p.log_variance, q.mean - p.mean
    precision = torch.exp(-(q.log_variance + p.log_variance) / 2)
    expected = (torch.cosh(spread / 2) - 1 + shift.square() / 4 * precision).sum(-1)
    torch.testing.assert_close(half.composite_divergence(q, p), expected)


@given(gaussians(), gaussians())
def test_composite_divergence_ends_in_the_two_plain_divergences(q, p):
    torch.testing.assert_close(CPDM(alpha=0).composite_divergence(q, p), kl(q, p))
    torch.testing.assert_close(CPDM(alpha=1).composite_divergence(q, p), kl(p, q))


@pytest.mark.parametrize(("distance", "expected"), [(1.0, 0.2228), (4.0, 1.2654)])
def test_mixture_mode_estimates_twice_the_jensen_shannon_divergence(distance, expected):
    # Reference values: numerical integration over the line, alpha = 1/2.
    torch.manual_seed(0)
    sampled = CPDM(cp_mode="mixture_mc", mc_samples=20_000).composite_divergence(of(0, 1), of(distance, 1))
    assert float(sampled) == pytest.approx(expected, abs=0.03)
    assert 0 <= float(sampled) <= 2 * math.log(2) * 1.02


def test_parameter_interpolation_is_not_a_divergence_to_a_mixture():
    # The released code's quantity is unbounded where the mixture's is at most 2 ln 2.
    assert float(CPDM().composite_divergence(of(0, 1), of(4, 1))) == pytest.approx(4.0)
    assert float(CPDM().composite_divergence(of(0, 1), of(10, 1))) == pytest.approx(25.0)


@given(gaussians(), gaussians())
def test_mixing_divergence_under_additive_fusion_never_compares_the_means(source, language):
    fused = fuse(source, language, "add")
    shrinkage = torch.exp(source.log_variance) - 1 - source.log_variance
    residual = source.mean.square() * torch.exp(-language.log_variance)
    torch.testing.assert_close(kl(fused, language), 0.5 * (shrinkage + residual).sum(-1))


@given(gaussians(), gaussians())
def test_matchings_without_weight_are_the_prior_alone(source, language):
    fused = fuse(source, language, "add")
    alone = NoMatching().divergence(fused, source, language, None)
    for matching in (GODM(beta=0), CPDM(beta=0), MDDM(beta=1)):
        torch.testing.assert_close(matching.divergence(fused, source, language, None), alone)


def test_paper_form_of_global_optimality_is_reachable():
    source, language = of(0, 1), of(3, 1)
    paper = GODM(beta=1, w2_root=False, match_on="fused")
    fused = fuse(source, language, "none")
    assert float(paper.divergence(fused, source, language, None)) == pytest.approx(float(kl_to_standard(fused)) + 9)


def test_gaussian_sum_adds_variances_where_add_multiplies_them():
    assert float(fuse(of(1, 2), of(2, 3), "gaussian_sum").log_variance.exp()) == pytest.approx(5)
    assert float(fuse(of(1, 2), of(2, 3), "add").log_variance.exp()) == pytest.approx(6)
    assert float(fuse(of(1, 2), of(2, 3), "none").mean) == 1


@pytest.mark.parametrize("matching", [GODM(), GODM(w2_root=False), CPDM(), CPDM(cp_mode="param_moment"), MDDM()])
def test_gradients_of_every_matching_are_the_numerical_ones(matching):
    torch.manual_seed(1)
    leaves = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(4)]

    def total(m_s, l_s, m_w, l_w):
        source, language = DiagonalGaussian(m_s, l_s), DiagonalGaussian(m_w, l_w)
        return matching.divergence(fuse(source, language, "add"), source, language, None)

    assert torch.autograd.gradcheck(total, leaves)


def test_log_variance_ninety_stays_finite_where_ratios_would_not():
    wide = DiagonalGaussian(torch.zeros(1, 200), torch.full((1, 200), 80.0))
    assert torch.isfinite(kl(wide, wide)).all()
    narrow = DiagonalGaussian(torch.zeros(1, 200), torch.full((1, 200), -20.0))
    assert float(kl(narrow, narrow)) == 0
