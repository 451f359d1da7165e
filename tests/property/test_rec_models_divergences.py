"""Every closed form against a reference that shares no line with it: torch.distributions, POT, 60 digits of mpmath."""

import mpmath
import numpy as np
import ot
import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from rec_models.gaussians import (
    DiagonalGaussian,
    kl,
    kl_to_standard,
    kl_with_epsilon,
    log_density,
    squared_wasserstein2,
    standard_normal,
)
from rec_models.information import Information, log_densities
from rec_models.matching import CPDM, GODM, MDDM, Fusion, fuse

SEED = 20250411
COUNT, WIDTH = 1000, 5


def drawn(rng):
    return DiagonalGaussian(*(torch.from_numpy(rng.normal(0, scale, (COUNT, WIDTH))) for scale in (2, 1.5)))


@pytest.fixture(scope="module")
def pair():
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    return drawn(rng), drawn(rng)


def torch_normal(gaussian):
    return Independent(Normal(gaussian.mean, torch.exp(0.5 * gaussian.log_variance)), 1)


def agree(ours, reference):
    torch.testing.assert_close(ours, torch.as_tensor(reference, dtype=torch.float64), rtol=1e-6, atol=0)


def test_kl_on_a_thousand_gaussians_is_that_of_torch_distributions(pair):
    q, p = pair
    agree(kl(q, p), kl_divergence(torch_normal(q), torch_normal(p)))
    agree(kl_to_standard(q), kl_divergence(torch_normal(q), torch_normal(standard_normal(q))))
    full = (MultivariateNormal(g.mean, torch.diag_embed(g.log_variance.exp())) for g in pair)
    agree(kl(q, p), kl_divergence(*full))


def test_wasserstein_on_a_thousand_gaussians_is_that_of_pot(pair):
    q, p = ((g.mean.numpy(), np.stack([np.diag(row) for row in g.log_variance.exp().numpy()])) for g in pair)
    reference = [ot.gaussian.bures_wasserstein_distance(q[0][n], p[0][n], q[1][n], p[1][n]) ** 2 for n in range(COUNT)]
    agree(squared_wasserstein2(*pair), reference)


def test_densities_are_those_of_torch_distributions(pair):
    q, p = pair
    agree(log_density(q, p.mean), torch_normal(q).log_prob(p.mean))
    reference = torch_normal(q).log_prob(p.mean[:20, None])
    torch.testing.assert_close(log_densities(q, p.mean[:20]), reference, rtol=1e-9, atol=1e-9)


def test_matchings_on_a_thousand_gaussians_are_their_formulas_in_torch_distributions(pair):
    source, language = pair
    q, p, prior = (torch_normal(g) for g in (source, language, standard_normal(source)))
    halfway = DiagonalGaussian(
        (source.mean + language.mean) / 2, (source.log_variance.exp() + language.log_variance.exp()).div(2).log()
    )
    between = torch_normal(halfway)
    to_prior = kl_divergence(q, prior)
    fused = fuse(source, language, "none")
    agree(MDDM(beta=0.3).divergence(fused, *pair, None), 0.3 * to_prior + 0.7 * kl_divergence(q, p))
    agree(MDDM(beta=0.3, mixing=False).divergence(fused, *pair, None), to_prior + 0.3 * kl_divergence(q, p))
    composite = kl_divergence(q, between) + kl_divergence(p, between)
    agree(CPDM(beta=0.3, cp_mode="param_moment").divergence(fused, *pair, None), to_prior + 0.3 * composite)
    transport = (source.mean - language.mean).square() + (q.base_dist.stddev - p.base_dist.stddev).square()
    agree(GODM(beta=0.3, w2_root=False).divergence(fused, *pair, None), to_prior + 0.3 * transport.sum(1))


NASTY = [  # mean and log-variance of q, then of p
    (0.0, 0.0, 0.0, 1e-9),
    (0.0, 3.0, 0.0, 3.0 + 1e-9),
    (1e-8, 1e-8, 0.0, 0.0),
    (1e-150, 0.0, 0.0, 0.0),
    (0.0, -20.0, 0.0, -20.0 + 1e-7),
    (1e-6, -30.0, 0.0, -30.0),
    (0.0, 90.0, 0.0, 80.0),
    (0.0, -90.0, 0.0, 90.0),
    (1e5, -5.0, -1e5, 5.0),
    (1.0, 0.5, 1.0, 0.5),
]


def exact(m, l, n, k):
    """(KL(q || p), squared W2) with 60 digits from the very float64 numbers."""
    with mpmath.workdps(60):
        m, l, n, k = map(mpmath.mpf, (m, l, n, k))
        divergence = (mpmath.exp(l - k) - 1 - (l - k) + (m - n) ** 2 * mpmath.exp(-k)) / 2
        return float(divergence), float((m - n) ** 2 + (mpmath.exp(l / 2) - mpmath.exp(k / 2)) ** 2)


@pytest.mark.parametrize("point", NASTY)
def test_nasty_points_keep_six_digits(point):
    q, p = (
        DiagonalGaussian(*torch.tensor(half, dtype=torch.float64)[:, None, None]) for half in (point[:2], point[2:])
    )
    divergence, transport = exact(*point)
    assert float(kl(q, p)) == pytest.approx(divergence, rel=1e-6, abs=0)
    assert float(squared_wasserstein2(q, p)) == pytest.approx(transport, rel=1e-6, abs=0)
    to_prior, _ = exact(*point[:2], 0, 0)
    assert float(kl_to_standard(q)) == pytest.approx(to_prior, rel=1e-6, abs=0)


def test_the_authors_form_agrees_where_variances_are_moderate_and_is_biased_where_they_are_tiny(pair):
    torch.testing.assert_close(kl_with_epsilon(*pair), kl(*pair), rtol=1e-3, atol=1e-5)
    tiny = DiagonalGaussian(torch.zeros(1, 200), torch.full((1, 200), -20.0))
    assert float(kl(tiny, tiny)) == 0
    assert float(kl_with_epsilon(tiny, tiny)) == pytest.approx(292, abs=1)
    exact_form, authors = (MDDM(form=form).divergence(*(tiny,) * 3, None) for form in ("exact", "authors"))
    assert float(authors - exact_form) == pytest.approx(292 / 2, abs=1)


@pytest.mark.parametrize("matching", [MDDM(match_on="source"), CPDM(match_on="source")])
def test_matching_on_the_source_sees_how_far_the_spaces_are_apart_even_when_they_are_added(matching, pair):
    source, language = pair
    apart = DiagonalGaussian(source.mean + 5, source.log_variance)

    def compared(matching, own):
        fused = fuse(own, language, "add")
        without = kl_to_standard(fused) * (matching.beta if matching.name == "mddm" else 1)
        return matching.divergence(fused, own, language, None) - without

    weight = 1 - matching.beta if matching.name == "mddm" else matching.beta
    for own in (source, apart):
        reference = kl(own, language) if matching.name == "mddm" else CPDM().composite_divergence(own, language)
        agree(compared(matching, own), weight * reference)


def test_a_share_drawn_from_beta_has_its_mean_and_repeats_with_its_generator(pair):
    source, language = pair
    prior, between = kl_to_standard(source), kl(source, language)
    drawn_shares = []
    rng = torch.Generator().manual_seed(SEED)
    for _ in range(400):
        found = MDDM(beta_sampling=2.0).divergence(source, source, language, rng)
        share = ((found - between) / (prior - between)).median()
        # one draw a step, not one a user
        torch.testing.assert_close(found, share * prior + (1 - share) * between, rtol=1e-5, atol=1e-5)
        drawn_shares.append(float(share))
    assert all(0 < share < 1 for share in drawn_shares)
    assert np.mean(drawn_shares) == pytest.approx(0.5, abs=0.05)
    assert np.var(drawn_shares) == pytest.approx(1 / 20, rel=0.3)  # of Beta(2, 2)
    again = MDDM(beta_sampling=2.0).divergence(source, source, language, torch.Generator().manual_seed(SEED))
    first = MDDM(beta_sampling=2.0).divergence(source, source, language, torch.Generator().manual_seed(SEED))
    assert torch.equal(again, first)


def test_a_gate_begins_as_plain_fusion_and_can_close(pair):
    source, language = pair
    gated = Fusion("add", WIDTH).double()
    both, plain = gated(source, language), fuse(source, language, "add")
    torch.testing.assert_close(both.mean, plain.mean)
    torch.testing.assert_close(both.log_variance, plain.log_variance)
    torch.nn.init.constant_(gated.gate, -60.0)
    torch.testing.assert_close(gated(source, language).mean, source.mean)


def informed(fused, language, parts=3):
    information = Information()
    for rows in torch.arange(len(fused.mean)).chunk(parts):
        information.add(*(DiagonalGaussian(g.mean[rows], g.log_variance[rows]) for g in (fused, language)))
    return information.means()


def test_users_that_lie_apart_tell_everything_and_users_that_coincide_tell_nothing():
    same = DiagonalGaussian(torch.zeros(200, 3), torch.zeros(200, 3))
    apart = DiagonalGaussian(torch.arange(200.0)[:, None].expand(200, 3) * 50, torch.zeros(200, 3))
    assert informed(same, same)["information_interactions"] == pytest.approx(0, abs=1e-9)
    assert informed(apart, same)["information_interactions"] == pytest.approx(np.log(200), abs=1e-9)
    assert informed(apart, apart)["information_language"] == pytest.approx(np.log(200), abs=1e-9)


def test_the_two_informations_differ_by_the_divergence_between_the_spaces(pair):
    q, p = (DiagonalGaussian(g.mean / 3, g.log_variance / 5) for g in pair)
    found = informed(q, p)
    gap = found["information_interactions"] - found["information_language"]
    assert gap == pytest.approx(found["kl_language"], rel=0.1)  # 256 of the users, one draw each
    assert found["kl_language"] == pytest.approx(float(kl(q, p).mean()))
    assert found["kl_prior"] == pytest.approx(float(kl_to_standard(q).mean()))
    assert 0 < found["information_interactions"] < np.log(COUNT)
