"""A batch in parts: the same model whether one process learns from all of them or several share them."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from rec_models import InteractionMatrix, write_bundle
from rec_models.checkpoints import load_tensors
from rec_models.errors import PartsError
from rec_models.interactions import PairBatch, ResidentInteractions
from rec_models.parts import Team, part_of
from rec_models.training import train

N_USERS, N_ITEMS, EPOCHS = 300, 150, 6
MODELS = {
    "mult_vae": {"name": "mult_vae", "hidden_dim": 32, "latent_dim": 8, "kl_weight": 0.05},
    "rec_vae": {"name": "rec_vae", "hidden_dim": 16, "latent_dim": 8},  # its sides learn in turns
    "lightgcn": {"name": "lightgcn", "dim": 8, "batch_pairs": 500},  # of pairs
    "ease": {"name": "ease"},  # solved by the leader alone
}


def write(directory, model, parts, **training):
    """Users of two tastes, cut at random."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(N_USERS), 12)
    items = 2 * rng.integers(0, N_ITEMS // 2, len(users)) + users % 2
    part = rng.integers(0, 6, len(users))
    shape = {"n_users": N_USERS, "n_items": N_ITEMS}
    cut = {
        name: InteractionMatrix.from_pairs(users[kept], items[kept], None, **shape)
        for name, kept in (("train", part < 4), ("valid", part == 4), ("test", part == 5))
    }
    ids = {"user_ids": [f"u{n}" for n in range(N_USERS)], "item_ids": [f"i{n}" for n in range(N_ITEMS)]}
    told = {"epochs": EPOCHS, "batch_size": 70, "evaluate_every": 2, "batch_parts": parts} | training
    evaluation = {"ks": [5], "select_by": "recall@5"}
    directory.parent.mkdir(exist_ok=True)
    return write_bundle(
        directory, parts=cut, semantic={}, about={}, model=model, training=told, evaluation=evaluation, seed=3, **ids
    )


def by_torchrun(bundle, processes):
    """The events of a training that several processes share."""
    command = [sys.executable, "-m", "rec_models", "train", str(bundle.directory), "--device", "cpu", "--threads", "1"]
    done = subprocess.run([*command, "--processes", str(processes)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def epochs_of(events):
    return [event["loss"] for event in events if event["event"] == "epoch"]


def weights(bundle):
    return load_tensors(bundle.checkpoint / "model.safetensors", {})[0]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("mult_vae", 2),
        *(pytest.param(name, 2, marks=pytest.mark.full) for name in MODELS if name != "mult_vae"),
        *(pytest.param(name, 4, marks=pytest.mark.full) for name in ("mult_vae", "rec_vae", "lightgcn")),
    ],
)
def test_two_processes_learn_what_one_learns(tmp_path, name, parts):
    alone, shared = (write(tmp_path / who / "bundle", MODELS[name], parts) for who in ("alone", "shared"))
    events: list[dict] = []
    one = train(alone, lambda event: events.append(dict(event)), device="cpu")
    of_two = by_torchrun(shared, 2)
    assert len(epochs_of(of_two)) == (0 if name == "ease" else EPOCHS)
    assert epochs_of(of_two) == pytest.approx(epochs_of(events), rel=1e-5)
    assert sum(event["event"] == "done" for event in of_two) == 1, "the leader alone speaks"
    two = json.loads((shared.checkpoint / "metrics.json").read_text())
    assert two["test"] == pytest.approx(one["test"], abs=1e-6 if parts == 2 else 5e-3)
    for key, own in weights(alone).items():
        torch.testing.assert_close(weights(shared)[key], own, rtol=1e-5, atol=1e-5 if parts == 2 else 1e-3)


def test_what_draws_no_chance_is_learnt_alike_from_whole_batches_and_from_parts(tmp_path):
    model = {"name": "elsa", "dim": 8}  # a mean over users, without dropout and draws
    found = []
    for parts in (1, 3):
        events: list[dict] = []
        train(write(tmp_path / str(parts) / "bundle", model, parts), events.append, device="cpu")
        found.append(epochs_of(events))
    assert found[0] == pytest.approx(found[1], rel=1e-5) and len(found[0]) == EPOCHS


class _CutOffError(Exception):
    pass


def test_a_training_in_parts_that_was_cut_off_resumes_bit_for_bit(tmp_path):
    whole, cut = (write(tmp_path / name / "bundle", MODELS["mult_vae"], 2) for name in ("whole", "cut"))
    train(whole, lambda event: None, device="cpu", saves_every_s=0)

    def cut_off(event):
        if event["event"] == "epoch" and event["epoch"] == 3:
            raise _CutOffError

    with pytest.raises(_CutOffError):
        train(cut, cut_off, device="cpu", saves_every_s=0)
    events: list[dict] = []
    train(cut, events.append, device="cpu", saves_every_s=0)
    assert any(event["event"] == "resume" for event in events)
    assert all(torch.equal(own, weights(cut)[key]) for key, own in weights(whole).items())


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_hold_every_entry_of_a_batch_once(tmp_path, parts):
    history = ResidentInteractions(write(tmp_path / "b" / "bundle", MODELS["ease"], parts).part("train"))
    users = history.batch(np.random.default_rng(1).permutation(5))
    pairs = history.pairs(history.paired[:7])
    for batch in (users, pairs):
        cut = [part for place in range(parts) if (part := part_of(batch, place, parts)) is not None]
        assert sum(map(len, cut)) == len(batch) and max(map(len, cut)) - min(map(len, cut)) <= 1
        assert torch.equal(torch.cat([part.users for part in cut]), batch.users)
        assert torch.equal(torch.cat([part.items for part in cut]), batch.items)
        for part in cut:
            if not isinstance(part, PairBatch):
                again = history.batch(part.users.numpy())
                assert torch.equal(part.rows, again.rows) and torch.equal(part.offsets, again.offsets)


def test_parts_that_cannot_be_shared_or_learnt_from_are_refused_in_words(tmp_path):
    with pytest.raises(PartsError, match="multiple of 2"):
        Team(0, 2).share(3)
    diffusion = {"name": "diffrec", "hidden_dim": 8}
    with pytest.raises(PartsError, match=r"diffrec remembers .* set it to 1") as caught:
        train(write(tmp_path / "d" / "bundle", diffusion, 2), lambda event: None, device="cpu")
    assert caught.value.exit_code == 2
    bundle = write(tmp_path / "m" / "bundle", MODELS["mult_vae"], 1)
    command = [sys.executable, "-m", "rec_models", "train", str(bundle.directory), "--processes", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    assert (done.returncode, said["error"]) == (2, "PartsError") and "batch_parts" in said["message"]
