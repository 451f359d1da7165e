"""What VBPR, FREEDOM and BM3 promise beyond the contract: their papers' equations, by loops and dense matrices."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rec_models import parse_config
from rec_models.errors import MissingSemanticMatrixError
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.models import BM3Config, FREEDOMConfig, VBPRConfig
from rec_models.models.freedom import kept_interactions
from rec_models.semantic import ModelInputs, SemanticMatrix, item_modalities

N_USERS, N_ITEMS = 8, 11
PEERS = ("vbpr", "freedom", "bm3")
BOTH = ("profiles", "image")
QUICK = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def world(seed, silent=None):
    """Random interactions and two modalities of other widths; each lacks some items."""
    print("seed", seed)
    rng = np.random.default_rng(seed)
    taken = rng.random((N_USERS, N_ITEMS)) < 0.4
    taken[0, 0] = taken[1, 1] = True
    users, items = np.nonzero(taken)
    train = InteractionMatrix.from_pairs(users, items, None, n_users=N_USERS, n_items=N_ITEMS)
    semantic = {}
    lacking = {"items": [2, 5], "items_image": [5, 7]} | (silent or {})
    for name, dim in (("items", 6), ("items_image", 4)):
        present = np.ones(N_ITEMS, bool)
        present[lacking[name]] = False
        vectors = rng.standard_normal((N_ITEMS, dim)) * present[:, None]
        semantic[name] = SemanticMatrix(torch.from_numpy(vectors.astype(np.float32)), torch.from_numpy(present))
    return ModelInputs(train, semantic, 0), taken


def built(config, inputs):
    torch.manual_seed(5)
    return config.build(inputs)


def everything(inputs):
    history = ResidentInteractions(inputs.train)
    return history.pairs(history.paired)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def scores_after(config, inputs, steps=5):
    model = built(config, inputs)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps):
        optimiser.zero_grad()
        sum(model.loss(everything(inputs), rng(step), step).values()).backward()
        optimiser.step()
    return model.eval().scores(ResidentInteractions(inputs.train).batch(np.arange(N_USERS)))


@pytest.mark.parametrize("name", PEERS)
def test_cutting_any_one_modality_changes_the_scores(name):
    config = parse_config({"name": name, "dim": 4, "modalities": list(BOTH), "batch_pairs": 64})
    whole = scores_after(config, world(1)[0])
    assert torch.equal(whole, scores_after(config, world(1)[0]))
    for lost in ("items", "items_image"):
        inputs, _ = world(1)
        dim = inputs.semantic[lost].dim
        nothing = SemanticMatrix(torch.zeros(N_ITEMS, dim), torch.zeros(N_ITEMS, dtype=torch.bool))
        cut = ModelInputs(inputs.train, inputs.semantic | {lost: nothing}, 0)
        scores = scores_after(config, cut)
        assert torch.isfinite(scores).all()
        assert not torch.equal(scores, whole), lost


@pytest.mark.parametrize("name", PEERS)
def test_a_modality_the_bundle_lacks_is_asked_for_by_name(name):
    config = parse_config({"name": name, "modalities": ["profiles", "sound"]})
    with pytest.raises(MissingSemanticMatrixError, match=f"{name} reads the semantic matrix 'items_sound'"):
        config.build(world(2)[0])


def test_a_control_shuffles_all_modalities_of_an_item_together_and_draws_each_for_itself():
    inputs, _ = world(3, silent={"items": [], "items_image": []})
    plain, shuffled = (item_modalities("vbpr", inputs, BOTH, how) for how in ("profiles", "shuffled"))
    moved = {
        name: [plain[name].vectors.tolist().index(row) for row in shuffled[name].vectors.tolist()] for name in BOTH
    }
    assert moved["profiles"] == moved["image"] != list(range(N_ITEMS))
    twice = ModelInputs(inputs.train, {"items": inputs.semantic["items"], "items_image": inputs.semantic["items"]}, 0)
    drawn = item_modalities("vbpr", twice, BOTH, "random")
    assert (drawn["profiles"].vectors - drawn["image"].vectors).abs().min() > 0
    torch.testing.assert_close(drawn["image"].vectors.norm(dim=1), torch.ones(N_ITEMS))


@QUICK
@given(seeds)
def test_vbpr_scores_are_factors_tastes_and_two_biases(seed):
    inputs, _ = world(seed)
    model = built(VBPRConfig(dim=3, taste_dim=2, modalities=BOTH, l2_weight=0.5, map_l2_weight=0.25), inputs)
    with torch.no_grad():
        model.item_bias.copy_(torch.from_numpy(np.random.default_rng(seed).standard_normal((N_ITEMS, 1))))
    state = {key: value.double().numpy() for key, value in model.state_dict().items()}
    features = np.hstack([inputs.semantic[name].vectors.numpy() for name in ("items", "items_image")])
    maps = np.hstack([state["maps.profiles.weight"], state["maps.image.weight"]])  # (2 + 1, 6 + 4)
    expected = np.zeros((N_USERS, N_ITEMS))
    for user in range(N_USERS):
        for item in range(N_ITEMS):
            latent = state["user_table"][user] @ state["item_table"][item]
            taste = state["tastes"][user] @ (maps[:2] @ features[item])
            expected[user, item] = latent + taste + state["item_bias"][item, 0] + maps[2] @ features[item]
    history = ResidentInteractions(inputs.train)
    scores = model.eval().scores(history.batch(np.arange(N_USERS)))
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    batch = everything(inputs)
    negatives = batch.negatives(rng(seed)).squeeze(1).tolist()
    terms = model.train().loss(batch, rng(seed), 0)
    ranking, squares = 0.0, 0.0
    for user, item, other in zip(batch.users.tolist(), batch.items.tolist(), negatives, strict=True):
        ranking += math.log1p(math.exp(expected[user, other] - expected[user, item])) / len(batch)
        rows = [state["user_table"][user], state["tastes"][user]]
        rows += [state[table][each] for table in ("item_table", "item_bias") for each in (item, other)]
        squares += sum((row**2).sum() for row in rows) / len(batch)
    assert float(terms["ranking"].detach()) == pytest.approx(ranking, rel=1e-4)
    assert float(terms["penalty"].detach()) == pytest.approx(0.5 * squares + 0.25 * (maps**2).sum(), rel=1e-4)


def dense_alike(matrix, k, weighted=False, vectors=None):
    """A modality's graph of neighbours by loops, its rows' degrees on both sides."""
    vectors = (matrix.vectors if vectors is None else vectors).double().numpy()
    present = matrix.present.numpy()
    graph = np.zeros((N_ITEMS, N_ITEMS))
    for item in np.flatnonzero(present):
        cosines = {
            int(other): vectors[item] @ vectors[other] / np.linalg.norm(vectors[item]) / np.linalg.norm(vectors[other])
            for other in np.flatnonzero(present)
            if other != item
        }
        for other in sorted(cosines, key=lambda each: -cosines[each])[:k]:
            graph[item, other] = max(cosines[other], 0) if weighted else 1
    roots = np.sqrt(graph.sum(1))
    scale = roots[:, None] * roots
    return np.divide(graph, scale, out=np.zeros_like(graph), where=scale > 0)


def dense_final(state, taken, alike, layers, item_layers):
    """FREEDOM's final vectors by dense powers."""
    nodes = N_USERS + N_ITEMS
    square = np.zeros((nodes, nodes))
    square[:N_USERS, N_USERS:] = taken
    square += square.T
    degrees = square.sum(1).clip(1)
    square = square / np.sqrt(degrees[:, None] * degrees)
    first = np.vstack([state["user_table"], state["item_table"]])
    mean = sum(np.linalg.matrix_power(square, layer) @ first for layer in range(layers + 1)) / (layers + 1)
    return mean[:N_USERS], mean[N_USERS:] + np.linalg.matrix_power(alike, item_layers) @ state["item_table"]


@QUICK
@given(seeds, st.booleans(), st.integers(0, 2), st.integers(0, 2))
def test_freedom_is_two_dense_graphs_and_ranks_by_mapped_modalities_too(seed, weighted, layers, item_layers):
    inputs, taken = world(seed)
    options = {"dim": 3, "layers": layers, "item_layers": item_layers, "neighbours": 3, "weighted": weighted}
    weights = (3.0, 1.0)
    model = built(FREEDOMConfig(modalities=BOTH, modality_weights=weights, l2_weight=0.1, **options), inputs)
    state = {key: value.double().numpy() for key, value in model.state_dict().items()}
    matrices = [inputs.semantic[name] for name in ("items", "items_image")]
    alike = sum(weight / 4 * dense_alike(matrix, 3, weighted) for weight, matrix in zip(weights, matrices, strict=True))
    np.testing.assert_allclose(model.frozen.toarray(), alike, rtol=1e-5, atol=1e-6)
    users, items = dense_final(state, taken, alike, layers, item_layers)
    for found, expected in zip(model.vectors(), (users, items), strict=True):
        np.testing.assert_allclose(found.detach(), expected, rtol=1e-4, atol=1e-5)
    batch = everything(inputs)
    negatives = batch.negatives(rng(seed)).squeeze(1).tolist()
    expected = 0.0
    for name, matrix in zip(BOTH, matrices, strict=True):
        mapped = matrix.vectors.double().numpy() @ state[f"maps.{name}.weight"].T
        terms = [
            math.log1p(math.exp(users[user] @ (mapped[other] - mapped[item])))
            for user, item, other in zip(batch.users.tolist(), batch.items.tolist(), negatives, strict=True)
            if matrix.present[item] and matrix.present[other]
        ]
        expected += np.mean(terms) if terms else 0.0
    found = model.loss(batch, rng(seed), 0)["modalities"] / model.config.modality_loss_weight
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)


def test_freedom_prunes_popular_edges_first_and_only_while_it_trains():
    inputs, _ = world(4)
    model = built(FREEDOMConfig(dim=3, prune_share=0.5), inputs)
    history = ResidentInteractions(inputs.train)
    before = [part.clone() for part in model.eval().vectors()]
    order, pruned = np.random.default_rng(1), []
    for _ in range(2):
        next(model.batches(history, order, 1))
        pruned.append(model.pruned)
    assert all(len(graph.values) == 2 * round(inputs.train.nnz / 2) for graph in pruned)
    assert not torch.equal(pruned[0].columns, pruned[1].columns)  # every epoch its own
    assert all(torch.equal(a, b) for a, b in zip(model.vectors(), before, strict=True))
    # a star: item 0 is everybody's, each user has one item of their own beside it
    many = 200
    users = np.repeat(np.arange(many), 2)
    items = np.stack([np.zeros(many, int), np.arange(1, many + 1)], 1).ravel()
    star = InteractionMatrix.from_pairs(users, items, None, n_users=many, n_items=many + 1)
    kept = kept_interactions(star, 0.5, np.random.default_rng(2))
    assert kept.nnz == many
    assert kept.item_counts()[0] < 0.2 * many
    # degrees 2 and `many`: odds of an edge to go first are those of the square roots
    counts = np.zeros(2)
    for draw in range(400):
        one = kept_interactions(star, 1 / (2 * many), np.random.default_rng(draw))
        assert one.nnz == 1
        counts[int(one.indices[0] == 0)] += 1
    share = 1 / (1 + math.sqrt(many))
    assert counts[1] / 400 == pytest.approx(share, abs=4 * math.sqrt(share / 400))


@QUICK
@given(seeds)
def test_a_learned_graph_of_items_follows_the_maps_and_is_a_function_of_the_weights(seed):
    inputs, taken = world(seed)
    config = FREEDOMConfig(dim=3, neighbours=2, item_graph="learned", frozen_share=0.7, weighted=True, modalities=BOTH)
    model = built(config, inputs)
    state = {key: value.double().numpy() for key, value in model.state_dict().items()}
    alike = np.zeros((N_ITEMS, N_ITEMS))
    for name, key in zip(BOTH, ("items", "items_image"), strict=True):
        matrix = inputs.semantic[key]
        mapped = matrix.vectors.double() @ torch.from_numpy(state[f"maps.{name}.weight"]).t()
        alike += 0.35 * dense_alike(matrix, 2, True) + 0.15 * dense_alike(matrix, 2, True, mapped)
    expected = dense_final(state, taken, alike, 2, 1)
    for found, each in zip(model.eval().vectors(), expected, strict=True):
        np.testing.assert_allclose(found.detach(), each, rtol=1e-4, atol=1e-5)
    batch = next(iter(model.train().batches(ResidentInteractions(inputs.train), np.random.default_rng(0), 1)))
    first = model.alike_items
    with torch.no_grad():
        for layer in model.maps.values():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=rng(seed)))
    model.loss(batch, rng(), 0)
    assert model.alike_items is first  # within an epoch it stands
    other = built(config, inputs)
    other.load_state_dict(model.state_dict())
    for a, b in zip(model.eval().vectors(), other.eval().vectors(), strict=True):
        assert torch.equal(a, b)


def test_weights_of_modalities_must_be_as_many_and_positive():
    for weights in ((1.0,), (1.0, -1.0), (0.0, 0.0)):
        with pytest.raises(ValidationError, match="one weight from 0 up for each"):
            FREEDOMConfig(modalities=BOTH, modality_weights=weights)
    with pytest.raises(ValidationError):
        VBPRConfig(modalities=())


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@QUICK
@given(seeds)
def test_bm3_draws_each_view_to_the_other_before_the_predictor(seed):
    inputs, taken = world(seed)
    model = built(BM3Config(dim=3, layers=2, modalities=BOTH, dropout=0, modality_loss_weight=0.5), inputs)
    state = {key: value.double().numpy() for key, value in model.state_dict().items()}
    users, items = dense_final(state, taken, np.eye(N_ITEMS), 2, 1)  # an item's own embedding once more

    def predicted(rows):
        return rows @ state["predictor.weight"].T + state["predictor.bias"]

    for found, expected in zip(model.vectors(), (users, items), strict=True):
        np.testing.assert_allclose(found.detach(), predicted(expected), rtol=1e-4, atol=1e-5)
    pairs = np.argwhere(taken & (taken.sum(1) < N_ITEMS)[:, None])
    drawn = np.mean(
        [2 - cosine(predicted(users[u]), items[i]) - cosine(predicted(items[i]), users[u]) for u, i in pairs]
    )
    modal = 0.0
    for name, key in zip(BOTH, ("items", "items_image"), strict=True):
        matrix = inputs.semantic[key]
        mapped = matrix.vectors.double().numpy() @ state[f"maps.{name}.weight"].T + state[f"maps.{name}.bias"]
        heard = [i for _, i in pairs if matrix.present[i]]
        modal += np.mean(
            [2 - cosine(predicted(mapped[i]), items[i]) - cosine(predicted(mapped[i]), mapped[i]) for i in heard]
        )
    terms = model.loss(everything(inputs), rng(), 0)
    assert float(terms["ranking"].detach()) == pytest.approx(drawn, rel=1e-3, abs=1e-4)
    assert float(terms["modalities"].detach()) == pytest.approx(0.5 * modal, rel=1e-3, abs=1e-4)


def test_bm3_learns_nothing_through_its_targets():
    inputs, _ = world(6)
    model = built(BM3Config(dim=4, layers=0, modality_loss_weight=0, l2_weight=0, dropout=0.5), inputs)
    with torch.no_grad():
        model.predictor.weight.zero_()  # nothing comes through the online view: whatever is left would be the target's
    batch = everything(inputs)
    model.loss(batch, rng(), 0)["ranking"].backward()
    assert model.user_table.grad.abs().max() == 0
    assert model.item_table.grad.abs().max() == 0
    assert model.predictor.weight.grad.abs().max() > 0


@pytest.mark.parametrize("config", [FREEDOMConfig(dim=3), BM3Config(dim=3)], ids=["freedom", "bm3"])
def test_an_item_without_a_modality_has_no_term_in_its_loss(config):
    inputs, _ = world(7, silent={"items": list(range(1, N_ITEMS))})
    model = built(config, inputs)
    terms = model.loss(everything(inputs), rng(), 0)
    with torch.no_grad():  # whatever stood in the rows of those that have none
        model.get_buffer("profiles_vectors")[1:] = 7
    again = model.loss(everything(inputs), rng(), 0)
    assert torch.equal(terms["modalities"], again["modalities"])
