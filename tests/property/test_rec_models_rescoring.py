"""An older model beside a newer one: numbering does not matter, and what that was shown is not asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rec_models import Bundle, InteractionMatrix, write_bundle
from rec_models.rescoring import rescored
from rec_models.training import train

N_USERS, N_ITEMS = 30, 20
CPU = torch.device("cpu")
EASE = {"name": "ease"}
MULT_VAE = {"name": "mult_vae", "hidden_dim": 8, "latent_dim": 4}


def world(seed: int = 0) -> dict[str, list[tuple[str, str]]]:
    """part → (user id, item id), of two tastes."""
    rng = np.random.default_rng(seed)
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "valid": [], "test": []}
    for user in range(N_USERS):
        own = rng.permutation(np.arange(user % 2, N_ITEMS, 2))
        for name, items in zip(parts, np.split(own[:8], [4, 6]), strict=True):
            parts[name] += [(f"u{user}", f"i{item}") for item in items]
    return parts


def trained(folder: Path, parts: dict, users: list[str], items: list[str], model: dict = EASE) -> Bundle:
    """A bundle of these pairs with users and items numbered in the order given, and its model."""
    place = [{one: index for index, one in enumerate(ids)} for ids in (users, items)]
    matrices = {
        name: InteractionMatrix.from_pairs(
            [place[0][user] for user, _ in pairs],
            [place[1][item] for _, item in pairs],
            None,
            n_users=len(users),
            n_items=len(items),
        )
        for name, pairs in parts.items()
    }
    evaluation = {"ks": [3], "select_by": "recall@3", "names": ["recall", "ndcg"]}
    settings = {"model": model, "training": {"epochs": 2, "batch_size": 16}, "evaluation": evaluation, "seed": 1}
    bundle = write_bundle(
        folder, parts=matrices, semantic={}, user_ids=users, item_ids=items, about={}, **settings
    )  # fmt: skip
    train(bundle, lambda event: None, device="cpu")
    return bundle


def ids() -> tuple[list[str], list[str]]:
    return [f"u{n}" for n in range(N_USERS)], [f"i{n}" for n in range(N_ITEMS)]


@pytest.mark.parametrize("model", [EASE, MULT_VAE, {"name": "lightgcn", "dim": 4}], ids=lambda m: m["name"])
def test_a_model_beside_itself_is_measured_as_it_was_when_it_was_trained(tmp_path, model):
    bundle = trained(tmp_path / "b", world(), *ids(), model)
    found = rescored(bundle, bundle, CPU)
    stored = np.load(bundle.checkpoint / "per_user.npz")
    for one in (found.newer, found.older):
        np.testing.assert_array_equal(one.users, stored["test_user_index"])
        np.testing.assert_allclose(one.values["recall@3"], stored["test/recall@3"], atol=1e-6)
    assert (found.n_unknown, found.n_shown) == (0, 0)
    assert found.newer.coverage == found.older.coverage


def test_how_users_and_items_are_numbered_changes_nothing(tmp_path):
    seed = 11
    print(f"seed {seed}")
    rng, (users, items) = np.random.default_rng(seed), ids()
    newer = trained(tmp_path / "new", world(), users, items)
    older = trained(tmp_path / "old", world(), list(rng.permutation(users)), list(rng.permutation(items)))
    found = rescored(newer, older, CPU)
    for name, values in found.newer.values.items():
        # EASE is solved in another order: equal scores aside, the lists are the same
        assert np.mean(np.abs(values - found.older.values[name]) < 1e-9) >= 0.9, name


def test_strangers_are_left_out_and_no_model_is_asked_for_what_the_older_one_learnt(tmp_path):
    before, now, (users, items) = world(), world(), ids()
    now["train"] = [*now["train"], ("new", "i0"), ("new", "fresh")]
    now["valid"] = [*now["valid"], ("new", "i2")]
    now["test"] = [*now["test"], ("new", "i4"), ("u0", "fresh")]
    learnt = now["test"][:2]
    before["train"] = [*before["train"], *learnt]
    before["test"] = before["test"][2:]
    newer = trained(tmp_path / "new", now, [*users, "new"], [*items, "fresh"])
    older = trained(tmp_path / "old", before, users, items)
    found = rescored(newer, older, CPU)
    assert (found.n_unknown, found.n_shown) == (1, 2)
    # u0 was tested on two learnt items and a new one: what is left to find is the new one, unknown to the older model
    place = list(found.newer.users).index(0)
    assert N_USERS not in found.newer.users and found.older.values["recall@3"][place] == 0
    assert np.isfinite(found.older.values["recall@3"]).all()
