"""A warm start: what an id had learnt is where the id is now, and what cannot be told is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from rec_models import InteractionMatrix, write_bundle
from rec_models.checkpoints import load_tensors
from rec_models.errors import BundleError
from rec_models.training import train

N_USERS, N_ITEMS = 40, 24
MULT_VAE = {"name": "mult_vae", "hidden_dim": 8, "latent_dim": 4}


def bundle_of(directory, users, items, *, model=MULT_VAE, warm=None, epochs=4, learning_rate=1e-2):
    """A checkerboard world of these user and item numbers: even users take even items."""
    rng = np.random.default_rng(0)
    pairs = [(u, i) for u, user in enumerate(users) for i, item in enumerate(items) if (user + item) % 2 == 0]
    rng.shuffle(pairs)
    cuts = np.split(np.array(pairs), [len(pairs) * 6 // 10, len(pairs) * 8 // 10])
    shape = {"n_users": len(users), "n_items": len(items)}
    parts = {
        part: InteractionMatrix.from_pairs(rows[:, 0], rows[:, 1], None, **shape)
        for part, rows in zip(("train", "valid", "test"), cuts, strict=True)
    }
    training = {"epochs": epochs, "batch_size": 16, "learning_rate": learning_rate, "evaluate_every": 1}
    training |= {"warm_start": True} if warm else {}
    return write_bundle(
        directory,
        parts=parts,
        semantic={},
        user_ids=[f"u{user}" for user in users],
        item_ids=[f"i{item}" for item in items],
        model=model,
        training=training,
        evaluation={"ks": [5], "select_by": "recall@5"},
        seed=0,
        about={},
        warm=warm.directory if warm else None,
    )


def trained(bundle):
    events = []
    metrics = train(bundle, events.append, device="cpu")
    return load_tensors(bundle.checkpoint / "model.safetensors", {})[0], metrics, events


@pytest.mark.parametrize("name", ["mult_vae", "lightgcn"])
def test_rows_follow_their_ids_and_new_ids_begin_fresh(tmp_path, name):
    model = MULT_VAE if name == "mult_vae" else {"name": "lightgcn", "dim": 6}
    first = bundle_of(tmp_path / "first", range(N_USERS), range(N_ITEMS), model=model)
    before, _, _ = trained(first)
    items = [*range(N_ITEMS - 1, 2, -1), 100, 101]  # turned around, three gone, two new
    users = [*range(5, N_USERS), 200]
    second = bundle_of(tmp_path / "second", users, items, model=model, warm=first, epochs=1, learning_rate=1e-30)
    after, metrics, events = trained(second)
    old_item, old_user = list(range(N_ITEMS)), list(range(N_USERS))
    seen = 0
    for parameter, weight in after.items():
        earlier = before[parameter]
        for axis in range(weight.ndim):
            for known, now in ((old_item, items), (old_user, users)):
                if (earlier.shape[axis], weight.shape[axis]) != (len(known), len(now)):
                    continue
                kept = [(known.index(one), place) for place, one in enumerate(now) if one in known]
                here, there = (torch.tensor(places) for places in zip(*kept, strict=True))
                assert torch.equal(weight.index_select(axis, there), earlier.index_select(axis, here)), parameter
                fresh = torch.tensor([place for place, one in enumerate(now) if one not in known])
                assert bool(torch.isfinite(weight.index_select(axis, fresh)).all())
                seen += 1
    assert seen >= 2
    words = metrics["provenance"]["warm start"]
    assert words.startswith("model first: 21 of 23 items, 35 of 36 users") and events[0]["provenance"]["warm start"]


def test_one_epoch_from_warm_weights_is_worth_more_than_one_from_fresh_ones(tmp_path):
    first = bundle_of(tmp_path / "first", range(N_USERS), range(N_ITEMS), epochs=40)
    trained(first)
    world = range(3, N_USERS + 2), range(N_ITEMS + 2)
    cold = trained(bundle_of(tmp_path / "cold", *world, epochs=1))[1]["test"]["recall@5"]
    warm = trained(bundle_of(tmp_path / "warm", *world, epochs=1, warm=first))[1]["test"]["recall@5"]
    assert warm > cold + 0.1


def test_what_an_axis_is_of_must_be_told_by_its_length(tmp_path):
    square = bundle_of(tmp_path / "square", range(24), range(24))
    trained(square)
    with pytest.raises(BundleError, match="as many items as users"):
        trained(bundle_of(tmp_path / "again", range(1, 25), range(24), warm=square))
    wide = {**MULT_VAE, "hidden_dim": N_ITEMS}
    first = bundle_of(tmp_path / "first", range(N_USERS), range(N_ITEMS), model=wide)
    trained(first)
    with pytest.raises(BundleError, match="as wide as there are items"):
        trained(bundle_of(tmp_path / "other", range(N_USERS), range(1, N_ITEMS + 1), model=wide, warm=first))


def test_a_model_that_is_solved_says_that_it_has_nothing_to_begin_from(tmp_path):
    first = bundle_of(tmp_path / "first", range(N_USERS), range(N_ITEMS), model={"name": "ease"})
    trained(first)
    metrics = trained(bundle_of(tmp_path / "next", range(N_USERS), range(25), model={"name": "ease"}, warm=first))[1]
    assert "solved" in metrics["provenance"]["warm start"]


def test_the_earlier_weights_are_part_of_what_is_hashed(tmp_path):
    first = bundle_of(tmp_path / "first", range(N_USERS), range(N_ITEMS))
    trained(first)
    second = bundle_of(tmp_path / "second", range(N_USERS), range(25), warm=first)
    assert {"warm.safetensors", "warm.json"} <= set(json.loads((second.directory / "sha256.json").read_text()))
