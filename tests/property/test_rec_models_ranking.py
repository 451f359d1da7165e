"""Ranking and metrics against a slow per-user reference, and the laws a protocol must obey."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_models import metrics
from rec_models.evaluation import EvaluationConfig, evaluate, first_k, recommend
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.recommender import Recommender


class Fixed(Recommender):
    """Scores handed in by the test."""

    def __init__(self, table):
        super().__init__()
        self.table = torch.as_tensor(table, dtype=torch.float32)

    def scores(self, batch):
        return self.table[batch.users].clone()


def matrix(pairs, n_users, n_items):
    users, items = zip(*pairs, strict=True) if pairs else ((), ())
    return InteractionMatrix.from_pairs(users, items, None, n_users=n_users, n_items=n_items)


@st.composite
def worlds(draw):
    n_users, n_items = draw(st.integers(1, 6)), draw(st.integers(4, 12))
    cells = st.sets(st.tuples(st.integers(0, n_users - 1), st.integers(0, n_items - 1)), max_size=20)
    train, test = draw(cells), draw(cells)
    test = test - train or {(0, 0)}
    train = train - test
    scores = draw(
        st.lists(st.sampled_from([-1.5, -1.0, 0.0, 0.5, 2.0]), min_size=n_users * n_items, max_size=n_users * n_items)
    )
    table = np.array(scores, np.float32).reshape(n_users, n_items)
    return table, matrix(sorted(train), n_users, n_items), matrix(sorted(test), n_users, n_items)


def slow_ranking(scores, masked):
    """Candidates by falling score, equal scores by index."""
    return sorted((i for i in range(len(scores)) if i not in masked), key=lambda i: (-scores[i], i))


@settings(max_examples=60, deadline=None)
@given(worlds(), st.integers(1, 5))
def test_evaluation_equals_the_per_user_reference(world, k):
    table, train, test = world
    config = EvaluationConfig(
        ks=(k,), names=("recall", "ndcg", "mrr", "hit", "truncated_recall"), select_by=f"recall@{k}"
    )
    found = evaluate(Fixed(table), ResidentInteractions(train), test, config, part="test")
    for position, user in enumerate(found.users):
        seen = set(train.indices[train.indptr[user] : train.indptr[user + 1]].tolist())
        wanted = set(test.indices[test.indptr[user] : test.indptr[user + 1]].tolist())
        ranked = slow_ranking(table[user], seen)[:k]
        gains = [1 / math.log2(rank + 2) for rank, item in enumerate(ranked) if item in wanted]
        ideal = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(wanted))))
        first = next((1 / (rank + 1) for rank, item in enumerate(ranked) if item in wanted), 0.0)
        expected = {
            "recall": len(gains) / len(wanted),
            "ndcg": sum(gains) / ideal,
            "mrr": first,
            "hit": float(bool(gains)),
        }
        expected["truncated_recall"] = len(gains) / min(k, len(wanted))
        for name, value in expected.items():
            assert found.values[f"{name}@{k}"][position] == pytest.approx(value), name


@settings(max_examples=60, deadline=None)
@given(worlds(), st.integers(1, 5))
def test_novelty_coverage_and_gini_equal_what_a_reader_of_the_lists_would_count(world, k):
    table, train, test = world
    config = EvaluationConfig(ks=(k,), names=("novelty", "coverage", "gini"), select_by=f"recall@{k}")
    found = evaluate(Fixed(table), ResidentInteractions(train), test, config, part="test")
    owners, shown = train.item_counts(), np.zeros(train.n_items)
    learnt_from = max(1, len(train.active()))
    for position, user in enumerate(found.users):
        seen = set(train.indices[train.indptr[user] : train.indptr[user + 1]].tolist())
        listed = slow_ranking(table[user], seen)[:k]
        bits = [-math.log2(max(owners[item], 1) / learnt_from) for item in listed]
        assert found.values[f"novelty@{k}"][position] == pytest.approx(sum(bits) / max(len(bits), 1), abs=1e-6)
        shown[listed] += 1
    # the mean absolute difference of all pairs, over twice the mean: Gini's own definition
    apart = np.abs(shown[:, None] - shown[None, :]).mean()
    gini = apart / (2 * shown.mean()) if shown.any() else 0.0
    covered = float((shown > 0).mean())
    assert found.catalogue == {f"coverage@{k}": pytest.approx(covered), f"gini@{k}": pytest.approx(gini)}
    assert found.means() | found.catalogue == found.means() and found.coverage == {k: pytest.approx(covered)}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(2, 5))
def test_gini_lies_in_its_bounds_ignores_scale_and_falls_when_the_rich_give_to_the_poor(counts, factor):
    exposure = np.array(counts)
    before = metrics.gini(exposure, 10)
    assert -1e-12 <= before <= 1 - 1 / len(exposure) + 1e-12
    assert metrics.gini(exposure * factor, 10) == pytest.approx(before)
    assert metrics.gini(np.full(len(exposure), 3), 10) == pytest.approx(0)
    poor, rich = exposure.argmin(), exposure.argmax()
    if exposure[rich] - exposure[poor] >= 2:
        exposure[rich] -= 1
        exposure[poor] += 1
        assert metrics.gini(exposure, 10) < before


def test_weights_are_never_selected_by_novelty_or_evenness():
    for name in ("novelty@10", "gini@10", "coverage@10", "recall", "recall@0"):
        with pytest.raises(ValueError, match="metrics to select by: hit, mrr, ndcg, recall, truncated_recall"):
            EvaluationConfig(select_by=name)


@settings(max_examples=60, deadline=None)
@given(worlds(), st.integers(1, 5))
def test_first_k_breaks_ties_by_the_lower_index(world, k):
    table, _, _ = world
    _, items = first_k(torch.from_numpy(table), k)
    for row, chosen in zip(table, items.tolist(), strict=True):
        assert chosen == slow_ranking(row, set())[:k]


@settings(max_examples=40, deadline=None)
@given(worlds())
def test_nothing_a_user_already_has_is_recommended(world):
    table, train, _ = world
    history = ResidentInteractions(train)
    items, scores = recommend(Fixed(table), history, history, 20)
    for user in range(train.n_users):
        seen = set(train.indices[train.indptr[user] : train.indptr[user + 1]].tolist())
        given_items = [item for item in items[user].tolist() if item >= 0]
        assert not seen & set(given_items)
        assert len(given_items) == train.n_items - len(seen)
        assert np.isfinite(scores[user, : len(given_items)]).all()


@settings(max_examples=40, deadline=None)
@given(worlds(), st.randoms(use_true_random=False))
def test_relabelling_items_leaves_metrics_alone(world, random):
    table, train, test = world
    table = (
        table + np.arange(table.size, dtype=np.float32).reshape(table.shape) / 1000
    )  # no ties: they follow the index
    order = list(range(train.n_items))
    random.shuffle(order)
    renamed = np.empty_like(table)
    renamed[:, order] = table
    config = EvaluationConfig(ks=(3,), select_by="recall@3")

    def relabelled(part):
        users = np.repeat(np.arange(part.n_users), part.lengths())
        items = np.array(order)[part.indices]
        return InteractionMatrix.from_pairs(users, items, None, n_users=part.n_users, n_items=part.n_items)

    before = evaluate(Fixed(table), ResidentInteractions(train), test, config, part="test")
    after = evaluate(Fixed(renamed), ResidentInteractions(relabelled(train)), relabelled(test), config, part="test")
    assert before.means() == pytest.approx(after.means())


def test_a_perfect_ranker_has_ndcg_one_and_the_recall_its_list_allows():
    hits = np.zeros((1, 20), bool)
    hits[0, :20] = True
    relevant = np.array([30])
    assert metrics.ndcg(hits, relevant, 20)[0] == pytest.approx(1)
    assert metrics.recall(hits, relevant, 20)[0] == 20 / 30
    assert metrics.truncated_recall(hits, relevant, 20)[0] == 1


def test_a_single_hit_at_rank_three_has_ndcg_one_over_log2_of_four():
    hits = np.array([[False, False, True]])
    assert metrics.ndcg(hits, np.array([1]), 3)[0] == pytest.approx(1 / math.log2(4))


def test_reciprocal_rank_counts_only_the_first_hit():
    assert metrics.mrr(np.array([[False, True, True]]), np.array([2]), 3)[0] == 1 / 2
