"""Frozen numbers of the models on the graph: a change here is a change of results.

Provenance: this code with torch 2.13.0 on a CPU (x86-64, float32), ten Adam steps at 1e-2 on the seeded world below.
Print new ones with `python -m tests.golden.test_rec_models_golden` and say in the changelog why they moved.
"""

import numpy as np
import pytest
import torch

from rec_models import InteractionMatrix, parse_config
from rec_models.interactions import ResidentInteractions
from rec_models.semantic import ModelInputs, SemanticMatrix

N_USERS, N_ITEMS, DIM = 30, 40, 16
# name[@profile=...] -> (sum of the loss terms at the tenth step, score of user 0 for item 0, rms of all scores)
FROZEN = {
    "lightgcn": (0.203927, 0.288186, 1.768150),
    "rlmrec_c": (0.270768, 0.350986, 1.752411),
    "rlmrec_g": (0.486168, -0.117452, 0.917022),
    "kar": (0.159705, 3.427129, 10.662645),
    "llmrec": (1.380952, -5.994502, 3.995399),
    "alpharec": (2.402596, -0.329567, 0.425752),
    "alpharec_star": (2.158088, -0.237336, 0.439498),
    "vbpr": (0.110969, -3.052624, 2.434459),
    "freedom": (0.478614, -0.262271, 0.346811),
    "bm3": (3.305142, 2.261345, 2.113590),
    "recgoat": (1.600336, -78.664063, 82.278877),
    "recgoat@profile=official_code": (0.662504, -0.076747, 0.215550),
}


def world():
    rng = np.random.default_rng(20)
    tastes, topics = rng.standard_normal((N_USERS, 4)), rng.standard_normal((N_ITEMS, 4))
    users, items = np.nonzero(tastes @ topics.T > 2.0)
    train = InteractionMatrix.from_pairs(users, items, None, n_users=N_USERS, n_items=N_ITEMS)
    lift = rng.standard_normal((4, DIM))
    present = np.arange(N_ITEMS) % 7 != 3
    texts = {"items": (topics @ lift * present[:, None], present), "users": (tastes @ lift, np.ones(N_USERS, bool))}
    semantic = {
        name: SemanticMatrix(torch.from_numpy(vectors.astype(np.float32)), torch.from_numpy(mask))
        for name, (vectors, mask) in texts.items()
    }
    return ModelInputs(train, semantic, 0)


def measured(name):
    inputs = world()
    torch.manual_seed(0)
    name, _, profile = name.partition("@profile=")
    options = {"profile": profile} if profile else {}
    model = parse_config({"name": name, "batch_pairs": 64} | options).build(inputs)
    history, rng = ResidentInteractions(inputs.train), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    order, loss, step = np.random.default_rng(0), torch.zeros(()), 0
    while step < 10:
        for batch in model.batches(history, order, 64):
            loss = torch.stack(list(model.loss(batch, rng, step).values())).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
    scores = model.eval().scores(history.batch(np.arange(N_USERS)))
    return float(loss.detach()), float(scores[0, 0]), float(scores.square().mean().sqrt())


@pytest.mark.parametrize("name", FROZEN)
def test_ten_steps_end_where_they_ended(name):
    assert measured(name) == pytest.approx(FROZEN[name], rel=2e-3, abs=2e-4)


if __name__ == "__main__":
    for each in FROZEN:
        print(f'    "{each}": ({", ".join(f"{value:.6f}" for value in measured(each))}),')
