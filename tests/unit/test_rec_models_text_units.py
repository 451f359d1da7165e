"""What text channels count: words, concepts, both; vectors of units, profiles as priors, controls."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from servers.interests import N_ITEMS, N_WORDS, built, dense_of, everybody, random_inputs

from rec_models.errors import MissingSemanticMatrixError, MissingTextError, TextFeaturesError
from rec_models.factors import FactorOptions, InterestFactors, ProfilePrior
from rec_models.gaussians import DiagonalGaussian
from rec_models.interactions import InteractionMatrix
from rec_models.models import ADDVAEConfig, BANDVAEConfig, SEMMacridVAEConfig
from rec_models.semantic import ModelInputs, SemanticMatrix, pooled_users
from rec_models.text_features import TextFeatures
from rec_models.text_units import UserText, concept_units, text_units


@pytest.mark.parametrize("norm", ["none", "l1"])
def test_a_users_words_are_the_mean_of_their_items_words(norm):
    inputs = random_inputs()
    items, words = dense_of(everybody(inputs)), torch.zeros(N_ITEMS, N_WORDS)
    at = np.repeat(np.arange(N_ITEMS), inputs.text.words.lengths())
    words[at, inputs.text.words.indices] = torch.from_numpy(inputs.text.words.values)
    expected = items @ words / items.sum(1, keepdim=True).clamp_min(1)
    if norm == "l1":
        expected = expected / expected.sum(1, keepdim=True).clamp_min(1e-12)
    torch.testing.assert_close(dense_of(UserText(inputs.text.words, norm)(everybody(inputs))), expected)


@pytest.mark.parametrize("text", ["words", "concepts", "hybrid", "none"])
@pytest.mark.parametrize("semantic_items", [False, True])
def test_every_text_mode_trains_and_scores(text, semantic_items):
    inputs = random_inputs()
    model, batch = built(inputs, text=text, semantic_items=semantic_items, concepts=4), everybody(inputs)
    terms = model.loss(batch, torch.Generator().manual_seed(0), 5)
    sum(terms.values()).backward()
    assert len(model.text_sides()) == (text != "none") + semantic_items
    for name, weight in model.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all(), name
    assert torch.isfinite(model.eval().scores(batch)).all()
    assert len(model.factors_of(batch).sides) == len(model.text_sides())


def test_vectors_of_units_change_nothing_until_their_gate_opens():
    inputs = random_inputs()
    options, vectors = FactorOptions(3, 6, 10), torch.randn(N_ITEMS, 5)
    torch.manual_seed(0)
    plain = InterestFactors(options, N_ITEMS)
    torch.manual_seed(0)
    gated = InterestFactors(options, N_ITEMS, vectors)
    assert torch.equal(plain.unit_vectors(), gated.unit_vectors())
    assert gated.gate is not None
    assert torch.equal(plain(everybody(inputs), None)[1].mean, gated(everybody(inputs), None)[1].mean)
    gated.gate.data.fill_(0.5)
    assert not torch.equal(plain.unit_vectors(), gated.unit_vectors())


def test_a_start_from_texts_puts_like_items_together_and_prototypes_among_them():
    groups = torch.arange(60) % 3
    g = torch.Generator().manual_seed(0)
    vectors = torch.eye(3, 20)[groups] + 0.05 * torch.randn(60, 20, generator=g)
    train = InteractionMatrix.from_pairs(np.arange(60), np.arange(60), None, n_users=60, n_items=60)
    words = InteractionMatrix.from_pairs(np.arange(60), groups.numpy(), None, n_users=60, n_items=3)
    semantic = {"items": SemanticMatrix(vectors, torch.ones(60, dtype=torch.bool))}
    inputs = ModelInputs(train, semantic, 0, text=TextFeatures(words, ("a", "b", "c")))
    for model in (built(inputs, start="text").ratings, built(inputs, SEMMacridVAEConfig, factors=3, dim=6).channel):
        cosines = F.normalize(model.prototypes.detach(), dim=-1) @ model.unit_vectors().t()
        nearest = cosines.argmax(0)
        assert all(len(nearest[groups == group].unique()) == 1 for group in range(3)) and len(nearest.unique()) == 3
        assert model.units.detach().std() == pytest.approx(np.sqrt(2 / (60 + 6)), rel=0.2)
    means = built(inputs, start="text").text_sides()[0].source.means_of(vectors)
    torch.testing.assert_close(means, torch.stack([vectors[groups == group].mean(0) for group in range(3)]))


def test_a_prior_from_profiles_is_a_distance_to_where_they_point_and_nothing_while_shut():
    options, g = FactorOptions(3, 6, 10, deviation=0.1), torch.Generator().manual_seed(0)
    texts, present = torch.randn(5, 4, generator=g), torch.tensor([True, True, False, True, True])
    prior = ProfilePrior(options, texts, present)
    mean = F.normalize(torch.randn(2, 3, 6, generator=g), dim=-1)
    posterior, users = DiagonalGaussian(mean / 0.1, torch.zeros(2, 3, 6)), torch.tensor([4, 2])
    assert prior.divergence(posterior, users).eq(0).all()
    prior.gate.data.fill_(0.5)
    pointed = 0.5 * F.normalize(torch.einsum("up,kpd->ukd", texts[users], prior.projections), dim=-1)
    distance = (mean - pointed).square().sum((1, 2)) / (2 * 0.1**2) - 3 / (2 * 0.1**2)
    torch.testing.assert_close(prior.divergence(posterior, users), distance * torch.tensor([1.0, 0.0]))


def test_a_model_with_a_profile_prior_opens_its_gate():
    inputs = random_inputs()
    items = inputs.semantic["items"]
    users = pooled_users(items, inputs.train)
    world = ModelInputs(inputs.train, {"items": items, "users": users}, 0, text=inputs.text)
    model = built(world, profile_prior=True)
    sum(model.loss(everybody(world), torch.Generator().manual_seed(0), 5).values()).backward()
    assert model.prior.gate.grad.abs() > 0
    with pytest.raises(ValueError, match="of a text channel"):
        BANDVAEConfig(text="none", profile_prior=True)


def test_concepts_are_unit_rows_of_near_centroids_and_empty_without_text():
    inputs = random_inputs()
    found = concept_units(inputs.semantic["items"], 4, seed=0)
    lengths = found.weights.lengths()
    assert lengths[4] == 0 and (np.delete(lengths, 4) > 0).all()
    norms = np.sqrt(np.bincount(np.repeat(np.arange(N_ITEMS), lengths), found.weights.values**2, N_ITEMS))
    np.testing.assert_allclose(np.delete(norms, 4), 1, rtol=1e-5)
    again = concept_units(inputs.semantic["items"], 4, seed=0)
    assert torch.equal(found.vectors, again.vectors) and len(found.names) == len(found.vectors) <= 4


def test_hybrid_rows_are_half_words_and_half_concepts():
    inputs = random_inputs()
    both = text_units("bandvae", "hybrid", inputs, "profiles", 4)
    rows = np.repeat(np.arange(N_ITEMS), both.weights.lengths())
    is_word = both.weights.indices < N_WORDS
    for kind in (is_word, ~is_word):
        sums = np.bincount(rows[kind], both.weights.values[kind], N_ITEMS)
        np.testing.assert_allclose(sums[sums > 0], 0.5, rtol=1e-5)
    assert not both.vectors[:N_WORDS].any() and both.vectors[N_WORDS:].any()


def test_controls_keep_how_much_is_said_and_change_what():
    inputs = random_inputs()
    true, shuffled, drawn = (
        text_units("bandvae", "words", inputs, control, 4).weights for control in ("profiles", "shuffled", "random")
    )
    assert sorted(true.lengths()) == sorted(shuffled.lengths())
    assert not np.array_equal(true.lengths(), shuffled.lengths())
    assert drawn.values.sum() == pytest.approx(true.values.sum(), rel=1e-5)
    assert not np.array_equal(drawn.indices, true.indices)


def test_what_is_missing_is_named_with_its_cure():
    bare = ModelInputs(random_inputs().train, {}, 0)
    for config in (BANDVAEConfig(), ADDVAEConfig()):
        with pytest.raises(MissingTextError, match=r"holds none.*set `model.text` to"):
            config.build(bare)
    for settings in ({"text": "concepts"}, {"text": "none", "semantic_items": True}):
        with pytest.raises(MissingSemanticMatrixError, match="semalign embed"):
            BANDVAEConfig(**settings).build(bare)
    with pytest.raises(ValueError, match="pair factors"):
        BANDVAEConfig(factors=3, text_factors=4, alignment="diagonal")


@pytest.mark.parametrize(("weight", "words", "problem"), [(1.0, "a", "2 columns"), (-1.0, "ab", "negative")])
def test_words_that_are_no_weights_of_a_vocabulary_are_refused(weight, words, problem):
    matrix = InteractionMatrix.from_pairs([0], [1], [weight], n_users=1, n_items=2)
    with pytest.raises(TextFeaturesError, match=problem):
        TextFeatures(matrix, tuple(words))
