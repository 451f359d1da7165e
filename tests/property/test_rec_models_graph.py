"""Laws of graphs and of learning from pairs: every one against a dense or naive reference."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_models import interactions, losses
from rec_models.graph import adjacency, kept_edges, scaled, smoothed
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.losses import bpr, chosen_products, info_nce, sampled_softmax
from rec_models.models import LightGCNConfig
from rec_models.semantic import ModelInputs

QUICK = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def world(seed, most=12):
    """A random matrix; some users and items have nothing, some users everything."""
    rng = np.random.default_rng(seed)
    print("seed", seed)
    n_users, n_items = (int(size) for size in rng.integers(2, most, 2))
    taken = rng.random((n_users, n_items)) < rng.random((n_users, 1))
    taken[0, 0] = True
    users, items = np.nonzero(taken)
    return InteractionMatrix.from_pairs(users, items, None, n_users=n_users, n_items=n_items), taken, rng


def dense_adjacency(taken):
    n_users, n_items = taken.shape
    square = np.zeros((n_users + n_items, n_users + n_items))
    square[:n_users, n_users:] = taken
    square[n_users:, :n_users] = taken.T
    degree = square.sum(1)
    scale = np.divide(1, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    return torch.from_numpy(scale[:, None] * square * scale)


@QUICK
@given(seeds, st.integers(0, 4))
def test_propagation_equals_powers_of_the_dense_adjacency(seed, layers):
    train, taken, rng = world(seed)
    graph, dense = adjacency(train).double(), dense_adjacency(taken)
    table = torch.from_numpy(rng.standard_normal((sum(train.shape), 5)))
    expected = sum(torch.matrix_power(dense, k) @ table for k in range(layers + 1))
    found = smoothed(graph, table, layers, "sum")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(smoothed(graph, table, layers, "mean") * (layers + 1), expected, rtol=1e-6, atol=1e-6)


@QUICK
@given(seeds, st.booleans(), st.booleans())
def test_the_gradient_is_the_transposed_product_even_where_edges_are_dropped(seed, symmetric, rescale):
    train, _, rng = world(seed)
    graph = adjacency(train).double()
    entries = kept_edges(graph, 0.6, torch.Generator().manual_seed(seed), symmetric=symmetric, rescale=rescale)
    nodes = sum(train.shape)
    dense = graph(torch.eye(nodes, dtype=torch.float64), entries)
    if symmetric:
        assert torch.equal(dense, dense.t())
    whole = graph(torch.eye(nodes, dtype=torch.float64))
    assert torch.equal(dense[dense != 0], (whole / 0.6 if rescale else whole)[dense != 0])
    table = torch.from_numpy(rng.standard_normal((nodes, 3))).requires_grad_()
    pull = torch.from_numpy(rng.standard_normal((nodes, 3)))
    (graph(table, entries) * pull).sum().backward()
    torch.testing.assert_close(table.grad, dense.t() @ pull, rtol=1e-9, atol=1e-9)


@QUICK
@given(seeds, st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0]))
def test_scaled_products_divide_by_powers_of_the_degrees(seed, row_power, column_power):
    train, taken, rng = world(seed)
    to_users, to_items = (matrix.double() for matrix in scaled(train, row_power=row_power, column_power=column_power))
    of_users, of_items = taken.sum(1).clip(1), taken.sum(0).clip(1)
    items, users = rng.standard_normal((train.n_items, 2)), rng.standard_normal((train.n_users, 2))
    expected = (taken / of_users[:, None] ** row_power / of_items**column_power) @ items
    np.testing.assert_allclose(to_users(torch.from_numpy(items)), expected, rtol=1e-6, atol=1e-6)
    expected = (taken.T / of_items[:, None] ** row_power / of_users**column_power) @ users
    np.testing.assert_allclose(to_items(torch.from_numpy(users)), expected, rtol=1e-6, atol=1e-6)


@QUICK
@given(seeds)
def test_sampled_negatives_never_are_positives(seed):
    train, taken, _ = world(seed)
    history = ResidentInteractions(train)
    batch = history.pairs(history.paired)
    assert {(int(u), int(i)) for u, i in zip(batch.users, batch.items, strict=True)} == {
        (u, i) for u, i in zip(*np.nonzero(taken), strict=True) if not taken[u].all()
    }
    drawn = batch.negatives(torch.Generator().manual_seed(seed), 30).numpy()
    assert ((drawn >= 0) & (drawn < train.n_items)).all()
    assert not taken[batch.users.numpy()[:, None], drawn].any()


def test_every_untouched_item_is_drawn_equally_often():
    train = InteractionMatrix.from_pairs([0, 0, 0, 1], [0, 3, 6, 5], None, n_users=2, n_items=7)
    drawn = ResidentInteractions(train).untouched(torch.tensor([0, 1]), 60_000, torch.Generator().manual_seed(1))
    for row, free in zip(drawn, ([1, 2, 4, 5], [0, 1, 2, 3, 4, 6]), strict=True):
        share = torch.bincount(row, minlength=7)[free] / 60_000
        torch.testing.assert_close(share, torch.full((len(free),), 1 / len(free)), atol=0.01, rtol=0)


@QUICK
@given(seeds)
def test_bpr_equals_a_naive_loop(seed):
    rng = np.random.default_rng(seed)
    print("seed", seed)
    positive, negative = rng.normal(0, 3, (2, 9))
    expected = [-np.log(1 / (1 + np.exp(-(p - n)))) for p, n in zip(positive, negative, strict=True)]
    np.testing.assert_allclose(bpr(torch.from_numpy(positive), torch.from_numpy(negative)), expected, rtol=1e-9)


@QUICK
@given(seeds, st.sampled_from([0.1, 0.2, 1.0]))
def test_info_nce_equals_a_naive_loop_and_counts_stand_for_repetitions(seed, temperature):
    rng = np.random.default_rng(seed)
    print("seed", seed)
    anchors, targets, pool = (torch.from_numpy(rng.standard_normal((n, 4))) for n in (3, 3, 5))
    counts = torch.from_numpy(rng.integers(1, 4, 5))

    def cosine(a, b):
        return float(a @ b / a.norm() / b.norm())

    expected = []
    for anchor, target in zip(anchors, targets, strict=True):
        mass = sum(int(n) * np.exp(cosine(anchor, k) / temperature) for k, n in zip(pool, counts, strict=True))
        expected.append(-cosine(anchor, target) / temperature + np.log(mass))
    weights = torch.from_numpy(rng.integers(0, 4, 3))
    found = info_nce(anchors, targets, pool, temperature, weights=weights, counts=counts)
    np.testing.assert_allclose(found, weights.numpy() @ expected, rtol=1e-5, atol=1e-5)
    anchors, targets = (rows.repeat_interleave(weights, 0) for rows in (anchors, targets))
    repeated = info_nce(anchors, targets, pool.repeat_interleave(counts, 0), temperature)
    torch.testing.assert_close(found, repeated, rtol=1e-9, atol=1e-9)


def test_the_gradient_of_info_nce_is_the_derivative_even_across_slices():
    rng = torch.Generator().manual_seed(3)
    anchors, targets, pool = (
        torch.randn(n, 3, generator=rng, dtype=torch.float64, requires_grad=True) for n in (70, 70, 5)
    )
    weights, counts = torch.arange(70) % 3, torch.tensor([1, 2, 3, 1, 1])

    def loss(anchors, targets, pool):
        return info_nce(anchors, targets, pool, 0.4, weights=weights, counts=counts)

    assert torch.autograd.gradcheck(loss, (anchors, targets, pool))


def test_info_nce_over_nobody_is_zero():
    nobody = torch.zeros(0, 3, requires_grad=True)
    loss = info_nce(nobody, nobody, nobody, 0.2)
    loss.backward()
    assert float(loss.detach()) == 0


def test_info_nce_of_an_even_pool_is_the_logarithm_of_its_size():
    same = torch.ones(6, 3, dtype=torch.float64)
    assert float(info_nce(same, same, same, 0.2)) == pytest.approx(6 * np.log(6))


def test_sampled_softmax_of_equal_logits_is_the_logarithm_of_their_number():
    logits = torch.zeros(2, 256)
    torch.testing.assert_close(sampled_softmax(logits[:, 0], logits), torch.full((2,), float(np.log(257))))


@QUICK
@given(seeds)
def test_renaming_items_renames_the_scores(seed):
    train, taken, rng = world(seed)
    order = rng.permutation(train.n_items)
    users, items = np.nonzero(taken[:, order])
    renamed = InteractionMatrix.from_pairs(users, items, None, n_users=train.n_users, n_items=train.n_items)
    first, second = (LightGCNConfig(dim=4).build(ModelInputs(m, {}, 0)).eval() for m in (train, renamed))
    state = first.state_dict()
    second.load_state_dict(state | {"item_table": state["item_table"][order]})
    everyone = np.arange(train.n_users)
    straight = first.scores(ResidentInteractions(train).batch(everyone))
    torch.testing.assert_close(
        second.scores(ResidentInteractions(renamed).batch(everyone)), straight[:, order], atol=1e-6, rtol=1e-5
    )


def test_a_validation_pass_walks_the_graph_once_and_sees_every_new_weight(monkeypatch):
    train, _, _ = world(7)
    model = LightGCNConfig(dim=4).build(ModelInputs(train, {}, 0)).eval()
    walks = []
    vectors = model.vectors
    monkeypatch.setattr(model, "vectors", lambda: walks.append(1) or vectors())
    batch = ResidentInteractions(train).batch(np.arange(train.n_users))
    before = model.scores(batch)
    for _ in range(3):
        assert torch.equal(model.scores(batch), before)
    assert len(walks) == 1
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    model.smooth(model.first_layer())[0].square().sum().backward()
    optimiser.step()
    assert not torch.equal(model.eval().scores(batch), before)
    model.load_state_dict({name: weight + 1 for name, weight in model.state_dict().items()})
    model.scores(batch)
    assert len(walks) == 3


@pytest.mark.parametrize("batch_pairs", [1, 7, 1000])
def test_an_epoch_is_every_interaction_once(batch_pairs):
    train, taken, _ = world(11)
    model = LightGCNConfig(dim=4, batch_pairs=batch_pairs).build(ModelInputs(train, {}, 0))
    batches = list(model.batches(ResidentInteractions(train), np.random.default_rng(3), 5))
    seen = sorted((int(u), int(i)) for batch in batches for u, i in zip(batch.users, batch.items, strict=True))
    assert seen == sorted((u, i) for u, i in zip(*np.nonzero(taken), strict=True) if not taken[u].all())
    assert max(len(batch) for batch in batches) <= batch_pairs


@pytest.mark.parametrize("cells", [0, 10**9], ids=["chosen entries alone", "whole product"])
@QUICK
@given(seeds)
def test_chosen_products_and_their_gradients_are_those_of_the_whole_product(cells, seed):
    print("seed", seed)
    rng = np.random.default_rng(seed)
    n_rows, n_others, pairs, k = (int(size) for size in rng.integers(1, 9, 4))
    table, others = (torch.from_numpy(rng.standard_normal((n, 5))).requires_grad_() for n in (n_rows, n_others))
    rows = torch.from_numpy(rng.integers(0, n_rows, pairs))
    columns = torch.from_numpy(rng.integers(0, n_others, (pairs, k)))  # some twice, some never
    pull = torch.from_numpy(rng.standard_normal((pairs, k)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "_CELLS_A_CHOICE", cells)
        found = chosen_products(table, rows, others, columns)
    expected = (table[rows] @ others.t()).gather(1, columns)
    torch.testing.assert_close(found, expected)
    of_found, of_expected = (torch.autograd.grad((each * pull).sum(), (table, others)) for each in (found, expected))
    torch.testing.assert_close(of_found, of_expected)


@QUICK
@given(seeds)
def test_negatives_are_the_same_whether_what_is_left_is_listed_or_searched_for(seed):
    train, _, _ = world(seed)
    drawn = []
    for most in (0, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(interactions, "_CELLS_LISTED", most)
            history = ResidentInteractions(train)
            batch = history.pairs(history.paired)
            drawn.append(batch.negatives(torch.Generator().manual_seed(seed), 20))
    assert torch.equal(*drawn)
    assert drawn[0].dtype == torch.int64
