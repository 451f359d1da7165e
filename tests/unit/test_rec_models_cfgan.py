"""CFGAN: on ones what was not taken is drawn to 0, on ratings what was not rated is left alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.models import CFGANConfig
from rec_models.semantic import ModelInputs

N_USERS, N_ITEMS = 9, 12


def rated():
    print("seed 5")
    rng = np.random.default_rng(5)
    users, items = np.nonzero(rng.random((N_USERS, N_ITEMS)) < 0.4)
    ratings = rng.integers(1, 6, len(users))
    return InteractionMatrix.from_pairs(users, items, ratings, n_users=N_USERS, n_items=N_ITEMS)


def built(matrix, **options):
    torch.manual_seed(0)
    return CFGANConfig(hidden_dims=(6,), critic_hidden_dims=(5,), **options).build(ModelInputs(matrix, {}, 0))


@pytest.mark.parametrize("ratings", [True, False])
def test_only_rows_of_ones_hold_other_items_to_zero(ratings):
    matrix = rated() if ratings else rated().as_ones()
    model = built(matrix, ratings=ratings)
    batch = replace(ResidentInteractions(matrix).batch(np.arange(N_USERS)), turn="generator")
    unrated = torch.ones(N_USERS, N_ITEMS, dtype=torch.bool)
    unrated[batch.rows, batch.items] = False
    made = []

    def keep(_module, _given, out):
        out.retain_grad()
        made.append(out)

    model.generator.register_forward_hook(keep)
    torch.stack(list(model.loss(batch, torch.Generator().manual_seed(0), 0).values())).sum().backward()
    assert made[0].grad[unrated].any() != ratings and made[0].grad[~unrated].all()


def test_on_ratings_the_output_begins_near_the_items_means():
    matrix = rated()
    batch = ResidentInteractions(matrix).batch(np.arange(N_USERS))
    with torch.no_grad():
        near, far = (built(matrix, output_start=start).eval().scores(batch) for start in ("item_means", "random"))
    means = torch.from_numpy(matrix.damped_item_means(10.0))
    assert (near - means).abs().max() < 0.7 < (far - means).abs().max()


def test_a_share_that_is_named_is_taken():
    matrix = rated()
    batch = replace(ResidentInteractions(matrix).batch(np.arange(N_USERS)), turn="critic")
    losses = [
        float(built(matrix, **options).loss(batch, torch.Generator().manual_seed(0), 0)["critic"].detach())
        for options in ({}, {"masked_share": 0.0}, {"masked_share": 0.9})
    ]
    assert losses[0] == losses[1] != losses[2]
