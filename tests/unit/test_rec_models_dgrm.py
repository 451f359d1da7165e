"""DGRM against closed forms, autograd and Monte Carlo, and what its options promise."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rec_models.adversarial import (
    OfEntries,
    critic_loss,
    flat_penalty,
    generator_loss,
    gradient_penalty,
    layers_of,
    slopes,
)
from rec_models.diffusion import NoiseSchedule
from rec_models.errors import DivergedError
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.models import DGRMConfig
from rec_models.rating_condition import Attended, segment_softmax
from rec_models.row_pairs import RowPair
from rec_models.semantic import ModelInputs, SemanticMatrix, pooled_users

N_USERS, N_ITEMS = 8, 11
SMALL = {"hidden_dims": (12,), "critic_hidden_dims": (7,), "noise_dim": 3, "samples": 2}


def rated_matrix():
    rng = np.random.default_rng(3)
    users, items = np.nonzero(rng.random((N_USERS, N_ITEMS)) < 0.5)
    ratings = rng.integers(1, 6, len(users))
    return InteractionMatrix.from_pairs(users, items, ratings, n_users=N_USERS, n_items=N_ITEMS)


def inputs():
    train = rated_matrix()
    vectors = torch.randn(N_ITEMS, 5, generator=torch.Generator().manual_seed(2))
    items = SemanticMatrix(vectors, torch.ones(N_ITEMS, dtype=torch.bool))
    return ModelInputs(train, {"items": items, "users": pooled_users(items, train)}, 0)


def built(**options):
    torch.manual_seed(0)
    return DGRMConfig(**SMALL | options).build(inputs())


def everybody(turn="generator"):
    return replace(ResidentInteractions(rated_matrix()).batch(np.arange(N_USERS)), turn=turn)


def ones(n):
    return torch.ones(n, dtype=torch.float64)


@given(
    steps=st.integers(1, 12),
    scale=st.sampled_from([1e-4, 1e-2, 0.1, 1.0]),
    low=st.floats(1e-4, 0.4),
    width=st.floats(1e-3, 0.5),
)
@settings(max_examples=60, deadline=None)
def test_added_variance_rises_and_a_row_without_noise_stays_on_its_path(steps, scale, low, width):
    schedule = NoiseSchedule(steps, scale, low, low + width)
    at = torch.arange(steps)
    between = schedule.between(at, ones(steps), torch.float64)
    if steps > 1:
        assert (between.now.diff(dim=0) > 0).all()
    torch.testing.assert_close(between.alpha.squeeze(1).cumprod(0), schedule.alpha_bar)
    start = torch.full((steps, 1), 0.7, dtype=torch.float64)
    current = (1 - between.now).sqrt() * start
    torch.testing.assert_close(between.previous(start, current, None), (1 - between.before).sqrt() * start)


def test_the_posterior_is_the_product_of_the_two_gaussians_it_comes_from():
    # q(x_{t-1} | x_t, x_0) ~ q(x_t | x_{t-1}) q(x_{t-1} | x_0): precisions add, means are weighed by them.
    schedule = NoiseSchedule(5, 1.0, 0.05, 0.7)
    between = schedule.between(torch.arange(1, 5), ones(4), torch.float64)
    start, current = torch.full((4, 1), 0.8, dtype=torch.float64), torch.full((4, 1), -0.2, dtype=torch.float64)
    precision = 1 / between.before + between.alpha / between.beta
    mean = (
        (1 - between.before).sqrt() * start / between.before + between.alpha.sqrt() * current / between.beta
    ) / precision
    torch.testing.assert_close(between.previous(start, current, None), mean, atol=1e-10, rtol=1e-8)
    torch.testing.assert_close(between.spread, 1 / precision, atol=1e-10, rtol=1e-8)


def test_the_first_step_leads_back_to_the_row_itself():
    between = NoiseSchedule(5, 1.0, 0.01, 0.5).between(torch.zeros(3, dtype=torch.int64), ones(3), torch.float32)
    clean, current, noise = torch.randn(3, 3, 6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(between.previous(clean, current, noise), clean)


def test_a_path_of_noise_has_the_marginals_and_the_posterior_gives_them_back():
    """Monte Carlo: x_{t-1}, x_t of a pair, and x_{t-1} drawn anew from the posterior, agree in mean and variance."""
    n, rng = 200_000, torch.Generator().manual_seed(7)
    print("seed 7")
    for step in range(4):
        at = torch.full((n,), step)
        between = NoiseSchedule(4, 1.0, 0.05, 0.8).between(at, ones(n), torch.float64)
        start = torch.full((n, 1), 0.6, dtype=torch.float64)
        noises = tuple(torch.randn(n, 1, generator=rng, dtype=torch.float64) for _ in range(3))
        previous, current = between.pair(start, noises[:2])
        again = between.previous(start, current, noises[2])
        for drawn, variance in ((previous, between.before[0]), (current, between.now[0]), (again, between.before[0])):
            assert float(drawn.mean()) == pytest.approx(float((1 - variance).sqrt() * 0.6), abs=1e-2)
            assert float(drawn.var()) == pytest.approx(float(variance), abs=1e-2)
        if step:  # on one path: what the pair shares is the noise of the step before
            joint = float(((previous - previous.mean()) * (current - current.mean())).mean())
            assert joint == pytest.approx(float(between.alpha[0].sqrt() * between.before[0]), abs=1e-2)


def test_without_noise_the_step_before_is_the_generators_row():
    between = NoiseSchedule(3, 0.0, 0.1, 0.5).between(torch.arange(3), ones(3), torch.float32)
    clean, current, noise = torch.randn(3, 3, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(between.previous(clean, current, noise), clean)
    model = built(noise_scale=0.0, prediction_steps=5).eval()
    with torch.no_grad():
        assert torch.isfinite(model.scores(everybody())).all()


def test_an_unseen_item_keeps_the_told_fraction_of_its_prediction():
    """By the schedule (1, 1e-3, 0.1) 0.257, 0.508, 0.752, 0.990 and 1 after 1..5 of 5 steps."""
    schedule, arrived, found = NoiseSchedule(5, 1.0, 1e-3, 0.1), 0.0, []
    for step in reversed(range(5)):
        between = schedule.between(torch.tensor([step]), ones(1), torch.float64)
        arrived = float(between.to_start + between.to_current * arrived)
        found.append(arrived)
    assert found == pytest.approx([0.257, 0.508, 0.752, 0.990, 1.0], abs=6e-4)


def test_a_linear_critic_of_slope_one_pays_nothing_and_of_slope_two_the_whole_weight():
    real, made = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(0)
    for slope, expected in ((1.0, 0.0), (2.0, 1.0)):
        weight = slope * torch.ones(4) / 2
        assert float(gradient_penalty(lambda x, w=weight: x @ w, real, made, rng)) == pytest.approx(expected, abs=1e-6)
        assert float(flat_penalty(lambda x, w=weight: x @ w, real)) == pytest.approx(slope**2 / 2, abs=1e-6)


def test_slopes_and_the_penaltys_gradient_are_those_of_differences():
    torch.manual_seed(0)
    critic = layers_of((3, 5, 1), "tanh").double()
    at = torch.randn(4, 3, dtype=torch.float64)
    eye = 1e-6 * torch.eye(3, dtype=torch.float64)
    steps = torch.stack([(critic(at + e) - critic(at - e)).squeeze(1) / 2e-6 for e in eye], 1)
    torch.testing.assert_close(slopes(lambda x: critic(x).squeeze(1), at), steps.norm(dim=1), atol=1e-5, rtol=1e-5)

    def penalty():
        rng = torch.Generator().manual_seed(1)
        return gradient_penalty(lambda x: critic(x).squeeze(1), at, at + 1, rng)

    weight = critic[0].weight
    (found,) = torch.autograd.grad(penalty(), weight)
    for place in ((0, 0), (2, 1), (4, 2)):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[place] += step
            values.append(float(penalty().detach()))
            with torch.no_grad():
                weight[place] -= step
        assert float(found[place]) == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-5)


def test_the_critic_rises_on_true_rows_and_the_generator_on_made_ones():
    real, made = torch.zeros(5), torch.full((5,), 2.0)
    assert float(critic_loss(real, made, "wasserstein")) == 2.0
    assert float(generator_loss(made, "wasserstein")) == -2.0
    logits = torch.tensor([0.3, -1.0])
    expected = torch.nn.functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(
        critic_loss(logits, -logits, "kl"), expected(logits, torch.ones(2)) + expected(-logits, torch.zeros(2))
    )
    torch.testing.assert_close(generator_loss(logits, "kl"), expected(logits, torch.ones(2)))


def test_one_generator_step_raises_the_critics_mean_of_what_is_made():
    model = built(reconstruction_weight=0.0)
    batch, optimiser = everybody(), torch.optim.SGD(model.generator.parameters(), lr=0.05)

    def verdict():
        return model.loss(batch, torch.Generator().manual_seed(4), 0)["adversarial"]

    before = verdict()
    before.backward()
    optimiser.step()
    assert float(verdict().detach()) < float(before.detach())


def test_unrated_items_do_not_move_the_reconstruction_and_look_alike_to_the_critic():
    model, batch = built(), everybody()
    made, _, pair = model._made(batch, torch.Generator().manual_seed(0))
    start, rated = pair.start, pair.held
    made.retain_grad()
    (((made - start) * rated).square().sum()).backward()
    assert made.grad is not None and not made.grad[rated == 0].any() and made.grad[rated == 1].any()
    truth, fake = (pair.before(rows, torch.Generator().manual_seed(1)) for rows in (start, made.detach() * rated))
    assert torch.equal(truth[rated == 0], fake[rated == 0])


def pair_of(model, batch, seed, **options):
    at = torch.arange(len(batch)) % 5
    between = model.schedule.between(at, ones(len(batch)), torch.float32)
    return RowPair(batch, 5.0, at, between, torch.Generator().manual_seed(seed), **options)


def test_a_hidden_rating_is_missing_from_what_is_told_and_from_nothing_else():
    model, batch = built(noise_scale=1.0), everybody()
    pair, plain = (pair_of(model, batch, 1, hidden_share=share) for share in (0.5, 0.0))
    assert torch.equal(pair.start, plain.start) and torch.equal(pair.held, plain.held)
    assert torch.equal(pair.previous, plain.previous)
    told = torch.zeros_like(pair.start)
    told[pair.told.rows, pair.told.items] = 1
    hidden = (pair.held - told).bool()
    assert 0 < hidden.sum() < pair.held.sum()
    assert torch.equal(pair.shown[~hidden], plain.shown[~hidden])
    kept = (1 - pair.between.now).sqrt().expand_as(pair.start)
    torch.testing.assert_close((plain.shown - pair.shown)[hidden], (kept * pair.start)[hidden])
    assert pair.told.lengths.tolist() == told.sum(1).tolist()
    assert pair.told.offsets.tolist() == (told.sum(1).cumsum(0) - told.sum(1)).tolist()


def test_where_nothing_was_told_the_step_before_has_its_marginal():
    """Monte Carlo over one hidden rating of 4/5: the mean and variance of the forward process, guesses being true."""
    print("seed 9")
    one = InteractionMatrix.from_pairs([0], [0], [4], n_users=1, n_items=1)
    batch = ResidentInteractions(one).batch(np.zeros(100_000, np.int64))
    schedule = NoiseSchedule(5, 1.0, 0.05, 0.8)
    at = torch.full((len(batch),), 3)
    between = schedule.between(at, ones(len(batch)), torch.float32)
    rng = torch.Generator().manual_seed(9)
    pair = RowPair(batch, 5.0, at, between, rng, hidden_share=0.7)
    found = pair.before(pair.start, rng)
    variance = float(between.before[0])
    for part in (pair.told.lengths == 0, pair.told.lengths == 1):
        assert float(found[part].mean()) == pytest.approx((1 - variance) ** 0.5 * 0.8, abs=2e-2)
        assert float(found[part].var()) == pytest.approx(variance, abs=2e-2)


def test_a_critic_of_entries_reads_rated_places_alone_and_learns_a_lost_spread_quickly():
    """Made rows at the middle of true ones: a gap opens within a few steps though no mean differs."""
    torch.manual_seed(0)
    batch = everybody()
    critic = OfEntries(N_ITEMS, 1, 0, 4, (16,), "leaky_relu")
    optimiser = torch.optim.Adam(critic.parameters(), lr=1e-2)
    step, told = torch.zeros(N_USERS, dtype=torch.int64), torch.zeros(N_USERS, 0)
    true = torch.where(torch.rand(N_USERS, N_ITEMS) < 0.5, 0.2, 1.0)
    made = torch.full_like(true, 0.6)
    elsewhere = true.clone()
    elsewhere[torch.ones_like(true, dtype=torch.bool).index_put((batch.rows, batch.items), torch.tensor(False))] += 9
    assert torch.equal(critic([true], told, step, batch), critic([elsewhere], told, step, batch))
    for _ in range(60):
        optimiser.zero_grad()
        gap = critic_loss(*(critic([rows], told, step, batch) for rows in (true, made)), "wasserstein")
        (gap + 10 * gradient_penalty(lambda x: critic([x], told, step, batch), true, made, None)).backward()
        optimiser.step()
    assert gap.item() < -0.1


def test_where_unrated_items_stand_for_0_scores_are_no_ratings():
    model = built(unrated_share=0.5)
    assert not model.predicts_ratings and built().predicts_ratings
    pair = pair_of(model, everybody(), 0, unrated_share=0.5)
    assert pair.held.sum() > len(everybody().items) and not pair.start[pair.held == 0].any()


def test_the_official_profile_is_another_model_whose_critic_rests():
    official, paper = DGRMConfig(profile="official_code"), DGRMConfig()
    assert (paper.critic, official.critic, official.rating_scale) == ("learned", "frozen", "raw")
    assert DGRMConfig(profile="official_code", critic="learned").critic == "learned"
    assert DGRMConfig.model_validate(official.model_dump()) == official
    turns = [batch.turn for batch in batches_of(built(profile="official_code"))]
    assert turns == ["generator"] * 2
    learned = [batch.turn for batch in batches_of(built(profile="official_code", critic="learned"))]
    assert learned == ["generator"] * 2 + ["critic"] * 4
    assert [batch.turn for batch in batches_of(built(critic="off"))] == ["generator"] * 2


def batches_of(model):
    return list(model.batches(ResidentInteractions(rated_matrix()), np.random.default_rng(0), N_USERS))


@pytest.mark.parametrize(
    "options",
    [
        {"critic": "off"},
        {"game": "kl"},
        {"lipschitz": "clipping"},
        {"lipschitz": "flat"},
        {"lipschitz": "none"},
        {"critic_condition": False},
        {"critic_reads": "entries"},
        {"critic_reads": "entries", "hidden_share": 0.5, "attention_dim": 4, "language": "profiles"},
        {"hidden_share": 0.9, "unrated_share": 0.2},
        {"train_step": 5},
        {"pair": "same_noise", "output": "linear", "rating_scale": "raw"},
        {"attention_dim": 4, "language": "profiles", "noise_by_activity": 0.5},
        {"reconstruction": "mean_rated", "noise_dim": None, "steps": 1},
    ],
    ids=str,
)
def test_every_variant_learns_and_scores(options):
    model = built(**options)
    groups = model.parameter_groups()
    assert sum(len(group.parameters) for group in groups) == len(list(model.parameters()))
    for batch in (everybody("generator"), everybody("critic")):
        if batch.turn == "critic" and model.critic is None:
            continue
        model.zero_grad()
        torch.stack(list(model.loss(batch, torch.Generator().manual_seed(0), 0).values())).sum().backward()
        learning = {id(w) for group in groups if group.learns(batch.turn) for w in group.parameters}
        reached = {id(w) for w in model.parameters() if w.grad is not None}
        assert learning <= reached
        if batch.turn == "critic":
            assert reached == learning
    with torch.no_grad():
        scores = model.eval().scores(everybody())
    assert torch.isfinite(scores).all()
    if model.config.output == "sigmoid":
        assert (scores >= 0).all() and (scores <= 5).all()


@pytest.mark.parametrize("mode", ["x0", "posterior", "posterior_rescaled"])
@pytest.mark.parametrize("each", ["once", "each"])
@torch.no_grad()
def test_after_no_step_and_after_all_steps_the_generators_row_is_left(mode, each):
    batch = everybody()
    options = {"pred_mode": mode, "x0_per_step": each, "sampling_noise": False, "samples": 1}
    none = built(prediction_steps=0, **options).eval().scores(batch)
    torch.testing.assert_close(none, built(prediction_steps=0, pred_mode="x0", samples=1).eval().scores(batch))
    last = built(prediction_steps=5, **options).eval().scores(batch)
    torch.testing.assert_close(last, built(**options | {"prediction_steps": 5, "pred_mode": "x0"}).eval().scores(batch))
    if each == "once" and mode == "x0":
        torch.testing.assert_close(last, none)


@torch.no_grad()
def test_less_of_a_row_arrives_without_rescaling():
    def scores(mode):
        options = {"noise_scale": 1.0, "pred_mode": mode, "sampling_noise": False}
        return built(**options).eval().scores(everybody())

    share = scores("posterior") / scores("posterior_rescaled")
    assert torch.allclose(share, torch.full_like(share, 0.257), atol=1e-3)


@torch.no_grad()
def test_a_wider_spread_keeps_the_order_and_the_middle():
    plain, wide = (built(spread=spread).eval().scores(everybody()) for spread in (1.0, 1.5))
    middle = float(rated_matrix().values.mean())
    torch.testing.assert_close(wide - middle, 1.5 * (plain - middle))


@torch.no_grad()
def test_whoever_rated_less_is_noised_less():
    model, batch = built(noise_by_activity=1.0), everybody()
    expected = batch.lengths.double() / batch.lengths.max()
    torch.testing.assert_close(model._shares(batch), expected)


@torch.no_grad()
def test_attention_adds_up_to_one_over_each_users_items():
    batch = everybody()
    shares = segment_softmax(torch.randn(len(batch.items), generator=torch.Generator().manual_seed(0)), batch)
    sums = torch.zeros(N_USERS).index_add(0, batch.rows, shares)
    torch.testing.assert_close(sums, (batch.lengths > 0).float())
    nobody = ResidentInteractions(InteractionMatrix.from_pairs([], [], None, n_users=1, n_items=N_ITEMS))
    assert not Attended(N_ITEMS, 3)(nobody.batch(np.arange(1))).any()


def test_a_critic_that_ran_away_ends_the_training():
    model = built(divergence_limit=1e-9).eval()
    with torch.no_grad(), pytest.raises(DivergedError, match="divergence_limit"):
        model.diagnostics([everybody()])
    told = built().eval().diagnostics([everybody()])
    assert set(told) == {"critic_gap", "critic_slope"} and all(map(np.isfinite, told.values()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise_min": 0.2, "noise_max": 0.1}, "must be below"),
        ({"prediction_steps": 6}, "more than `steps` 5"),
        ({"train_step": 9}, "more than `steps` 5"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValidationError, match=words):
        DGRMConfig(**options)
