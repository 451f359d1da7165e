"""LightGCN beside RecBole's on one split: both trained to their best validation epoch, both scored by our evaluation.

    python -m benchmarks.lightgcn_peer INTERACTIONS.parquet --peer-python PYTHON [--seeds 3] [--dim 64] [--layers 3]
        [--batch-pairs 2048] [--ours l2_weight=1e-6,layer_agg=sum] [--theirs reg_weight=1e-4] [--threads 1] [--json]

The table needs user_id, item_id (indices from 0) and split. PYTHON is the interpreter of an environment that holds
RecBole (`benchmarks/peers/recbole_lightgcn.py` names versions that work together). Width, layers, pairs a step,
learning rate and patience are the same; what the two call their penalty differs, so each side takes its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.dmrec_epoch import read_parts
from rec_models import InteractionMatrix, parse_config, write_bundle
from rec_models.blocks import products_with_all
from rec_models.evaluation import EvaluationConfig, evaluate
from rec_models.graph import pair_arrays
from rec_models.interactions import ResidentInteractions, UserBatch
from rec_models.memory import keep_freed_memory
from rec_models.recommender import Recommender
from rec_models.training import train

PEER = Path(__file__).parent / "peers" / "recbole_lightgcn.py"
# Validation passes and their patience, for both sides.
EVERY, PATIENCE, EPOCHS = 5, 10, 1000
METRICS = ("recall@20", "ndcg@20")


class Vectors(Recommender):
    """Scores that are products of given vectors."""

    def __init__(self, users: Tensor, items: Tensor) -> None:
        super().__init__()
        self.users, self.items = users, items

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items)."""
        return products_with_all(self.users[batch.users], self.items)


def ours(parts: dict[str, InteractionMatrix], folder: Path, model: dict[str, Any], seed: int) -> dict[str, float]:
    """Recall and NDCG at 20 on test, epochs and seconds of training without validation."""
    ids = [[str(index) for index in range(n)] for n in parts["train"].shape]
    bundle = write_bundle(
        folder,
        parts=parts,
        semantic={},
        user_ids=ids[0],
        item_ids=ids[1],
        model=parse_config({"name": "lightgcn", **model}).key(),
        training={"epochs": EPOCHS, "evaluate_every": EVERY, "patience": PATIENCE, "learning_rate": 1e-3},
        evaluation=EvaluationConfig(ks=(20,)).model_dump(mode="json"),
        seed=seed,
        about={},
    )
    found = train(bundle, lambda event: None)
    return {name: found["test"][name] for name in METRICS} | {"epoch_s": found["seconds_per_epoch"]}


def theirs(parts: dict[str, InteractionMatrix], folder: Path, given: argparse.Namespace, seed: int) -> dict[str, float]:
    """The same of RecBole."""
    folder.mkdir()
    for part, matrix in parts.items():
        rows = np.stack(pair_arrays(matrix), 1)
        header = "user_id:token\titem_id:token"
        np.savetxt(folder / f"{folder.name}.{part}.inter", rows, "%d", delimiter="\t", header=header, comments="")
    n_users, n_items = parts["train"].shape
    settings = {
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["user_id", "item_id"]},
        "eval_args": {"group_by": "user", "order": "RO", "mode": "full"},
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
        "embedding_size": given.dim,
        "n_layers": given.layers,
        "train_batch_size": given.batch_pairs,
        "eval_batch_size": 1024 * n_items,
        "learning_rate": 1e-3,
        "epochs": EPOCHS,
        "eval_step": EVERY,
        "stopping_step": PATIENCE,
        "metrics": ["Recall"],
        "topk": [20],
        "valid_metric": "Recall@20",
        "use_gpu": False,
        "seed": seed + 1,
        "reproducibility": True,
        "checkpoint_dir": str(folder),
        "sizes": {"users": n_users, "items": n_items},
        "threads": given.threads,
        **options(given.theirs),
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    subprocess.run([given.peer_python, str(PEER.resolve()), str(folder)], check=True, cwd=folder)
    with np.load(folder / "vectors.npz") as arrays:
        model = Vectors(torch.from_numpy(arrays["users"]), torch.from_numpy(arrays["items"]))
    history = ResidentInteractions(parts["train"])
    found = evaluate(model, history, parts["test"], EvaluationConfig(ks=(20,)), part="test").means()
    result = json.loads((folder / "result.json").read_text())
    return {name: found[name] for name in METRICS} | {"epoch_s": result["train_s"] / result["epochs"]}


def options(text: str) -> dict[str, Any]:
    """`a=1,b=x` as a mapping, values read as JSON where they are."""
    pairs = (pair.partition("=")[::2] for pair in text.split(",") if pair)
    return {name: json.loads(value) if value[:1].isdigit() else value for name, value in pairs}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interactions", type=Path)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--batch-pairs", type=int, default=2048)
    parser.add_argument("--ours", default="l2_weight=1e-6")
    parser.add_argument("--theirs", default="reg_weight=1e-4")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    parts = read_parts(given.interactions)
    model = {"dim": given.dim, "layers": given.layers, "batch_pairs": given.batch_pairs, **options(given.ours)}
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory(prefix="peer") as scratch:
            sides = {
                "ours": ours(parts, Path(scratch) / "ours", model, seed),
                "theirs": theirs(parts, Path(scratch) / "theirs", given, seed),
            }
        for side, found in sides.items():
            row = {"race": "lightgcn", "side": side, "seed": seed, **found}
            print(json.dumps(row) if given.json else "  ".join(f"{k} {v}" for k, v in row.items()), flush=True)


if __name__ == "__main__":
    main()
