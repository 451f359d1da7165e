"""Training as a process: bundle in, checkpoint out; cut off, resumed, corrupted, poisoned."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from servers.bundles import BASE, CVGA, L_DIFFREC, N_USERS, QUICK, REC_VAE, weights, write

from rec_models import Bundle
from rec_models.__main__ import main
from rec_models.errors import BundleError, NotFiniteError, UnknownDeviceError, UntrustedBytesError
from rec_models.sampled import RowAdam
from rec_models.training import load_trained, train

PAIRWISE = ("lightgcn", "rlmrec_c", "rlmrec_g", "kar", "llmrec", "alpharec", "alpharec_star")
PAIRWISE += ("vbpr", "freedom", "bm3", "recgoat")


def test_a_process_of_its_own_prints_events_and_leaves_a_sealed_checkpoint(tmp_path):
    bundle = write(tmp_path / "bundle", model={"name": "dmrec", "base": BASE})
    command = [sys.executable, "-m", "rec_models", "train", str(bundle.directory), "--device", "cpu", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events][:2] == ["start", "epoch"]
    assert events[-1]["event"] == "done"
    metrics = json.loads((bundle.checkpoint / "metrics.json").read_text())
    assert set(metrics["test"]) == {"recall@5", "ndcg@5", "coverage@5"}
    assert metrics["best_epoch"] in range(0, 6, 2)
    per_user = np.load(bundle.checkpoint / "per_user.npz")
    assert per_user["test/recall@5"].mean() == pytest.approx(metrics["test"]["recall@5"], abs=1e-6)
    assert not (bundle.checkpoint / "state.safetensors").exists()

    out = tmp_path / "lists.npz"
    assert main(["recommend", str(bundle.directory), "--device", "cpu", "--k", "7", "--out", str(out)]) == 0
    lists = np.load(out)
    assert lists["item_index"].shape == (N_USERS, 7)
    known = bundle.part("train").union(bundle.part("valid"), bundle.part("test"))
    for user, items in enumerate(lists["item_index"]):
        assert not set(items.tolist()) & set(known.indices[known.indptr[user] : known.indptr[user + 1]].tolist())


def test_evaluating_the_checkpoint_again_gives_the_same_numbers(tmp_path):
    bundle = write(tmp_path / "bundle")
    before = train(bundle, lambda event: None, device="cpu")
    assert main(["evaluate", str(bundle.directory), "--device", "cpu"]) == 0
    after = json.loads((bundle.checkpoint / "metrics.json").read_text())
    assert after["test"] == pytest.approx(before["test"])
    load_trained(Bundle.open(bundle.directory), torch.device("cpu"))  # still sealed


def test_a_refused_bundle_is_one_json_sentence_and_its_exit_code(tmp_path, capsys):
    code = main(["train", str(tmp_path)])
    event = json.loads(capsys.readouterr().out)
    assert (code, event["error"]) == (2, "BundleError")
    assert str(tmp_path) in event["message"]


class _CutOffError(Exception):
    pass


def dmrec(**matching):
    return {"name": "dmrec", "base": BASE, "matching": matching}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("cut_at", "model"),
    [
        (1, dmrec(name="mddm")),
        (3, dmrec(name="godm")),
        (4, dmrec(name="cpdm")),
        (4, dmrec(name="cpdm", cp_mode="mixture_mc")),
        (3, dmrec(name="mddm", beta_sampling=0.5) | {"gate": True}),
        (3, BASE),
        (3, CVGA),
        (4, L_DIFFREC),  # by then steps are drawn by their losses, and the record of those has to come back
        (3, {"name": "dmrec", "base": CVGA}),
        (4, {"name": "dmrec", "base": L_DIFFREC}),
        (3, BASE | {"flow_layers": 2, "flow_hidden_dim": 4}),
        (3, BASE | {"sampled_items": 5}),  # every row counts its own steps
        (4, {"name": "pia", "base": REC_VAE, "plateau": 1, "growth": 3.0}),  # by then the weight has grown
        (3, {"name": "pia", "base": {"name": "dmrec", "base": REC_VAE}, "anchors": "text_tied"}),
        *((3, {"name": name, "batch_pairs": 64}) for name in PAIRWISE),
        (3, {"name": "freedom", "batch_pairs": 64, "item_graph": "learned"}),
    ],
)
def test_T_T3_a_run_cut_off_and_resumed_ends_with_the_same_weights(tmp_path, cut_at, model, precision):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    training = QUICK | {"learning_rate_decay": 0.5, "decay_after": 1, "precision": precision}
    whole, cut = (write(tmp_path / name / "bundle", model=model, training=training) for name in "ab")
    train(whole, lambda event: None, device="cpu", saves_every_s=0)

    def cut_off(event):
        if event["event"] == "epoch" and event["epoch"] == cut_at:
            raise _CutOffError

    with pytest.raises(_CutOffError):
        train(cut, cut_off, device="cpu", saves_every_s=0)
    events = []
    train(cut, events.append, device="cpu", saves_every_s=0)
    (told,) = [event for event in events if event["event"] == "resume"]
    assert told["best_epoch"] < told["epoch"] <= cut_at
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(cut)[name]), name


def test_the_learning_rate_falls_after_so_many_passes_without_a_new_best(tmp_path):
    training = {"learning_rate": 1e-3, "learning_rate_decay": 0.5, "decay_after": 2, "evaluate_every": 1, "epochs": 12}
    events = []
    train(write(tmp_path / "bundle", training=training), events.append, device="cpu")
    expected, stale, seen = training["learning_rate"], 0, []
    for event in events:
        if event["event"] == "epoch":
            assert event["learning_rate"] == pytest.approx(expected)
            seen.append(expected)
        elif event["event"] == "valid":
            stale = 0 if event["best"] else stale + 1
            expected *= 0.5 if stale and stale % 2 == 0 else 1
    assert len(set(seen)) > 1


def test_every_group_of_parameters_keeps_its_own_rate_and_all_fall_together(tmp_path):
    rates = {"learning_rate": 2e-3, "denoiser_learning_rate": None, "kl_anneal_steps": 0}
    training = {"learning_rate": 1e-3, "learning_rate_decay": 0.5, "decay_after": 1, "evaluate_every": 1, "epochs": 9}
    bundle = write(tmp_path / "bundle", model=L_DIFFREC | rates, training=training)
    seen = []

    class Watched(RowAdam):
        def step(self, closure=None):
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rec_models.training.RowAdam", Watched)
        train(bundle, lambda event: None, device="cpu")
    assert seen[0] == [2e-3, 1e-3]
    assert all(first == pytest.approx(2 * second) for first, second in seen)
    assert min(second for _, second in seen) < 1e-3


def test_epochs_tell_every_term_of_the_loss_and_validations_what_the_model_diagnoses(tmp_path):
    events = []
    bundle = write(tmp_path / "bundle", model={"name": "dmrec", "base": L_DIFFREC})
    history = train(bundle, events.append, device="cpu")["history"]
    for row in history:
        assert set(row["terms"]) == {"reconstruction", "diffusion", "matching"}
        assert row["loss"] == pytest.approx(sum(row["terms"].values()))
    informed = ("kl_prior", "kl_language", "information_interactions", "information_language")
    for event in (event for event in events if event["event"] == "valid"):
        assert all(np.isfinite(event[name]) and event[name] == history[event["epoch"]][name] for name in informed)


def test_a_checkpoint_of_pia_is_one_of_its_base_and_has_no_anchors(tmp_path):
    events = []
    training = QUICK | {"evaluate_every": 1}
    bundle = write(tmp_path / "bundle", model={"name": "pia", "base": BASE, "plateau": 1}, training=training)
    metrics = train(bundle, events.append, device="cpu")
    (tmp_path / "plain").mkdir()
    plain = write(tmp_path / "plain" / "bundle", model=BASE)
    train(plain, lambda event: None, device="cpu")
    assert {name: tensor.shape for name, tensor in weights(bundle).items()} == {
        name: tensor.shape for name, tensor in weights(plain).items()
    }
    valid = [event for event in events if event["event"] == "valid"]
    expected = 0.2 * 1.2 ** sum(not event["best"] for event in valid)
    assert valid[-1]["alignment_weight"] in (pytest.approx(expected), pytest.approx(expected / 1.2))
    assert main(["evaluate", str(bundle.directory), "--device", "cpu"]) == 0  # scored by what was kept, without anchors
    after = json.loads((bundle.checkpoint / "metrics.json").read_text())
    assert after["test"] == metrics["test"] and after["valid"] == metrics["valid"]


def test_sides_that_take_turns_report_the_mean_of_each_term_over_its_own_batches(tmp_path):
    bundle = write(tmp_path / "bundle", model=REC_VAE)
    history = train(bundle, lambda event: None, device="cpu")["history"]
    assert all(set(row["terms"]) == {"reconstruction", "kl"} for row in history)
    assert any(name.startswith("before_") for name in weights(bundle))


@pytest.mark.parametrize("damage", ["garbage", "foreign"])
def test_a_saved_state_that_is_not_this_runs_own_costs_time_and_nothing_else(tmp_path, damage):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "bundle", seed=seed)
    whole, damaged, other = (Bundle.open(tmp_path / name / "bundle") for name in "abc")
    train(whole, lambda event: None, device="cpu")

    def cut_off(event):
        if event["event"] == "epoch" and event["epoch"] == 3:
            raise _CutOffError

    with pytest.raises(_CutOffError):
        train(other, cut_off, device="cpu", saves_every_s=0)
    state = (other.checkpoint / "state.safetensors").read_bytes() if damage == "foreign" else b"not a state"
    damaged.checkpoint.mkdir()
    (damaged.checkpoint / "state.safetensors").write_bytes(state)
    events = []
    train(damaged, events.append, device="cpu")
    assert "discarded" in [event["event"] for event in events]
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(damaged)[name]), name


@pytest.mark.parametrize("device", ["potato", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_with_its_name(tmp_path, device):
    with pytest.raises(UnknownDeviceError, match=device):
        train(write(tmp_path / "bundle"), lambda event: None, device=device)


def test_T_T2_two_runs_of_one_seed_are_equal_and_another_seed_is_not(tmp_path):
    found = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        (tmp_path / name).mkdir()
        bundle = write(tmp_path / name / "bundle", seed=seed)
        train(bundle, lambda event: None, device="cpu")
        found.append(weights(bundle)["decoder_out.weight"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_T_T1_a_loss_that_is_not_finite_stops_training_at_once(tmp_path):
    bundle = write(tmp_path / "bundle", training=QUICK | {"learning_rate": 1e30})
    with pytest.raises(NotFiniteError, match="not finite at epoch 0, step"):
        train(bundle, lambda event: None, device="cpu")
    assert not (bundle.checkpoint / "model.safetensors").exists()


def test_T_T4_a_checkpoint_cut_short_is_never_loaded(tmp_path):
    bundle = write(tmp_path / "bundle")
    train(bundle, lambda event: None, device="cpu")
    path = bundle.checkpoint / "model.safetensors"
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 25, dtype=int):
        path.write_bytes(whole[:length])
        with pytest.raises((UntrustedBytesError, BundleError)):
            load_trained(bundle, torch.device("cpu"))
