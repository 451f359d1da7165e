"""What each model on the graph promises beyond the contract: its paper's small truths, by loops and by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_models import parse_config
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.losses import bpr, unit
from rec_models.models import (
    AlphaRecConfig,
    KARConfig,
    LightGCNConfig,
    LLMRecConfig,
    RLMRecCConfig,
    RLMRecGConfig,
)
from rec_models.models.llmrec import surrogate_edges
from rec_models.semantic import ModelInputs, SemanticMatrix

N_USERS, N_ITEMS, DIM = 7, 9, 6
NAMES = ("lightgcn", "rlmrec_c", "rlmrec_g", "kar", "llmrec", "alpharec", "alpharec_star", "vbpr", "freedom", "bm3")
QUICK = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def world(seed, silent_items=(2, 5), silent_users=(3,)):
    """Random interactions; these items and users have no text."""
    print("seed", seed)
    rng = np.random.default_rng(seed)
    taken = rng.random((N_USERS, N_ITEMS)) < 0.4
    taken[0, 0] = taken[1, 1] = True
    users, items = np.nonzero(taken)
    train = InteractionMatrix.from_pairs(users, items, None, n_users=N_USERS, n_items=N_ITEMS)
    semantic = {}
    for name, rows, silent in (("items", N_ITEMS, silent_items), ("users", N_USERS, silent_users)):
        present = np.ones(rows, bool)
        present[list(silent)] = False
        vectors = rng.standard_normal((rows, DIM)) * present[:, None]
        semantic[name] = SemanticMatrix(torch.from_numpy(vectors.astype(np.float32)), torch.from_numpy(present))
    return ModelInputs(train, semantic, 0), taken


def built(config, inputs):
    torch.manual_seed(5)
    return config.build(inputs)


def everything(model, inputs):
    history = ResidentInteractions(inputs.train)
    return history.pairs(history.paired)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def cosine(a, b):
    return float((a @ b / (a.norm() * b.norm()).clamp_min(1e-8)).detach())


@pytest.mark.parametrize("name", NAMES)
@QUICK
@given(seeds)
def test_renaming_items_and_their_texts_renames_the_scores(name, seed):
    inputs, taken = world(seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(N_ITEMS))
    users, items = np.nonzero(taken[:, order])
    train = InteractionMatrix.from_pairs(users, items, None, n_users=N_USERS, n_items=N_ITEMS)
    own = inputs.semantic["items"]
    moved = replace(own, vectors=own.vectors[order], present=own.present[order])
    renamed = ModelInputs(train, inputs.semantic | {"items": moved}, 0)
    first, second = (built(parse_config({"name": name}), each).eval() for each in (inputs, renamed))
    state = first.state_dict()
    tables = {key: value[order] for key, value in state.items() if key == "item_table"}
    second.load_state_dict(state | tables)
    rows = ResidentInteractions(inputs.train).batch(np.arange(N_USERS))
    torch.testing.assert_close(second.scores(rows), first.scores(rows)[:, order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_products_leave_losses_and_scores_in_float32(name):
    inputs, _ = world(1)
    model = built(parse_config({"name": name}), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        terms = model.loss(everything(model, inputs), rng(), 0)
        sum(terms.values()).backward()
        low = model.eval().scores(ResidentInteractions(inputs.train).batch(np.arange(N_USERS)))
    assert all(term.dtype == torch.float32 and torch.isfinite(term) for term in terms.values())
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())
    exact = model.scores(ResidentInteractions(inputs.train).batch(np.arange(N_USERS)))
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, exact, atol=0.05, rtol=0.05)


# Alignment touches an entity only through its own row when nothing is propagated.
ALIGNED = {
    "rlmrec_c": (RLMRecCConfig(layers=0, dim=4, l2_weight=0), "alignment"),
    "rlmrec_g": (RLMRecGConfig(layers=0, dim=4, l2_weight=0, mask_share=0.9), "reconstruction"),
}


@pytest.mark.parametrize("name", ALIGNED)
@QUICK
@given(seeds)
def test_what_has_no_text_gets_no_alignment_gradient(name, seed):
    config, term = ALIGNED[name]
    inputs, _ = world(seed)
    model = built(config, inputs)
    with torch.no_grad():
        for weight in (model.user_table, model.item_table):
            weight.mul_(3)
    if name == "rlmrec_g":  # what is masked is the shared token, so align the clean vectors of all nodes
        nodes = torch.nonzero(model.present).squeeze(1)
        model.told(*model.smooth(model.first_layer()), nodes).backward()
    else:
        model.loss(everything(model, inputs), rng(seed), 0)[term].backward()
    for table, matrix in ((model.user_table, "users"), (model.item_table, "items")):
        present = inputs.semantic[matrix].present
        assert table.grad[~present].abs().max() == 0
    assert model.item_table.grad.abs().max() > 0
    assert not model.item_vectors.requires_grad


def test_rlmrec_c_contrasts_users_with_everybody_and_items_with_the_batch():
    inputs, _ = world(3)
    model = built(RLMRecCConfig(dim=4, temperature=0.3), inputs)
    users, items = model.smooth(model.first_layer())
    who, what = torch.tensor([0, 2, 2, 3, 5]), torch.tensor([1, 1, 4, 2, 8])  # user 3 and item 2 are silent
    of_users, of_items = (model.from_text(inputs.semantic[name].vectors) for name in ("users", "items"))
    heard = [k for k in range(N_USERS) if inputs.semantic["users"].present[k]]
    expected = 0.0
    for u in (0, 2, 2, 5):
        mass = sum(math.exp(cosine(users[u], of_users[k]) / 0.3) for k in heard)
        expected += math.log(mass) - cosine(users[u], of_users[u]) / 0.3
    assert float(model.user_contrast(users, who).detach()) == pytest.approx(expected, rel=1e-4)
    expected = 0.0
    for i in (1, 1, 4, 8):
        mass = sum(math.exp(cosine(items[i], of_items[k]) / 0.3) for k in (1, 1, 4, 8))
        expected += math.log(mass) - cosine(items[i], of_items[i]) / 0.3
    assert float(model.item_contrast(items, what).detach()) == pytest.approx(expected, rel=1e-4)


def test_without_its_alignment_rlmrec_c_is_lightgcn():
    inputs, _ = world(4)
    aligned = built(RLMRecCConfig(dim=4, alignment_weight=0, l2_weight=1e-3), inputs)
    plain = built(LightGCNConfig(dim=4, l2_weight=1e-3), inputs)
    plain.load_state_dict({key: value for key, value in aligned.state_dict().items() if "table" in key})
    batch = everything(plain, inputs)
    first, second = (model.loss(batch, rng(1), 0) for model in (aligned, plain))
    assert torch.equal(first["ranking"], second["ranking"]) and first["alignment"] == 0
    text = sum(float(weight.detach().square().sum()) for weight in aligned.from_text.parameters())
    assert float(first["penalty"].detach()) == pytest.approx(float(second["penalty"].detach()) + 1e-3 * text)


def test_rlmrec_g_masks_as_many_nodes_as_asked_and_tells_their_texts_apart():
    inputs, _ = world(5)
    model = built(RLMRecGConfig(dim=4, mask_share=0.5, temperature=0.5), inputs)
    assert model.n_masked == 8
    assert built(RLMRecGConfig(mask_share=0), inputs).n_masked == 1
    users, items = model.smooth(model.first_layer())
    assert float(model.told(users, items, torch.tensor([1])).detach()) == pytest.approx(0, abs=1e-6)
    assert float(model.told(users, items, torch.tensor([], dtype=torch.long)).detach()) == 0
    nodes, texts = [0, 4, N_USERS + 1, N_USERS + 8], torch.cat([model.user_vectors, model.item_vectors])
    drawn = model.to_text(torch.cat([users, items]))
    expected = 0.0
    for s in nodes:
        mass = sum(math.exp(cosine(drawn[s], texts[k]) / 0.5) for k in nodes)
        expected += math.log(mass) - cosine(drawn[s], texts[s]) / 0.5
    assert float(model.told(users, items, torch.tensor(nodes)).detach()) == pytest.approx(expected / 4, rel=1e-4)


def test_the_gates_of_kar_sum_to_one_and_a_lone_expert_speaks_for_itself():
    inputs, _ = world(6)
    text = inputs.semantic["items"].vectors
    model = built(KARConfig(dim=4, expert_hidden_dim=3), inputs)
    torch.testing.assert_close(model.adaptor.gate("item", text).sum(1), torch.ones(N_ITEMS))
    assert model.adaptor.gate("user", text).shape == (N_ITEMS, 7)
    alone = built(KARConfig(dim=4, expert_hidden_dim=3, shared_experts=0, own_experts=1), inputs).adaptor
    torch.testing.assert_close(alone("item", text), alone.own["item"](text)[:, 0])


def test_kar_without_the_text_half_of_its_map_is_a_linear_map_of_embeddings():
    inputs, _ = world(7)
    model = built(KARConfig(dim=4), inputs)
    with torch.no_grad():
        for join in model.joins.values():
            join.weight[:, 4:] = 0
    for side, table, block in (
        ("user", model.user_table, slice(N_USERS)),
        ("item", model.item_table, slice(N_USERS, None)),
    ):
        expected = table @ model.joins[side].weight[:, :4].t() + model.joins[side].bias
        torch.testing.assert_close(model.first_layer()[block], expected)
    assert model.features("item")[[2, 5]].abs().max() == 0


def test_kar_reads_its_own_texts_where_the_bundle_has_them_and_says_so():
    inputs, _ = world(8)
    assert built(KARConfig(), inputs).provenance() == {"users_preference": "profiles", "items_factual": "profiles"}
    own = replace(inputs, semantic=inputs.semantic | {"items_factual": inputs.semantic["items"]})
    assert built(KARConfig(), own).provenance() == {"users_preference": "profiles", "items_factual": "its own"}
    wide = built(KARConfig(concat_at="output", dim=4), inputs)
    assert wide.vectors()[0].shape == (N_USERS, 8)


def test_llmrec_without_its_branches_is_the_mean_of_its_layers():
    inputs, _ = world(9)
    quiet = LLMRecConfig(dim=4, profile_weight=0, text_weight=0, attribute_weight=0)
    model = built(quiet, inputs)
    for found, expected in zip(model.vectors(), model.propagated(), strict=True):
        torch.testing.assert_close(found, expected)


@QUICK
@given(seeds)
def test_pruning_keeps_the_easy_terms_and_by_option_the_hard_ones(seed):
    inputs, _ = world(seed)
    batch = None
    means = {}
    for keep, drop in (("small_loss", 0.71), ("small_loss", 0.0), ("large_loss", 0.71)):
        model = built(LLMRecConfig(dim=4, prune_keep=keep, drop_share=drop), inputs)
        batch = batch or everything(model, inputs)
        users, items = model.vectors()
        chosen = batch.users, batch.items, batch.negatives(rng(seed)).squeeze(1)
        means[keep, drop] = float(model.pruned(users, items, *chosen).detach())
    terms = bpr((users[chosen[0]] * items[chosen[1]]).sum(1), (users[chosen[0]] * items[chosen[2]]).sum(1))
    assert means["small_loss", 0.0] == pytest.approx(float(terms.mean()), rel=1e-5)
    assert means["small_loss", 0.71] <= means["small_loss", 0.0] <= means["large_loss", 0.71]


@QUICK
@given(seeds)
def test_surrogate_edges_are_the_most_and_least_fitting_of_the_likeliest_unseen_items(seed):
    inputs, taken = world(seed)
    items, users = inputs.semantic["items"], inputs.semantic["users"]
    found = surrogate_edges(inputs.train, items, users, 3).tolist()
    degrees = taken.sum(1).clip(1)[:, None] * taken.sum(0).clip(1)[None]
    scaled = taken / np.sqrt(degrees)
    scores = taken @ scaled.T @ scaled
    similar = (unit(users.vectors) @ unit(items.vectors).t()).numpy()
    for user in range(N_USERS):
        unseen = [i for i in range(N_ITEMS) if not taken[user, i] and items.present[i]]
        if not users.present[user] or len(unseen) < 2:
            assert found[user] == [-1, -1]
            continue
        ranked = sorted(unseen, key=lambda i: -scores[user, i])
        if len(ranked) > 3 and scores[user, ranked[2]] - scores[user, ranked[3]] < 1e-6:
            continue  # which of equally likely items is third is nobody's business
        by_fit = sorted(ranked[:3], key=lambda i: similar[user, i])
        assert found[user] == [by_fit[-1], by_fit[0]]


def test_llmrec_takes_edges_from_the_bundle_and_says_whose_they_are():
    inputs, _ = world(10)
    assert "surrogate" in built(LLMRecConfig(), inputs).provenance()["edges"]
    edges = torch.full((N_USERS, 2), -1)
    edges[4] = torch.tensor([6, 7])
    model = built(LLMRecConfig(edge_share=1.0), replace(inputs, edges={"llmrec": edges}))
    assert "surrogate" not in model.provenance()["edges"]
    batch = everything(model, inputs)
    who, liked, refused = model.with_edges(batch, rng())
    added = int((batch.users == 4).sum())
    assert len(who) == len(batch) + added
    assert who[len(batch) :].tolist() == [4] * added
    assert set(liked[len(batch) :].tolist()) <= {6} and set(refused[len(batch) :].tolist()) <= {7}


def test_llmrec_reads_facts_where_the_bundle_has_them_each_in_its_own_branch():
    inputs, _ = world(12)
    wide = {
        "users_facts": SemanticMatrix(torch.randn(N_USERS, 5, generator=rng(1)), torch.arange(N_USERS) != 4),
        "items_missing": SemanticMatrix(torch.randn(N_ITEMS, 3, generator=rng(2)), torch.arange(N_ITEMS) != 6),
    }
    told = {}
    for names in ((), ("users_facts",), ("items_missing",), tuple(wide)):
        own = {name: wide[name] for name in names}
        told[names] = built(LLMRecConfig(dim=4), replace(inputs, semantic=inputs.semantic | own))
        whose = {name: "its own" if name in names else "profiles" for name in wide}
        assert told[names].provenance() == {"edges": "surrogate edges, from embeddings", **whose}
    both = told[tuple(wide)]
    assert (both.profile_map.in_features, both.text_map.in_features, both.attribute_map.in_features) == (5, DIM, 3)
    of_users, of_items = both.mapped(both.profile_map, "user"), both.mapped(both.attribute_map, "attribute")
    assert not of_users[4].any() and not of_items[6].any() and of_items[5].any()  # item 5 has facts, though no profile
    # surrogate edges compare profiles, whatever else is there
    assert all(torch.equal(model.edges, told[()].edges) for model in told.values())


@QUICK
@given(seeds)
def test_facts_that_repeat_the_profiles_change_nothing(seed):
    inputs, _ = world(seed)
    copied = {"users_facts": inputs.semantic["users"], "items_missing": inputs.semantic["items"]}
    plain = built(LLMRecConfig(dim=4), inputs)
    with_facts = built(LLMRecConfig(dim=4), replace(inputs, semantic=inputs.semantic | copied))
    for found, expected in zip(with_facts.vectors(), plain.vectors(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("language", ["shuffled", "random"])
def test_a_control_takes_the_meaning_out_of_facts_as_well(language):
    inputs, _ = world(13)
    own = {"users_facts": inputs.semantic["users"], "items_missing": inputs.semantic["items"]}
    model = built(LLMRecConfig(dim=4, language=language), replace(inputs, semantic=inputs.semantic | own))
    assert not torch.equal(model.get_buffer("attribute_vectors"), inputs.semantic["items"].vectors)
    assert not torch.equal(model.user_vectors, inputs.semantic["users"].vectors)


def test_an_alpharec_user_begins_as_the_mean_text_of_their_items():
    inputs, taken = world(11)
    model = built(AlphaRecConfig(), inputs)
    heard = taken * inputs.semantic["items"].present.numpy()
    expected = heard @ inputs.semantic["items"].vectors.numpy() / heard.sum(1, keepdims=True).clip(1)
    np.testing.assert_allclose(model.text[:N_USERS], expected, rtol=1e-5, atol=1e-6)
    profile = built(parse_config({"name": "alpharec_star"}), inputs)
    assert torch.equal(profile.text[:N_USERS], inputs.semantic["users"].vectors)


def test_alpharec_has_as_many_weights_however_many_users_there_are():
    inputs, _ = world(12)
    few = replace(inputs, train=InteractionMatrix.from_pairs([0], [0], None, n_users=N_USERS, n_items=N_ITEMS))
    counts = [sum(w.numel() for w in built(AlphaRecConfig(), each).parameters()) for each in (inputs, few)]
    assert counts[0] == counts[1] == DIM * 12 + 12 + 12 * 64 + 64


def test_a_linear_alpharec_is_indifferent_to_the_length_of_texts_and_to_the_order_of_map_and_graph():
    inputs, _ = world(13)
    louder = {name: replace(matrix, vectors=2 * matrix.vectors) for name, matrix in inputs.semantic.items()}
    config = AlphaRecConfig(mapping="linear", dim=4)
    first, second = (built(config, each) for each in (inputs, replace(inputs, semantic=louder)))
    for found, expected in zip(second.vectors(), first.vectors(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    plain = built(AlphaRecConfig(), inputs)
    nodes = plain.graph(plain.text)
    nodes = (plain.text + nodes + plain.graph(nodes)) / 3
    torch.testing.assert_close(torch.cat(first.vectors()), unit(first.mapping(nodes)))


def test_alpharec_at_a_high_temperature_loses_the_logarithm_of_its_choices():
    inputs, _ = world(14)
    model = built(AlphaRecConfig(temperature=1e6), inputs)
    loss = model.loss(everything(model, inputs), rng(), 0)["ranking"]
    assert float(loss.detach()) == pytest.approx(math.log(257), rel=1e-4)


def test_an_alpharec_epoch_visits_users_evenly_and_drops_the_broken_batch():
    inputs, taken = world(15)
    model = built(AlphaRecConfig(batch_pairs=5), inputs)
    history = ResidentInteractions(inputs.train)
    batches = list(model.batches(history, np.random.default_rng(2), 1))
    assert [len(batch) for batch in batches] == [5] * (inputs.train.nnz // 5)
    users = torch.cat([batch.users for batch in batches])
    items = torch.cat([batch.items for batch in batches])
    assert taken[users.numpy(), items.numpy()].all()
    visits = torch.bincount(users, minlength=N_USERS)[taken.any(1)]
    assert visits.max() - visits.min() <= 1 + inputs.train.nnz % 5
