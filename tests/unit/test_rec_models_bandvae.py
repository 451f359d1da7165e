"""BANDVAE and its family: the dense reference, what learns and what does not, no leaks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from servers.interests import N_ITEMS, N_USERS, N_WORDS, built, dense_of, everybody, random_inputs

from benchmarks import dense_bandvae
from rec_models.factors import FactorOptions, InterestFactors, divergence
from rec_models.gaussians import DiagonalGaussian, kl_to_standard
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.models import ELSAConfig, MacridVAEConfig
from rec_models.semantic import ModelInputs
from rec_models.text_features import TextFeatures


class Replayed:
    """The draws that the sparse form makes, in its order, handed to the dense form where it asks for them."""

    def __init__(self, model, channels, seed):
        rng = torch.Generator().manual_seed(seed)
        self.gumbels, self.masks, self.normals = [], [], []
        for factors, rows in channels:
            options = factors.options

            def gumbel(*shape):
                return -torch.empty(shape).exponential_(generator=rng).log()

            def spread(entries, rows=rows, k=options.factors):
                return torch.zeros(len(rows), rows.n_items, k).index_put_((rows.rows, rows.items), entries)

            last = gumbel(options.factors, rows.n_items).t()[None]
            for _ in range(options.iterations - 1):
                self.gumbels.append(spread(gumbel(len(rows.rows), options.factors)))
                self.masks.append(spread(torch.rand(len(rows.rows), options.factors, generator=rng)))
            self.gumbels.append(last)
            self.masks.append(spread(torch.rand(len(rows.rows), options.factors, generator=rng)))
            self.normals.append(torch.randn(len(rows), options.factors, options.dim, generator=rng))

    def draws(self):
        return dense_bandvae.Draws(
            lambda shape: self.gumbels.pop(0),
            lambda values, share: values * (self.masks.pop(0) >= share) / (1 - share),
            lambda shape: self.normals.pop(0),
        )


@pytest.mark.parametrize("iterations", [1, 2, 3])
@pytest.mark.parametrize("text", ["none", "words"])
def test_sparse_and_dense_agree_in_every_term_and_every_gradient(iterations, text):
    inputs = random_inputs()
    model, batch = built(inputs, iterations=iterations, text=text, kl_anneal_steps=10, epsilon=0.5), everybody(inputs)
    words = None if text == "none" else model.text_sides()[0].source(batch)
    channels = [(model.ratings, batch)] + ([] if words is None else [(model.text_sides()[0].channel, words)])
    ours = model.loss(batch, torch.Generator().manual_seed(8), 3)
    replayed = Replayed(model, channels, 8).draws()
    reference = dense_bandvae.loss(model, dense_of(batch), None if words is None else dense_of(words), replayed, 3)
    assert ours.keys() == reference.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], reference[name], rtol=1e-5, atol=1e-5, msg=name)
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = (torch.autograd.grad(sum(terms.values()), parameters) for terms in (ours, reference))
    for name, got, expected in zip(names, *found, strict=True):
        torch.testing.assert_close(
            got,
            expected,
            rtol=1e-5,
            atol=1e-5 * expected.abs().max().item(),
            msg=lambda said, name=name: f"{name}: {said}",
        )


@pytest.mark.parametrize(
    ("iterations", "gradient", "learns"),
    [(1, "none", True), (2, "none", False), (3, "one_step", False), (2, "straight_through", True)],
)
def test_initial_prototypes_learn_where_the_method_lets_them(iterations, gradient, learns):
    inputs = random_inputs()
    model = built(inputs, iterations=iterations, prototype_gradient=gradient)
    sum(model.loss(everybody(inputs), torch.Generator().manual_seed(0), 5).values()).backward()
    parameters = dict(model.named_parameters())
    assert ("ratings.prototypes" in parameters) == learns
    assert "ratings.prototypes" in model.state_dict()
    assert not learns or parameters["ratings.prototypes"].grad.abs().sum() > 0
    assert parameters["ratings.units"].grad.abs().sum() > 0


def test_one_step_differentiates_what_none_holds_constant():
    inputs, grads = random_inputs(), []
    for gradient in ("none", "one_step"):
        model = built(inputs, text="none", prototype_gradient=gradient)
        sum(model.loss(everybody(inputs), torch.Generator().manual_seed(0), 5).values()).backward()
        grads.append(model.ratings.units.grad)
    assert not torch.allclose(*grads)


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("noise", ["shared", "independent", "none"])
def test_shares_sum_to_one_and_evaluation_has_no_chance(iterations, noise):
    inputs, rng = random_inputs(), torch.Generator().manual_seed(1)
    channel = InterestFactors(FactorOptions(3, 6, 10, iterations=iterations, noise=noise), N_ITEMS)
    batch = everybody(inputs)
    for source in (rng, None):
        weights = channel.assign(batch, source).weights
        torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
        assert (weights >= 0).all()
    first, second = (channel(batch, None)[1] for _ in range(2))
    assert torch.equal(first.mean, second.mean)
    noisy, other = (channel.assign(batch, torch.Generator().manual_seed(2)).bias for _ in range(2))
    assert torch.equal(noisy, other)
    expected = (3, len(batch), N_ITEMS) if noise == "independent" else (3, N_ITEMS)
    assert noisy.shape == expected


def test_independent_noise_trains_on_the_same_terms():
    inputs = random_inputs()
    model = built(inputs, noise="independent")
    terms = model.loss(everybody(inputs), torch.Generator().manual_seed(0), 5)
    sum(terms.values()).backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


def test_the_divergence_is_the_closed_form_less_what_fixed_lengths_add():
    g = torch.Generator().manual_seed(4)
    mean = F.normalize(torch.randn(5, 3, 6, generator=g), dim=-1) / 0.1
    posterior = DiagonalGaussian(mean, torch.randn(5, 3, 6, generator=g))
    whole = kl_to_standard(DiagonalGaussian(mean.flatten(1), posterior.log_variance.flatten(1)))
    torch.testing.assert_close(divergence(posterior), whole - 3 / (2 * 0.1**2), rtol=1e-4, atol=1e-3)
    assert divergence(DiagonalGaussian(mean, torch.zeros(5, 3, 6))).eq(0).all()


def test_under_mean_fusion_both_decoders_read_the_same_and_without_transfer_their_own():
    inputs = random_inputs()
    read = built(inputs, fusion="mean")._read(everybody(inputs), None)
    torch.testing.assert_close(read.ratings.fused, read.sides[0].fused)
    apart = built(inputs, transfer="regularise")._read(everybody(inputs), None)
    assert torch.equal(apart.ratings.fused, apart.ratings.z) and torch.equal(apart.sides[0].fused, apart.sides[0].z)
    assert "alignment" not in built(inputs, transfer="map").loss(everybody(inputs), torch.Generator(), 0)


def test_a_user_without_words_can_be_left_as_they_are():
    inputs = random_inputs()
    silent = InteractionMatrix.from_pairs([], [], None, n_users=N_ITEMS, n_items=N_WORDS)
    mute = ModelInputs(inputs.train, {}, 0, text=TextFeatures(silent, tuple("abcdefg")))
    read = built(mute, without_text="skip")._read(everybody(mute), None)
    assert torch.equal(read.ratings.fused, read.ratings.z)
    assert torch.isfinite(built(mute).scores(everybody(mute))).all()


def test_scores_do_not_depend_on_how_users_are_sliced(monkeypatch):
    inputs = random_inputs()
    model = built(inputs).eval()
    whole = model.scores(everybody(inputs))
    monkeypatch.setattr("rec_models.mixtures._USERS_AT_ONCE", 2)
    torch.testing.assert_close(model.scores(everybody(inputs)), whole)


def test_only_the_rows_at_hand_are_read():
    """Scores of a user are the same whatever anybody else took, in training or beside them."""
    inputs = random_inputs()
    model = built(inputs).eval()
    alone = InteractionMatrix.from_pairs([0, 0, 0], [1, 3, 6], None, n_users=1, n_items=N_ITEMS)
    crowd = InteractionMatrix.from_pairs([0, 1, 1, 1], [2, 1, 3, 6], None, n_users=2, n_items=N_ITEMS)
    beside = model.scores(ResidentInteractions(crowd).batch(np.array([0, 1])))[1]
    torch.testing.assert_close(beside, model.scores(ResidentInteractions(alone).batch(np.array([0])))[0])


@pytest.mark.parametrize(
    "settings", [{"fusion": "mean"}, {"iterations": 1}, {"text": "hybrid", "semantic_items": True}]
)
def test_low_precision_products_leave_terms_in_float32_and_near_the_exact_ones(settings):
    inputs, found = random_inputs(), []
    for low in (False, True):
        model = built(inputs, concepts=4, **settings)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            found.append(model.loss(everybody(inputs), torch.Generator().manual_seed(0), 500))
            assert model.eval().scores(everybody(inputs)).dtype == torch.float32
    for name, exact in found[0].items():
        assert found[1][name].dtype == torch.float32, name
        assert found[1][name].item() == pytest.approx(exact.item(), rel=0.03), name


def test_hidden_items_are_hidden_from_every_channel_and_still_predicted():
    inputs = random_inputs()
    model, batch = built(inputs, hidden_items=0.5), everybody(inputs)
    seed = 3
    read = model._read(batch, torch.Generator().manual_seed(seed))
    kept = torch.rand(len(batch.rows), generator=torch.Generator().manual_seed(seed)) >= model.config.hidden_items
    source = model.text_sides()[0].source
    expected = source(batch.with_values(batch.values * kept))
    assert len(read.sides[0].assignment.weights) == len(expected.rows)
    assert torch.equal(read.sides[0].rows.values, source(batch).values)
    sum(model.loss(batch, torch.Generator().manual_seed(0), 5).values()).backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


def test_macrid_vae_decodes_directions_alone():
    inputs = random_inputs()
    model = built(inputs, MacridVAEConfig, factors=3, dim=6, hidden_dim=10).eval()
    z = model.encode(everybody(inputs), None).posterior.mean
    assert z.shape == (N_USERS, model.latent_dim) and model.latent_dim == 18
    torch.testing.assert_close(model.decode(z), model.decode(7 * z))


def test_elsa_descends_on_the_distance_of_unit_rows_without_making_them():
    inputs = random_inputs()
    model, batch = built(inputs, ELSAConfig, dim=4), everybody(inputs)
    rows = dense_of(batch)
    items = F.normalize(model.items, dim=-1)
    predicted = rows @ items @ items.t() - rows
    filled = rows.sum(1) > 0
    distance = (F.normalize(predicted, dim=-1) - F.normalize(rows, dim=-1)).square().sum(-1)
    ours = model.loss(batch, torch.Generator(), 0)["reconstruction"] * len(rows) - 2 * (~filled).sum()
    torch.testing.assert_close(ours, distance[filled].sum())
    torch.testing.assert_close(model.scores(batch), predicted.detach())
    for got, expected in zip(
        torch.autograd.grad(ours, model.items), torch.autograd.grad(distance[filled].sum(), model.items), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
