"""Graph attention against the textbook on dense matrices, and the neighbourhoods it runs over."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from rec_models import attention
from rec_models.attention import AttentionStack, GraphAttention, Neighbourhood, co_interaction_neighbours
from rec_models.interactions import InteractionMatrix

SEED = 20260612
DIM, HEADS = 12, 3


@pytest.fixture
def rng():
    print(f"seed {SEED}")
    torch.manual_seed(SEED)
    return np.random.default_rng(SEED)


def some_graph(rng, n=20):
    heard = rng.random((n, n)) < 0.2
    return Neighbourhood(sparse.csr_array(heard.astype(float))), torch.from_numpy(heard | np.eye(n, dtype=bool))


def on_dense_matrices(layer, nodes, heard):
    mapped = (nodes @ layer.map.weight.t()).unflatten(1, (HEADS, -1))
    said, hears = ((mapped * part).sum(-1) for part in (layer.says, layer.hears))
    logits = F.leaky_relu(said[None] + hears[:, None], 0.2)  # (hearing, said, heads)
    weights = torch.softmax(logits.masked_fill(~heard[..., None], -torch.inf), 1)
    return torch.einsum("ijh,jhw->ihw", weights, mapped).flatten(1) + layer.bias


@pytest.mark.parametrize("edges_at_once", [7, 1 << 14])
def test_attention_and_all_its_gradients_are_those_of_dense_matrices(rng, monkeypatch, edges_at_once):
    monkeypatch.setattr(attention, "_EDGES_AT_ONCE", edges_at_once)
    graph, heard = some_graph(rng)
    layer, nodes = GraphAttention(DIM, HEADS, 0.0), torch.randn(20, DIM, requires_grad=True)
    towards = torch.randn(20, DIM)
    wanted = [nodes, *layer.parameters()]
    ours, dense = layer(nodes, graph, None), on_dense_matrices(layer, nodes, heard)
    torch.testing.assert_close(ours, dense)
    for one, other in zip(
        torch.autograd.grad((ours * towards).sum(), wanted),
        torch.autograd.grad((dense * towards).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_weights_sum_to_one_over_what_a_node_hears_whatever_the_logits(rng):
    graph, _ = some_graph(rng)
    layer = GraphAttention(DIM, HEADS, 0.0)
    for scale in (1, 1e4):
        weights = layer.weights(torch.randn(20, DIM) * scale, graph)
        sums = torch.zeros(20, HEADS).index_add(0, graph.targets, weights)
        torch.testing.assert_close(sums, torch.ones(20, HEADS))


def test_who_hears_only_itself_depends_on_itself_alone(rng):
    alone = Neighbourhood(sparse.csr_array((20, 20)))
    stack, nodes = AttentionStack(DIM, 2, HEADS, 0.1), torch.randn(20, DIM)
    before = stack(nodes, alone, None)
    nodes[3] += 1
    changed = (stack(nodes, alone, None) != before).any(1)
    assert changed.tolist() == [row == 3 for row in range(20)]


def test_dropout_is_drawn_from_the_generator_and_absent_without_one(rng):
    graph, _ = some_graph(rng)
    stack, nodes = AttentionStack(DIM, 1, HEADS, 0.5), torch.randn(20, DIM)
    first, again = (stack(nodes, graph, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, stack(nodes, graph, None))
    assert torch.equal(stack(nodes, graph, None), stack(nodes, graph, None))


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 25), st.integers(1, 12), st.integers(1, 6))
def test_users_with_items_in_common_are_found_as_by_dense_cosines(seed, n_users, n_items, k):
    rng = np.random.default_rng(seed)
    taken = rng.random((n_users, n_items)) < 0.3
    train = InteractionMatrix.from_pairs(*np.nonzero(taken), None, n_users=n_users, n_items=n_items)
    found = co_interaction_neighbours(train, k)
    rows = taken / np.sqrt(np.maximum(taken.sum(1, keepdims=True), 1))
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, 0)
    for user in range(n_users):
        neighbours = [other for other in found.indices[user].tolist() if other >= 0]
        assert len(set(neighbours)) == len(neighbours) == min(k, np.count_nonzero(cosines[user]))
        best = -np.sort(-cosines[user])[: len(neighbours)]
        np.testing.assert_allclose(cosines[user][neighbours], best, atol=1e-6)
        np.testing.assert_allclose(found.cosines[user][: len(neighbours)], best, atol=1e-6)
