"""Posterior means of trained and untrained models, whatever they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rec_models.analysis import posterior_means
from rec_models.errors import NoLatentError
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.semantic import ModelInputs, SemanticMatrix
from rec_models.settings import parse_config

N_USERS, N_ITEMS, DIM = 1100, 9, 5  # more users than are looked at in one go


def inputs(seed: int = 0) -> ModelInputs:
    rng = np.random.default_rng(seed)
    train = InteractionMatrix.from_pairs(
        np.repeat(np.arange(N_USERS), 3), rng.integers(0, N_ITEMS, 3 * N_USERS), None, n_users=N_USERS, n_items=N_ITEMS
    )
    semantic = {
        name: SemanticMatrix(
            torch.from_numpy(rng.normal(size=(n, DIM)).astype(np.float32)), torch.ones(n, dtype=torch.bool)
        )
        for name, n in (("items", N_ITEMS), ("users", N_USERS))
    }
    return ModelInputs(train, semantic, seed)


def means_of(mapping: dict) -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    given = inputs()
    return posterior_means(parse_config(mapping).build(given), ResidentInteractions(given.train), mapping["name"])


@pytest.mark.parametrize("norm", ["none", "l2"])
def test_an_aligned_model_tells_its_three_posteriors_and_a_base_its_one(norm):
    base = {"name": "mult_vae", "latent_dim": 4, "hidden_dim": 6, "input_norm": norm}
    alone = means_of(base)
    assert alone.keys() == {"decoded"} and alone["decoded"].shape == (N_USERS, 4)
    aligned = means_of({"name": "dmrec", "base": base, "fuse": "add"})
    assert aligned.keys() == {"decoded", "source", "language"}
    assert aligned["decoded"] == pytest.approx(aligned["source"] + aligned["language"], abs=1e-5)
    assert aligned["source"] == pytest.approx(alone["decoded"], abs=1e-6)  # same seed, same first weights


def test_a_model_without_a_latent_is_refused_by_name():
    with pytest.raises(NoLatentError, match="popularity has no latent"):
        means_of({"name": "popularity"})
