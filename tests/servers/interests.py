"""Small worlds for models with interest factors: users, items and words by chance, and planted in blocks."""

import numpy as np
import torch

from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.models import BANDVAEConfig
from rec_models.semantic import ModelInputs, SemanticMatrix
from rec_models.text_features import TextFeatures

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
