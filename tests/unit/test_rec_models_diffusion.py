"""L-DiffRec's parts against formulas written out, and against the loops of the reference."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_models.diffusion import NoiseSchedule, StepSampler, sinusoidal
from rec_models.errors import ItemClustersError, ModelSettingsError
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.models import LDiffRecConfig
from rec_models.models.l_diffrec import shares_of
from rec_models.semantic import ModelInputs

N_USERS, N_ITEMS = 6, 9
CLUSTERS = torch.tensor([1, 0, 1, 0, 0, 2, 0, 1, 0])


def train_matrix():
    rng = np.random.default_rng(1)
    users, items = np.nonzero(rng.random((N_USERS, N_ITEMS)) < 0.4)
    return InteractionMatrix.from_pairs(users, items, None, n_users=N_USERS, n_items=N_ITEMS)


def built(item_clusters=CLUSTERS, **options):
    torch.manual_seed(0)
    small = {"clusters": 3, "latent_dim": 8, "denoiser_hidden_dim": 5} | options
    return LDiffRecConfig(**small).build(ModelInputs(train_matrix(), {}, 0, item_clusters))


def everybody():
    return ResidentInteractions(train_matrix()).batch(np.arange(N_USERS))


def dense():
    table = torch.zeros(N_USERS, N_ITEMS)
    batch = everybody()
    table[batch.rows, batch.items] = batch.values
    return table


def test_the_schedule_is_linear_in_the_variance_it_adds():
    schedule = NoiseSchedule(5, 0.5, 0.001, 0.005)
    assert (1 - schedule.alpha_bar).tolist() == pytest.approx(np.linspace(0.0005, 0.0025, 5).tolist())


def test_reverse_means_are_those_of_the_gaussians_they_come_from():
    # q(z_{t-1} | z_t, z_0) by multiplying two normal densities: precisions add, means are weighted by them.
    schedule = NoiseSchedule(4, 1.0, 0.05, 0.6)
    start, current = torch.tensor([[0.7]], dtype=torch.float64), torch.tensor([[-0.3]], dtype=torch.float64)
    alpha_bar = schedule.alpha_bar
    for t in range(1, 4):
        alpha = alpha_bar[t] / alpha_bar[t - 1]
        prior_mean, prior_var = alpha_bar[t - 1].sqrt() * start, 1 - alpha_bar[t - 1]
        seen_mean, seen_var = current / alpha.sqrt(), (1 - alpha) / alpha
        expected = (prior_mean / prior_var + seen_mean / seen_var) / (1 / prior_var + 1 / seen_var)
        torch.testing.assert_close(schedule.previous_mean(start, current, t), expected)
    torch.testing.assert_close(schedule.previous_mean(start, current, 0), start)


def test_a_step_weighs_by_the_signal_that_it_loses_and_the_first_by_one():
    schedule = NoiseSchedule(3, 0.5, 0.001, 0.005)
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
    assert schedule.snr_drop.tolist() == pytest.approx([1, float(snr[0] - snr[1]), float(snr[1] - snr[2])])


def test_noising_keeps_the_variance_of_a_unit_latent():
    schedule, rng = NoiseSchedule(3, 1.0, 0.2, 0.8), torch.Generator().manual_seed(0)
    start, noise = (torch.randn(50_000, 2, generator=rng) for _ in range(2))
    noised = schedule.noised(start, torch.full((50_000,), 2), noise)
    assert float(noised.var()) == pytest.approx(1, abs=0.02)
    assert float((noised * start).mean()) == pytest.approx(0.2**0.5, abs=0.02)


class OneByOne:
    """The record as the reference keeps it: the last ten losses of a step, appended in the batch's order."""

    def __init__(self, steps):
        self.kept = [[] for _ in range(steps)]

    def record(self, step, losses):
        for at, value in zip(step, losses, strict=True):
            self.kept[at] = [*self.kept[at], value][-10:]

    def shares(self):
        if any(len(kept) < 10 for kept in self.kept):
            return [1 / len(self.kept)] * len(self.kept)
        size = np.sqrt([np.mean(np.square(kept)) for kept in self.kept])
        return (0.999 * size / size.sum() + 0.001 / len(size)).tolist()


batches = st.lists(st.lists(st.tuples(st.integers(0, 2), st.floats(0.01, 10)), min_size=1, max_size=40), max_size=8)


@settings(max_examples=60, deadline=None)
@given(batches)
def test_recording_a_batch_at_once_leaves_what_recording_one_by_one_would(recorded):
    ours, reference = StepSampler(3), OneByOne(3)
    for batch in recorded:
        step, losses = zip(*batch, strict=True)
        ours.record(torch.tensor(step), torch.tensor(losses, dtype=torch.float64))
        reference.record(step, losses)
        assert ours.shares().tolist() == pytest.approx(reference.shares())


def test_steps_are_drawn_by_their_shares_and_say_how_likely_they_were():
    sampler, rng = StepSampler(2), torch.Generator().manual_seed(0)
    step = torch.arange(2).repeat(10)
    sampler.record(step, torch.where(step == 0, 1.0, 3.0))
    drawn, likelier = sampler.draw(20_000, rng)
    assert float((drawn == 1).float().mean()) == pytest.approx(0.75, abs=0.02)
    assert float(likelier[drawn == 1][0]) == pytest.approx(2 * (0.999 * 0.75 + 0.0005))
    assert float((1 / likelier).mean()) == pytest.approx(1, abs=0.02)  # so dividing by it leaves means unbiased


def test_losses_that_are_all_zero_leave_draws_uniform():
    sampler = StepSampler(2)
    sampler.record(torch.arange(2).repeat(10), torch.zeros(20))
    assert sampler.shares().tolist() == [0.5, 0.5]


def test_steps_are_told_apart_by_cosines_and_sines():
    told = sinusoidal(torch.tensor([0, 3]), 5)
    assert told[0].tolist() == [1, 1, 0, 0, 0]
    assert told[1].tolist() == pytest.approx([np.cos(3), np.cos(0.03), np.sin(3), np.sin(0.03), 0], abs=1e-6)


@given(st.integers(1, 300), st.lists(st.integers(1, 5000), min_size=1, max_size=8))
def test_widths_add_up_and_leave_no_cluster_without(width, sizes):
    if width < len(sizes):
        return
    widths = shares_of(width, sizes)
    assert sum(widths) == width and min(widths) >= 1


def test_two_clusters_share_the_latent_as_in_the_reference():
    assert shares_of(300, [100, 200]) == [100, 200]
    assert shares_of(10, [1, 2]) == [3, 7]


def test_every_cluster_is_compressed_by_an_encoder_of_its_own():
    model, rows = built(), dense()
    posterior = model.encode(everybody(), None).posterior
    means, log_variances = [], []
    for number, encoder in enumerate(model.encoder.encoders):
        moments = torch.tanh(rows[:, torch.where(number == CLUSTERS)[0]] @ encoder.weight + encoder.bias)
        width = moments.shape[1] // 2
        means.append(moments[:, :width])
        log_variances.append(moments[:, width:])
    torch.testing.assert_close(posterior.mean, torch.cat(means, 1))
    torch.testing.assert_close(posterior.log_variance, torch.cat(log_variances, 1))
    assert posterior.mean.shape == (N_USERS, 8)


def test_inference_runs_every_reverse_step_from_the_latent_itself():
    model = built().eval()
    z = model.encode(everybody(), None).posterior.mean.detach()
    current = z
    for t in (4, 3, 2, 1, 0):
        clean = model.denoiser(current, torch.full((N_USERS,), t), None)
        before = model.schedule.alpha_bar[t - 1] if t else torch.ones((), dtype=torch.float64)
        now = model.schedule.alpha_bar[t]
        beta = 1 - now / before
        current = (beta * before.sqrt() * clean + (1 - before) * (1 - beta).sqrt() * current) / (1 - now)
        current = current.float()
    torch.testing.assert_close(model.denoised(z), current)
    torch.testing.assert_close(model.scores(everybody()), model.decoder(current).detach())


def test_forward_steps_before_the_chain_shrink_the_latent_without_noise():
    z = torch.ones(2, 8)
    assert torch.equal(built(sampling_steps=3).denoised(z), built(sampling_steps=3).denoised(z))
    assert not torch.allclose(built(sampling_steps=3).denoised(z), built().denoised(z), atol=1e-7)


def test_the_diffusion_loss_weighs_less_every_epoch_down_to_its_floor():
    model = built(diffusion_weight=0.04, diffusion_floor=0.01, diffusion_decay_epochs=4)
    seen = []
    for _ in range(6):
        seen.append(float(model._diffusion_weight()))
        for half in (np.arange(3), np.arange(3, 6)):
            batch = ResidentInteractions(train_matrix()).batch(half)
            model.loss(batch, torch.Generator().manual_seed(0), 0)
    assert seen == pytest.approx([0.04, 0.03, 0.02, 0.01, 0.01, 0.01])


def test_the_kl_weight_rises_by_its_slope_to_its_cap():
    model = built(kl_weight=0.3, kl_anneal_steps=200)
    assert [model.divergence_weight(step, 400) for step in (0, 20, 60, 500)] == pytest.approx([0, 0.1, 0.3, 0.3])


def test_without_reweighting_the_error_is_a_plain_mean():
    rng = torch.Generator().manual_seed(0)
    plain, weighted = (built(reweight=flag) for flag in (False, True))
    z = torch.randn(N_USERS, 8, generator=rng)
    errors = [
        float(model.likelihood(z, everybody(), torch.Generator().manual_seed(1), 0)["diffusion"].detach())
        for model in (plain, weighted)
    ]
    assert errors[0] < errors[1] / 50


def test_the_two_parts_of_the_model_have_their_own_learning_rates():
    groups = built(learning_rate=2e-3, denoiser_learning_rate=None).parameter_groups()
    assert [(group.name, group.learning_rate) for group in groups] == [("autoencoder", 2e-3), ("denoiser", None)]


def test_clusters_that_are_not_there_are_named():
    with pytest.raises(
        ItemClustersError, match=r"`clusters` 2 .* the bundle holds no item clusters\. Set `clusters` to 1"
    ):
        built(item_clusters=None, clusters=2)
    with pytest.raises(ItemClustersError, match="holds 3 item clusters"):
        built(clusters=2)


def test_a_latent_narrower_than_its_clusters_is_refused():
    with pytest.raises(ModelSettingsError, match="`latent_dim` 2 is less than `clusters` 3"):
        built(latent_dim=2)


@pytest.mark.parametrize("options", [{"sampling_steps": 6}, {"noise_min": 0.9, "noise_max": 0.1}, {"noise_scale": 300}])
def test_a_schedule_that_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match=r"steps|noise"):
        LDiffRecConfig(**options)


@pytest.mark.parametrize("item_clusters", [None, CLUSTERS])
def test_one_cluster_needs_none_from_the_bundle_and_ignores_those_there_are(item_clusters):
    [encoder] = built(item_clusters, clusters=1).encoder.encoders
    assert encoder.weight.shape == (N_ITEMS, 16)
