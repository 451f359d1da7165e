"""CVGA's graph step, clusters of items, and optimisers in groups."""

import numpy as np
import pytest
import torch

from rec_models.clusters import item_clusters
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.models import CVGAConfig
from rec_models.semantic import ModelInputs

# user 0 has items 0 and 1, user 1 item 1, user 2 nothing; nobody has item 2
PAIRS = InteractionMatrix.from_pairs([0, 0, 1], [0, 1, 1], None, n_users=3, n_items=3)


def everybody(matrix=PAIRS):
    return ResidentInteractions(matrix).batch(np.arange(matrix.n_users))


def built(**options):
    torch.manual_seed(0)
    return CVGAConfig(latent_dim=4, **options).build(ModelInputs(PAIRS, {}, 0))


def test_the_encoder_is_one_step_over_the_degree_normalised_graph():
    model = built()
    graph = torch.tensor([[1 / np.sqrt(2 * 1), 1 / np.sqrt(2 * 2), 0], [0, 1 / np.sqrt(1 * 2), 0], [0, 0, 0]])
    moments = graph.float() @ model.encoder.weight + model.encoder.bias
    posterior = model.encode(everybody(), None).posterior
    torch.testing.assert_close(torch.cat([posterior.mean, posterior.log_variance], 1), moments)


def test_training_drops_moments_after_the_step_and_entries_for_whoever_reads_beside():
    model = built(dropout=0.5)
    clean = model.encode(everybody(), None).posterior
    posterior, rows = model.encode(everybody(), torch.Generator().manual_seed(0))
    kept = posterior.mean != 0
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(posterior.mean[kept], 2 * clean.mean[kept])
    assert set(rows.values.tolist()) <= {0.0, 2.0}


def test_an_item_without_users_counts_for_nothing():
    both = InteractionMatrix.from_pairs([0, 0], [0, 2], None, n_users=1, n_items=3)
    model = built()
    unseen, seen = model.propagated(everybody(both)).values.tolist()[::-1]
    assert unseen == 0
    assert seen == pytest.approx(1 / np.sqrt(2))


@pytest.mark.parametrize(("weight", "expected"), [("1/B", 1 / 512), (0.1, 0.1)])
def test_the_kl_weighs_one_over_the_batch_unless_it_is_given(weight, expected):
    assert built(kl_weight=weight).divergence_weight(0, 512) == pytest.approx(expected)
    assert built(kl_weight=weight, kl_anneal_steps=10).divergence_weight(5, 512) == pytest.approx(expected / 2)


def test_ranking_a_draw_is_an_option_and_repeats_itself():
    sampled = built(eval_sample=True).eval()
    assert torch.equal(sampled.scores(everybody()), sampled.scores(everybody()))
    assert not torch.equal(sampled.scores(everybody()), built().eval().scores(everybody()))


def test_one_adam_over_two_groups_is_two_adams_in_turn():
    def descended(optimisers_of):
        torch.manual_seed(0)
        layers = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)
        optimisers = optimisers_of(*(list(layer.parameters()) for layer in layers))
        for _ in range(10):
            for optimiser in optimisers:
                optimiser.zero_grad()
            layers[1](layers[0](torch.ones(5, 3))).square().sum().backward()
            for optimiser in optimisers:
                optimiser.step()
        return [weight for layer in layers for weight in layer.parameters()]

    adam = torch.optim.Adam
    together = descended(lambda a, b: [adam([{"params": a, "lr": 5e-4}, {"params": b, "lr": 1e-4}], fused=True)])
    apart = descended(lambda a, b: [adam(a, lr=5e-4, fused=True), adam(b, lr=1e-4, fused=True)])
    assert all(torch.equal(*pair) for pair in zip(together, apart, strict=True))


def test_clouds_of_vectors_are_found_whatever_the_seed_and_numbered_by_size():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [50, 30, 10])
    vectors = (rng.normal(0, 0.1, (90, 4)) + np.eye(4)[truth] * 5).astype(np.float32)
    shuffled = rng.permutation(90)
    for seed in range(3):
        found = item_clusters(vectors[shuffled], 3, seed=seed)
        assert found.dtype == np.int64
        assert found.tolist() == truth[shuffled].tolist()


def test_clusters_of_one_seed_are_the_same_and_none_is_empty():
    vectors = np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)
    first, second = (item_clusters(vectors, 4, seed=5) for _ in range(2))
    assert first.tolist() == second.tolist()
    assert np.bincount(first).min() > 0
    assert item_clusters(vectors, 1, seed=0).tolist() == [0] * 200


def test_more_clusters_than_different_vectors_are_refused():
    with pytest.raises(ValueError, match="3 clusters asked of 2 different"):
        item_clusters(np.eye(2, dtype=np.float32)[[0, 1, 1]], 3, seed=0)
