"""BANDVAE and its family: the dense reference, what learns and what does not, planted interests, no leaks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import dense_bandvae
from rec_models.errors import MissingSemanticMatrixError, MissingTextError, TextFeaturesError
from rec_models.explanation import Explainable, overlap
from rec_models.factors import FactorOptions, InterestFactors, ProfilePrior, divergence
from rec_models.gaussians import DiagonalGaussian, kl_to_standard
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.models import ADDVAEConfig, BANDVAEConfig, ELSAConfig, MacridVAEConfig, SEMMacridVAEConfig
from rec_models.semantic import ModelInputs, SemanticMatrix, pooled_users
from rec_models.text_features import TextFeatures
from rec_models.text_units import UserText, concept_units, text_units

SMALL = {"factors": 3, "text_factors": 3, "dim": 6, "hidden_dim": 10}
N_USERS, N_ITEMS, N_WORDS = 11, 9, 7


def random_inputs(seed=0):
    rng = np.random.default_rng(seed)

    def matrix(n, m, share, values):
        rows, columns = np.nonzero(rng.random((n, m)) < share)
        weights = rng.random(len(rows)) + 0.1 if values else None
        return InteractionMatrix.from_pairs(rows, columns, weights, n_users=n, n_items=m)

    train, words = matrix(N_USERS, N_ITEMS, 0.4, False), matrix(N_ITEMS, N_WORDS, 0.5, True)
    vectors = torch.from_numpy(rng.standard_normal((N_ITEMS, 5), dtype=np.float32))
    semantic = {"items": SemanticMatrix(vectors, torch.arange(N_ITEMS) != 4)}
    return ModelInputs(train, semantic, seed, text=TextFeatures(words, tuple("abcdefg")))


def everybody(inputs):
    return ResidentInteractions(inputs.train).batch(np.arange(inputs.n_users))


def built(inputs, kind=BANDVAEConfig, **settings):
    torch.manual_seed(inputs.seed)
    return kind(**(SMALL | settings if kind is BANDVAEConfig else settings)).build(inputs)


def dense_of(rows):
    dense = torch.zeros(len(rows), rows.n_items)
    dense[rows.rows, rows.items] = rows.values
    return dense


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


def planted(blocks=4):
    """64 users, 200 items, 40 words: users, items and words of one block keep to themselves."""
    print("seed 0")
    rng = np.random.default_rng(0)
    users, items = np.nonzero(
        (np.arange(64)[:, None] % blocks == np.arange(200) % blocks) & (rng.random((64, 200)) < 0.5)
    )
    train = InteractionMatrix.from_pairs(users, items, None, n_users=64, n_items=200)
    rows = np.repeat(np.arange(200), 3)
    columns = (rng.integers(0, 10, 600) * blocks) + rows % blocks
    words = InteractionMatrix.from_pairs(rows, columns, None, n_users=200, n_items=40)
    return ModelInputs(train, {}, 0, text=TextFeatures(words, tuple(f"{at % blocks}:{at}" for at in range(40))))


def test_planted_interests_are_learnt_and_spoken_of_in_their_own_words():
    inputs = planted()
    torch.manual_seed(0)
    model = BANDVAEConfig(dim=16, hidden_dim=32, kl_anneal_steps=1000).build(inputs)
    optimiser, rng, batch = (
        torch.optim.Adam(model.parameters(), lr=1e-2),
        torch.Generator().manual_seed(0),
        everybody(inputs),
    )
    for step in range(300):
        optimiser.zero_grad()
        sum(model.loss(batch, rng, step).values()).backward()
        optimiser.step()
    model.eval()
    scores, taken = model.scores(batch), dense_of(batch).bool()
    gains = taken.gather(1, scores.topk(10).indices).float() / torch.log2(torch.arange(2, 12.0))
    assert (gains.sum(1) / (1 / torch.log2(torch.arange(2, 12.0))).sum()).mean() > 0.9
    assert isinstance(model, Explainable)
    told = model.factors_of(batch, top=5, epsilon=0.05)
    blocks = torch.arange(64)[:, None] % 4
    spoken = torch.tensor([[int(name.split(":")[0]) for name in told.sides[0].unit_names]])[0]
    busiest = told.sides[0].shares.argmax(1)
    words = told.sides[0].tops[torch.arange(64), busiest]
    assert (spoken[words] == blocks).float().mean() > 0.9
    held = told.shares.argmax(1)
    assert (told.tops[torch.arange(64), held] % 4 == blocks).float().mean() > 0.9


def test_an_explanation_hangs_together():
    inputs = random_inputs()
    model, batch = built(inputs, text_factors=2).eval(), everybody(inputs)
    told = model.factors_of(batch, top=3)
    filled = batch.lengths > 0
    torch.testing.assert_close(told.shares.sum(1), filled.float())
    taken = dense_of(batch).bool()
    shown = torch.isfinite(told.scores)
    assert not (taken[torch.arange(N_USERS)[:, None, None], told.tops] & shown).any()
    assert (told.scores.diff(dim=-1)[shown[..., 1:]] <= 0).all()
    [side] = told.sides
    assert side.unit_names == tuple("abcdefg") and side.plan.shape == (N_USERS, 3, 2)
    torch.testing.assert_close(side.plan.sum((1, 2)), torch.ones(N_USERS))
    sharp, even = (model.factors_of(batch, epsilon=e).sides[0].plan for e in (0.02, 100.0))
    assert sharp.std() > even.std()
    whole = torch.logsumexp(model.ratings.factor_scores(*_decoded(model, batch)), 0)
    torch.testing.assert_close(whole, model.scores(batch), rtol=1e-5, atol=1e-5)


def _decoded(model, batch):
    own = model._read(batch, None).ratings
    return own.assignment, own.fused


def test_common_words_are_counted_between_factors():
    tops = torch.tensor([[[0, 1], [0, 1]], [[0, 1], [2, 3]], [[0, 1], [1, 2]]])
    assert overlap(tops).tolist() == [1.0, 0.0, 0.5]


def test_diagnostics_report_plans_words_and_factors():
    inputs = random_inputs()
    found = built(inputs).eval().diagnostics([everybody(inputs)])
    assert set(found) == {"factor_similarity", "plan_entropy", "word_overlap"}
    assert 0 <= found["plan_entropy"] <= np.log2(3) + 1e-5 and -0.5 <= found["factor_similarity"] <= 1


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
    model, batch = built(inputs, hidden_items=True), everybody(inputs)
    seed = 3
    read = model._read(batch, torch.Generator().manual_seed(seed))
    kept = torch.rand(len(batch.rows), generator=torch.Generator().manual_seed(seed)) >= model.config.dropout
    source = model.text_sides()[0].source
    expected = source(batch.with_values(batch.values * kept))
    assert len(read.sides[0].assignment.weights) == len(expected.rows)
    assert torch.equal(read.sides[0].rows.values, source(batch).values)
    assert model.ratings.options.dropout == 0 and model.text_sides()[0].channel.options.dropout == 0.5
    sum(model.loss(batch, torch.Generator().manual_seed(0), 5).values()).backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


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
