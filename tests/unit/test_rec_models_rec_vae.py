"""RecVAE: its prior against torch.distributions, whose turn it is, and what the prior remembers."""

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from rec_models.gaussians import DiagonalGaussian, kl_to_standard, log_density
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.models import RecVAEConfig
from rec_models.models.rec_vae import composite_log_density
from rec_models.semantic import ModelInputs
from rec_models.training import _let_learn

SEED = 20
SHARES = (0.15, 0.75, 0.10)


@pytest.fixture(scope="module")
def world():
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    users, items = np.nonzero(rng.random((30, 20)) < 0.25)
    return ModelInputs(InteractionMatrix.from_pairs(users, items, None, n_users=30, n_items=20), {}, SEED)


def built(world, **options):
    torch.manual_seed(SEED)
    return RecVAEConfig(hidden_dim=12, hidden_layers=3, latent_dim=4, **options).build(world)


def everybody(world):
    return ResidentInteractions(world.train).batch(np.arange(30))


def random_gaussian(rows, width=4):
    rng = torch.Generator().manual_seed(SEED)
    return DiagonalGaussian(*(torch.randn(rows, width, generator=rng, dtype=torch.float64) for _ in range(2)))


def test_the_composite_prior_is_a_mixture_in_every_dimension():
    before, z = random_gaussian(6), torch.linspace(-4, 4, 24, dtype=torch.float64).reshape(6, 4)
    means = torch.stack([torch.zeros_like(z), before.mean, torch.zeros_like(z)], -1)
    deviations = torch.stack(
        [torch.ones_like(z), torch.exp(before.log_variance / 2), torch.full_like(z, np.exp(5.0))], -1
    )
    mixed = Categorical(torch.tensor(SHARES, dtype=torch.float64).expand_as(means))
    expected = MixtureSameFamily(mixed, Normal(means, deviations)).log_prob(z).sum(1)
    found = composite_log_density(z, before, SHARES, 10.0)
    torch.testing.assert_close(found, expected)
    joint = torch.logsumexp(Normal(means, deviations).log_prob(z[..., None]).sum(1) + torch.tensor(SHARES).log(), 1)
    assert (found - joint).abs().min() > 0.01  # a mixture of whole latents is another prior


def test_a_prior_of_the_standard_normal_alone_has_its_divergence_in_expectation():
    one = random_gaussian(1)
    q = DiagonalGaussian(one.mean.expand(60_000, -1), one.log_variance.expand(60_000, -1))
    z = q.sample(torch.Generator().manual_seed(SEED))
    estimate = log_density(q, z) - composite_log_density(z, q, (1.0, 0.0, 0.0), 10.0)
    assert estimate.mean().item() == pytest.approx(kl_to_standard(one).item(), rel=0.02)


def test_shares_that_are_none_are_refused():
    with pytest.raises(ValueError, match="add up to 1"):
        RecVAEConfig(prior_shares=(0.5, 0.4, 0.2))


def test_the_prior_remembers_the_encoder_and_no_gradient_reaches_the_memory(world):
    model, batch = built(world), everybody(world)
    with torch.no_grad():
        for weight in model.encoder.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    clean = model.encode(batch, None).posterior
    assert not torch.allclose(model.before(batch).mean, clean.mean, atol=1e-3)
    model.remember()
    then = model.before(batch)
    assert torch.equal(then.mean, clean.mean) and torch.equal(then.log_variance, clean.log_variance)
    assert not then.mean.requires_grad
    assert {name.partition(".")[0] for name, _ in model.named_parameters()} == {"encoder", "decoder"}
    assert built(world).before(batch).mean.equal(built(world).encode(batch, None).posterior.mean)  # a copy at first


def test_an_epoch_is_three_passes_of_the_encoder_then_one_of_the_decoder(world):
    model, history = built(world), ResidentInteractions(world.train)
    seen = list(model.batches(history, np.random.default_rng(0), 8))
    assert [batch.turn for batch in seen] == ["encoder"] * 12 + ["decoder"] * 4
    for start in range(0, 16, 4):
        assert sorted(torch.cat([batch.users for batch in seen[start : start + 4]]).tolist()) == history.active.tolist()
    together = built(world, encoder_passes=1, decoder_passes=0).batches(history, np.random.default_rng(0), 8)
    assert [batch.turn for batch in together] == ["all"] * 4


@pytest.mark.parametrize("kept", [0, 2**30])
def test_the_priors_of_an_epoch_are_those_of_the_encoder_before_it(world, kept, monkeypatch):
    monkeypatch.setattr("rec_models.models.rec_vae.KEPT_BYTES", kept)
    model, history, calls = built(world), ResidentInteractions(world.train), []
    forward = model.encoder.forward
    monkeypatch.setattr(model.encoder, "forward", lambda rows: calls.append(len(rows)) or forward(rows))
    remembered = model.before(everybody(world))
    with torch.no_grad():
        model.encoder.moments.weight.mul_(2)  # what is learned in the epoch does not move its prior
    calls.clear()
    for batch in model.batches(history, np.random.default_rng(0), 8):
        if batch.turn == "encoder":
            torch.testing.assert_close(model.before(batch).mean, remembered.mean[batch.users])
            torch.testing.assert_close(model.before(batch).log_variance, remembered.log_variance[batch.users])
    assert sum(calls) == len(history.active) * (1 if kept else 6)  # it was asked for six times
    torch.testing.assert_close(model.before(everybody(world)).mean, model.encode(everybody(world), None).posterior.mean)


def test_each_pass_moves_its_own_side_alone_and_the_memory_follows_after_the_encoder(world):
    model, rng = built(world), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    before, memory = None, None
    for batch in model.batches(ResidentInteractions(world.train), np.random.default_rng(0), 8):
        now = {name: weight.clone() for name, weight in model.state_dict().items()}
        if batch.turn == "decoder" and before != "decoder":
            memory = now["before_first_weight"]
            assert torch.equal(memory, now["encoder.first.weight"])
        before = batch.turn
        _let_learn(model.parameter_groups(), batch)
        optimiser.zero_grad(set_to_none=True)
        terms = model.loss(batch, rng, 0)
        assert ("kl" in terms) == (batch.turn == "encoder")
        sum(terms.values()).backward()
        optimiser.step()
        for name, weight in model.state_dict().items():
            moved = not torch.equal(weight, now[name])
            assert moved == name.startswith(batch.turn), name
    assert memory is not None


def test_the_decoder_sees_whole_rows_and_still_a_draw(world):
    from dataclasses import replace

    model, batch = built(world, dropout=0.5), everybody(world)
    rng = torch.Generator().manual_seed(0)
    whole = model.encode(replace(batch, turn="decoder"), rng).posterior.mean
    assert torch.equal(whole, model.encode(batch, None).posterior.mean)
    assert not torch.equal(whole, model.encode(replace(batch, turn="encoder"), rng).posterior.mean)


def test_a_users_divergence_weighs_as_many_times_as_they_have_items(world):
    batch = everybody(world)
    scaled, plain = built(world), built(world, kl_weight_per_item=None, kl_weight=0.3)
    divergence = torch.rand(30, generator=torch.Generator().manual_seed(0))
    expected = (divergence * torch.from_numpy(world.train.lengths())).mean()
    torch.testing.assert_close(scaled.averaged(divergence, batch), expected)
    torch.testing.assert_close(plain.averaged(divergence, batch), divergence.mean())
    assert (scaled.divergence_weight(0, 8), plain.divergence_weight(0, 8)) == (0.005, 0.3)
