"""Race: a whole training of DMRec-M to its early stop, ours against the authors' loop on the dense reference.

    python -m benchmarks.dmrec_training INTERACTIONS.parquet [--dim 1536] [--epochs 1000] [--patience 20]
        [--measured 3] [--whole] [--precision auto] [--threads 2] [--json]

The table needs user_id, item_id and split. Vectors are drawn at random: speed does not depend on what they mean. Both
validate every third epoch. Of the reference `--measured` epochs and one validation pass are timed, and multiplied by
the numbers that ours needed; `--whole` trains it to its own early stop instead and compares what both find in the test.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.dense_reference import validate
from benchmarks.dmrec_epoch import Reference, read_parts, unit_vectors
from benchmarks.sides import apart
from rec_models import SemanticSource, parse_config, write_bundle
from rec_models.memory import keep_freed_memory
from rec_models.training import train

BATCH, EVERY = 1024, 3
MODEL = {
    "name": "dmrec",
    "fuse": "add",
    "base": {"name": "mult_vae", "dropout": 0.3, "kl_weight": 1.0},
    "matching": {"name": "mddm", "beta": 0.5},
}


def ours(given: argparse.Namespace) -> dict[str, float]:
    """Seconds of all that `train` does, what it needed, and the test recall of the best epoch."""
    keep_freed_memory()
    parts = read_parts(given.interactions)
    n_users, n_items = parts["train"].shape
    training = {
        "epochs": given.epochs, "batch_size": BATCH, "learning_rate": 1e-3, "evaluate_every": EVERY,
        "patience": given.patience, "precision": given.precision,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="race") as folder:
        semantic = {}
        for name, n, seed in (("items", n_items, 1), ("users", n_users, 2)):
            values, mask = Path(folder) / f"{name}.npy", Path(folder) / f"{name}.mask.npy"
            np.save(values, unit_vectors(n, given.dim, seed).numpy())
            np.save(mask, np.ones(n, bool))
            semantic[name] = SemanticSource(values, mask, {"source": "drawn at random"})
        bundle = write_bundle(
            Path(folder) / "bundle",
            parts=parts,
            semantic=semantic,
            user_ids=[str(index) for index in range(n_users)],
            item_ids=[str(index) for index in range(n_items)],
            model=parse_config(MODEL).key(),
            training=training,
            evaluation={"ks": [5, 10, 20]},
            seed=0,
            about={},
        )
        began = time.perf_counter()
        found = train(bundle, lambda event: None)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "epochs": found["epochs"], "recall@20": found["test"]["recall@20"]}


def theirs(given: argparse.Namespace) -> dict[str, float]:
    """Seconds of an epoch and of a validation pass; with `--whole` those of a training and its test recall."""
    parts = read_parts(given.interactions)
    n_users, n_items = parts["train"].shape
    items, users = unit_vectors(n_items, given.dim, 1), unit_vectors(n_users, given.dim, 2)
    runner = Reference(parts, items, users, argparse.Namespace(batch_size=BATCH))
    epochs: list[float] = []
    if not given.whole:
        for _ in range(given.measured):
            epochs.append(_seconds(runner.epoch))
        return {"epoch_s": statistics.median(epochs), "validate_s": _seconds(runner.validate)}
    began, best, stale, kept, n = time.perf_counter(), -1.0, 0, None, 0
    while n < given.epochs and stale <= given.patience:
        runner.epoch()
        n += 1
        if n % EVERY == 0:
            value = runner.validate()["recall@20"]
            stale = 0 if value > best else stale + 1
            if value > best:
                best, kept = value, {name: tensor.clone() for name, tensor in runner.model.state_dict().items()}
    seconds = time.perf_counter() - began
    assert kept is not None
    runner.model.load_state_dict(kept)
    found = validate(runner.model, runner.rows["train"], runner.rows["test"], (20,))
    return {"seconds": seconds, "epochs": n, "recall@20": found["recall@20"]}


def race(given: argparse.Namespace) -> dict[str, Any]:
    """Both sides, each in a process of its own."""
    mine, other = _process("ours", given), _process("theirs", given)
    seconds = other.get("seconds")
    if seconds is None:
        seconds = mine["epochs"] * other["epoch_s"] + mine["epochs"] // EVERY * other["validate_s"]
    return {
        "threads": given.threads,
        "precision": given.precision,
        "dim": given.dim,
        "measured": "whole" if given.whole else f"{given.measured} epochs and a validation pass, multiplied",
        "ours": mine,
        "theirs": other | {"seconds": seconds},
        "ratio": seconds / mine["seconds"],
    }


def _seconds(act: Any) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _process(side: str, given: argparse.Namespace) -> dict[str, float]:
    names = ("dim", "epochs", "patience", "measured", "precision", "threads", "whole")
    options = {name: getattr(given, name) for name in names}
    return apart("dmrec_training", given.interactions, side=side, **options)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interactions", type=Path)
    parser.add_argument("--dim", type=int, default=1536)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--patience", type=int, default=20)
    parser.add_argument("--measured", type=int, default=3)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.side:
        print(json.dumps((ours if given.side == "ours" else theirs)(given)))
        return
    found = race(given)
    if given.json:
        print(json.dumps(found))
        return
    for side in ("ours", "theirs"):
        print(f"{side:7}" + "  ".join(f"{name} {value:.4g}" for name, value in found[side].items()))
    print(f"{found['ratio']:.1f}x, of theirs {found['measured']}")


if __name__ == "__main__":
    main()
