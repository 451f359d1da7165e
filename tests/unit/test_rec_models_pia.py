"""PIA: the alignment's closed form and gradients, its schedule, what it does to posteriors, and that it leaves."""

import numpy as np
import pytest
import torch

from rec_models.anchors import LearnedAnchors, TiedAnchors, anchors_of
from rec_models.blocks import dropout_entries
from rec_models.errors import MissingSemanticMatrixError
from rec_models.gaussians import DiagonalGaussian
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.models import PIAConfig
from rec_models.semantic import ModelInputs, SemanticMatrix, pooled_users

SEED = 31
N_USERS, N_ITEMS = 40, 24
BASES = {
    "mult_vae": {"hidden_dim": 10, "latent_dim": 5, "kl_weight": 0.1},
    "flow": {"name": "mult_vae", "hidden_dim": 10, "latent_dim": 5, "flow_layers": 2, "flow_hidden_dim": 8},
    "cvga": {"latent_dim": 5},
    "l_diffrec": {"latent_dim": 5, "denoiser_hidden_dim": 8},
    "macrid_vae": {"dim": 5, "hidden_dim": 10, "factors": 2},
    "rec_vae": {"hidden_dim": 10, "hidden_layers": 2, "latent_dim": 5},
    "dmrec": {"base": {"name": "mult_vae", "hidden_dim": 10, "latent_dim": 5}, "meta_network": {"hidden_dim": 8}},
}


@pytest.fixture(scope="module")
def world():
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    tastes, topics = rng.standard_normal((N_USERS, 3)), rng.standard_normal((N_ITEMS, 3))
    cells = tastes @ topics.T > 1.2
    cells[7] = False
    train = InteractionMatrix.from_pairs(*np.nonzero(cells), None, n_users=N_USERS, n_items=N_ITEMS)
    present = torch.arange(N_ITEMS) % 6 != 1
    vectors = torch.from_numpy((topics @ rng.standard_normal((3, 9)) + 2).astype(np.float32)) * present[:, None]
    items = SemanticMatrix(vectors, present)
    return ModelInputs(train, {"items": items, "users": pooled_users(items, train)}, SEED)


def config(base="mult_vae", **options):
    return PIAConfig.model_validate({"base": {"name": base} | BASES[base]} | options)


def everybody(world):
    return ResidentInteractions(world.train).batch(np.arange(N_USERS))


def run(settings, world, steps=40, rate=1e-2):
    """(model, terms of the last step), over the batches of the model's own epochs."""
    torch.manual_seed(SEED)
    model, rng, order = settings.build(world), torch.Generator().manual_seed(SEED), np.random.default_rng(SEED)
    optimiser, history = torch.optim.Adam(model.parameters(), lr=rate), ResidentInteractions(world.train)
    step, terms = 0, {}
    while step < steps:
        for batch in model.batches(history, order, 20):
            optimiser.zero_grad()
            terms = model.loss(batch, rng, step)
            torch.stack(list(terms.values())).sum().backward()
            optimiser.step()
            step += 1
    return model.eval(), terms


@pytest.mark.parametrize("base", BASES)
def test_without_weight_the_base_is_trained_to_the_last_bit_as_if_alone(base, world):
    wrapped, _ = run(config(base, weight=0), world, steps=6)
    alone, _ = run(config(base).base, world, steps=6)
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, wrapped.served().state_dict()[name]), name


@pytest.mark.parametrize("base", BASES)
def test_alignment_reaches_every_parameter_on_every_base_and_changes_what_is_learnt(base, world):
    settings = config(base, weight=1.0)
    model, _ = run(settings, world, steps=6)
    assert not torch.equal(
        model.scores(everybody(world)), run(settings.base, world, steps=6)[0].scores(everybody(world))
    )
    torch.manual_seed(0)
    model = settings.build(world)
    torch.stack(list(model.loss(everybody(world), torch.Generator().manual_seed(0), 1).values())).sum().backward()
    grouped = [id(weight) for group in model.parameter_groups() for weight in group.parameters]
    assert sorted(grouped) == sorted(map(id, model.parameters()))
    for name, weight in model.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all() and weight.grad.any(), name


def test_the_alignment_is_the_expected_distance_from_the_anchors_and_pulls_as_it_should():
    rng = torch.Generator().manual_seed(SEED)
    train = InteractionMatrix.from_pairs([0, 0, 0], [1, 2, 4], None, n_users=2, n_items=6)
    batch = ResidentInteractions(train).batch(np.array([0, 1]))
    anchors = LearnedAnchors(6, 4, 0, None)
    with torch.no_grad():
        anchors.anchors.normal_(generator=rng)
    mean = torch.randn(2, 4, generator=rng).requires_grad_()
    q = DiagonalGaussian(mean, torch.randn(2, 4, generator=rng))
    centroids = anchors.centroids(batch)
    found = centroids.from_gaussian(q)
    z = mean[0] + torch.exp(0.5 * q.log_variance[0]) * torch.randn(40_000, 4, generator=rng)
    own = anchors.anchors[[1, 2, 4]]
    drawn = (z[:, None] - own).square().sum(-1).mean()
    assert found[0].item() == pytest.approx(drawn.item(), rel=1e-2)
    assert found[1] == 0  # a user without items has no centroid to be pulled to
    at = z[:1].detach()
    alone = ResidentInteractions(train).batch(np.array([0]))
    torch.testing.assert_close(
        anchors.centroids(alone).from_draw(at), (at - own).square().sum(1).mean()[None], atol=1e-5, rtol=1e-5
    )
    by_mean, by_anchors = torch.autograd.grad(found[0], (mean, anchors.anchors))
    torch.testing.assert_close(by_mean[0], 2 * (mean[0] - own.mean(0)).detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(by_anchors[2], 2 * (own[1] - mean[0]).detach() / 3, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("source", ["learned", "text_init", "text_tied"])
def test_the_centroid_is_of_all_items_whatever_is_masked(source, world):
    anchors = anchors_of(source, N_ITEMS, 5, SEED, world.semantic["items"])
    batch = everybody(world)
    masked = batch.with_values(dropout_entries(batch, 0.5, torch.Generator().manual_seed(0)))
    assert not torch.equal(masked.values, batch.values)
    for whole, dropped in zip(anchors.centroids(batch), anchors.centroids(masked), strict=True):
        assert torch.equal(whole, dropped)
    table, rows = anchors.of(batch.items)
    for user in np.flatnonzero(world.train.lengths() > 1)[:3]:
        own = table[rows[batch.rows == user]]
        torch.testing.assert_close(anchors.centroids(batch).centre[user], own.mean(0))
        spread = (own - own.mean(0)).square().sum(1).mean()
        torch.testing.assert_close(anchors.centroids(batch).spread[user], spread, atol=1e-6, rtol=1e-4)


def test_texts_give_anchors_their_first_places_and_tied_ones_keep_to_them(world):
    items = world.semantic["items"]
    begun, tied = (anchors_of(source, N_ITEMS, 5, SEED, items) for source in ("text_init", "text_tied"))
    scale = (2 / (N_ITEMS + 5)) ** 0.5
    for table in (begun.anchors[items.present], tied.of(torch.arange(N_ITEMS))[0][items.present]):
        assert table.square().mean().sqrt().item() == pytest.approx(scale, rel=0.6)
        assert table.mean(0).norm() < 0.3 * table.norm(dim=1).mean()  # texts share most of their vectors
    centred = items.vectors[items.present] - items.vectors[items.present].mean(0)
    near = torch.cdist(centred, centred).flatten()
    moved = begun.anchors[items.present].detach()
    assert np.corrcoef(near, torch.cdist(moved, moved).flatten())[0, 1] > 0.99  # three axes hold these texts
    assert isinstance(tied, TiedAnchors) and {name for name, _ in tied.named_parameters()} == {"weight", "offset"}
    assert torch.equal(tied.of(torch.tensor([1]))[0][0], tied.offset)  # item 1 has no text
    silent = SemanticMatrix(items.vectors * 0, items.present & False)
    for source in ("text_init", "text_tied"):
        assert torch.isfinite(anchors_of(source, N_ITEMS, 20, SEED, silent).of(torch.arange(N_ITEMS))[0]).all()


def test_only_anchors_from_texts_ask_for_texts(world):
    assert [config(anchors=source).asks_for_language for source in ("learned", "text_init", "text_tied")] == [
        False,
        True,
        True,
    ]
    assert config("dmrec").asks_for_language
    with pytest.raises(MissingSemanticMatrixError, match="semalign embed"):
        config(anchors="text_tied").build(ModelInputs(world.train, {}, 0))


@pytest.mark.parametrize("source", ["text_init", "text_tied"])
def test_anchors_under_a_control_read_other_vectors_and_say_so(source, world):
    built = {
        language: config(anchors=source, language=language).build(world)
        for language in ("profiles", "shuffled", "random")
    }
    tables = {language: model.anchors.of(torch.arange(N_ITEMS))[0] for language, model in built.items()}
    assert not torch.allclose(tables["profiles"], tables["shuffled"])
    assert not torch.allclose(tables["profiles"], tables["random"])
    told = {language: model.provenance()["anchors"] for language, model in built.items()}
    assert len(set(told.values())) == 3 and "shuffled" in told["shuffled"] and "random" in told["random"]
    assert config().build(world).provenance() == {}


def test_on_a_quadratic_the_optimum_moves_to_the_centroid_as_proposition_3_2_says():
    """Loss (m - m0(b))' A (m - m0(b)) / 2 + weight |m - c|^2: descent ends at M m0 + (1 - M) c."""
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    root = rng.standard_normal((4, 4))
    curvature, weight, centroid = root @ root.T + np.eye(4), 0.8, rng.standard_normal(4)
    free = rng.standard_normal((30, 4))  # optima without alignment, one a mask
    found = free.copy()
    for _ in range(3000):
        found -= 0.02 * ((found - free) @ curvature + 2 * weight * (found - centroid))
    expected = np.linalg.solve(curvature + 2 * weight * np.eye(4), curvature @ free.T + 2 * weight * centroid[:, None])
    np.testing.assert_allclose(found, expected.T, atol=1e-6)
    steepest = np.linalg.eigvalsh(curvature).max()
    assert found.var(0).sum() / free.var(0).sum() <= (steepest / (steepest + 2 * weight)) ** 2


def test_the_weight_grows_exactly_on_plateaus_and_no_further_than_it_may(world):
    model = config(weight=1.0, plateau=2, growth=1.5, max_growth=3.0).build(world)
    script = [True, False, False, False, True, False, False, False, False, True, False, False, False, False]
    seen = []
    for better in script:
        model.validated(better)
        seen.append(float(model.weight))
    grown = [1, 1.5, 2.25, 3.0]  # 3.375 is beyond the bound
    at = [0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3]
    assert seen == pytest.approx([grown[index] for index in at])


def test_the_average_distance_of_two_masked_rows_is_what_the_spec_derives():
    """keep * differing + 2 keep (1 - keep) * shared; here 6 differing and 10 shared items."""
    print(f"seed {SEED}")
    items = [*range(13), *range(10), 13, 14, 15]
    train = InteractionMatrix.from_pairs([0] * 13 + [1] * 13, items, None, n_users=2, n_items=16)
    batch, rng = ResidentInteractions(train).batch(np.array([0, 1])), torch.Generator().manual_seed(SEED)
    for keep in (0.3, 0.5, 0.8):
        distances = []
        for _ in range(3000):
            rows = torch.zeros(2, 16)
            rows[batch.rows, batch.items] = (dropout_entries(batch, 1 - keep, rng) > 0).float()
            distances.append((rows[0] - rows[1]).abs().sum().item())
        expected = keep * 6 + 2 * keep * (1 - keep) * 10
        assert np.mean(distances) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize("base", ["mult_vae", "dmrec"])
def test_what_is_served_has_no_anchors_and_the_same_scores_to_the_last_bit(base, world):
    model, _ = run(config(base, anchors="text_tied"), world, steps=4)
    served, batch = model.served(), everybody(world)
    assert [name for name in model.state_dict() if "anchors" in name]
    assert not [name for name in served.state_dict() if "anchor" in name or name == "weight"]
    assert torch.equal(served.scores(batch), model.scores(batch))


def test_a_pass_of_validation_tells_what_a_collapse_of_anchors_would_show_in(world):
    model, _ = run(config(), world, steps=4)
    history = ResidentInteractions(world.train)
    with torch.no_grad():
        found = model.diagnostics(history.batch(users) for users in np.array_split(np.arange(N_USERS), 3))
    assert set(found) == {"alignment_weight", "anchor_spread", "centroid_variance"}
    assert all(value > 0 for value in found.values())
