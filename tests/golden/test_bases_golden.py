"""Frozen numbers of every base, alone and inside DMRec and PIA, and of the plain baselines, on a tiny seeded set.

Provenance: these models at the commit that added this file, torch 2.13 on a CPU, one thread. They are no reference
of anybody else's: they say that a change moved a number, and whoever moved it says why in the changelog.
"""

import numpy as np
import pytest
import torch
from servers.tastes import learnt, recall_at_10, split_likes

from rec_models.interactions import ResidentInteractions
from rec_models.models import (
    CDAEConfig,
    CVGAConfig,
    DMRecConfig,
    EASEConfig,
    ItemKNNConfig,
    LDiffRecConfig,
    MultVAEConfig,
    PIAConfig,
    PLRecConfig,
    RecVAEConfig,
    SLIMConfig,
    WMFConfig,
)
from rec_models.semantic import ModelInputs, SemanticMatrix, pooled_users

SEED, N_USERS, N_ITEMS = 2024, 60, 40
LEARNING = {"seed": SEED, "steps": 60, "rate": 5e-3}
BASES = {
    "mult_vae": MultVAEConfig(hidden_dim=24, latent_dim=8),
    "cvga": CVGAConfig(latent_dim=8, kl_weight=0.2),
    "l_diffrec": LDiffRecConfig(
        clusters=2, latent_dim=8, denoiser_hidden_dim=16, learning_rate=None, denoiser_learning_rate=None
    ),
    "rec_vae": RecVAEConfig(hidden_dim=24, hidden_layers=3, latent_dim=8, learning_rate=None),
}
WRAPPED = {
    "pia on mult_vae": PIAConfig(base=BASES["mult_vae"]),
    "pia on rec_vae, tied": PIAConfig(base=BASES["rec_vae"], anchors="text_tied"),
    "mult_vae, deeper with a flow": MultVAEConfig(hidden_dim=24, latent_dim=8, encoder_layers=2, flow_layers=2),
    "cdae": CDAEConfig(hidden_dim=24),
    "cdae, logistic": CDAEConfig(hidden_dim=24, loss="logistic"),
}
CLOSED = {
    "ease": EASEConfig(regularization=5.0),
    "ease with text": EASEConfig(regularization=5.0, text_weight=1.0),
    "slim": SLIMConfig(k=20, l1=0.2, l2=3.0),
    "item_knn": ItemKNNConfig(k=10, shrinkage=2.0),
    "wmf": WMFConfig(dim=4, confidence=5.0, ridge=3.0),
    "mf": WMFConfig(dim=4, confidence=0.0, ridge=1.0),
    "pl_rec": PLRecConfig(dim=4, ridge=3.0),
}
# name -> (reconstruction in nats a user, Recall@10 on the held-out items)
GOLDEN = {
    "mult_vae": (23.0536, 0.7179),
    "dmrec on mult_vae": (21.1961, 0.7963),
    "cvga": (25.0550, 0.4400),
    "dmrec on cvga": (19.9879, 0.7809),
    "l_diffrec": (25.2021, 0.4183),
    "dmrec on l_diffrec": (25.0705, 0.4344),
    "rec_vae": (20.2133, 0.7773),
    "dmrec on rec_vae": (19.6094, 0.8125),
    "pia on mult_vae": (23.1802, 0.7117),
    "pia on rec_vae, tied": (21.3259, 0.7688),
    "mult_vae, deeper with a flow": (23.6967, 0.6564),
    "cdae": (18.6352, 0.7966),
    "cdae, logistic": (11.8602, 0.7251),
    "ease": (0.2728, 0.7612),
    "ease with text": (0.2850, 0.7951),
    "slim": (0.2697, 0.7299),
    "item_knn": (1.0326, 0.7813),
    "wmf": (0.4621, 0.8009),
    "mf": (0.2642, 0.8240),
    "pl_rec": (0.2654, 0.8281),
}


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(SEED)
    kind, train, test = split_likes(rng, N_USERS, N_ITEMS)
    vectors = torch.from_numpy(kind.astype(np.float32))
    items = SemanticMatrix(vectors, torch.ones(N_ITEMS, dtype=torch.bool))
    clusters = torch.from_numpy((kind[:, 0] > 0).astype(np.int64))
    return ModelInputs(train, {"items": items, "users": pooled_users(items, train)}, SEED, clusters), test


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "dmrec"])
@pytest.mark.parametrize("base", BASES)
def test_numbers_of_the_bases_stay_where_they_are(base, inside, world):
    print(f"seed {SEED}")
    config = DMRecConfig(base=BASES[base]) if inside else BASES[base]
    reconstruction, recall = learnt(config, *world, **LEARNING)
    name = f"dmrec on {base}" if inside else base
    print(f'    "{name}": ({reconstruction:.4f}, {recall:.4f}),')
    assert reconstruction == pytest.approx(GOLDEN[name][0], rel=1e-3)
    assert recall == pytest.approx(GOLDEN[name][1], abs=0.01)  # a tie or two may fall the other way


@pytest.mark.parametrize("name", WRAPPED)
def test_numbers_of_what_wraps_or_varies_a_base_stay_where_they_are(name, world):
    print(f"seed {SEED}")
    reconstruction, recall = learnt(WRAPPED[name], *world, **LEARNING)
    print(f'    "{name}": ({reconstruction:.4f}, {recall:.4f}),')
    assert reconstruction == pytest.approx(GOLDEN[name][0], rel=1e-3)
    assert recall == pytest.approx(GOLDEN[name][1], abs=0.01)


@pytest.mark.parametrize("name", CLOSED)
def test_numbers_of_models_solved_once_stay_where_they_are(name, world):
    """(root mean square of all scores, Recall@10)."""
    print(f"seed {SEED}")
    inputs, test = world
    model, history = CLOSED[name].build(inputs), ResidentInteractions(inputs.train)
    model.fit(inputs.train)
    size = model.eval().scores(history.batch(np.arange(N_USERS))).square().mean().sqrt().item()
    recall = recall_at_10(model, history, test)
    print(f'    "{name}": ({size:.4f}, {recall:.4f}),')
    assert size == pytest.approx(GOLDEN[name][0], rel=2e-3)
    assert recall == pytest.approx(GOLDEN[name][1], abs=0.01)
