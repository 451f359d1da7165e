"""What the races against RecBole share: one training on our side, one on theirs, both measured by our evaluation."""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rec_models import InteractionMatrix, parse_config, write_bundle
from rec_models.evaluation import EvaluationConfig, evaluate
from rec_models.graph import pair_arrays
from rec_models.interactions import ResidentInteractions, UserBatch
from rec_models.recommender import Recommender
from rec_models.training import train

PEER = Path(__file__).parent / "peers" / "recbole_model.py"
LEARNING_RATE, EPOCHS = 1e-3, 1000
MEASURED = EvaluationConfig(ks=(10, 20))

Parts = Mapping[str, InteractionMatrix]


class Given(Recommender):
    """Scores that somebody else has made, (n_users, n_items)."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.given = scores

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items)."""
        return self.given[batch.users]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options that every race against RecBole has."""
    parser.add_argument("interactions", type=Path)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="at most; both sides stop early")
    parser.add_argument(
        "--precision", choices=["auto", "float32", "bfloat16"], default="float32", help="of our products"
    )
    parser.add_argument("--ours", default="")
    parser.add_argument("--theirs", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")


def ours(
    parts: Parts,
    folder: Path,
    given: argparse.Namespace,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    seed: int,
) -> dict:
    """Test metrics of our model at its best validation epoch, epochs, seconds of one and of all without validation."""
    ids = [[str(index) for index in range(n)] for n in parts["train"].shape]
    bundle = write_bundle(
        folder,
        parts=parts,
        semantic={},
        user_ids=ids[0],
        item_ids=ids[1],
        model=parse_config(model).key(),
        training={"epochs": given.epochs, "precision": given.precision, "learning_rate": LEARNING_RATE, **training},
        evaluation=MEASURED.model_dump(mode="json"),
        seed=seed,
        about={},
    )
    found = train(bundle, lambda event: None)
    seconds = {"epoch_s": found["seconds_per_epoch"], "fit_s": found["seconds"]}
    return _shown(found["test"]) | {"epochs": found["epochs"], "size": parts["train"].shape} | seconds


def theirs(
    parts: Parts,
    folder: Path,
    given: argparse.Namespace,
    settings: Mapping[str, Any],
    seed: int,
    model_of: Callable[[Path], Recommender],
) -> dict:
    """The same of RecBole, of whose output in the folder `model_of` makes what is measured."""
    folder.mkdir()
    for part, matrix in parts.items():
        rows = np.stack(pair_arrays(matrix), 1)
        header = "user_id:token\titem_id:token"
        np.savetxt(folder / f"{folder.name}.{part}.inter", rows, "%d", delimiter="\t", header=header, comments="")
    n_users, n_items = parts["train"].shape
    common = {
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["user_id", "item_id"]},
        "eval_args": {"group_by": "user", "order": "RO", "mode": "full"},
        "eval_batch_size": 1024 * n_items,
        "learning_rate": LEARNING_RATE,
        "epochs": given.epochs,
        "metrics": ["Recall"],
        "topk": [20],
        "valid_metric": "Recall@20",
        "use_gpu": False,
        "seed": seed + 1,
        "reproducibility": True,
        "checkpoint_dir": str(folder),
        "sizes": {"users": n_users, "items": n_items},
        "threads": given.threads,
    }
    (folder / "settings.json").write_text(json.dumps(common | dict(settings)))
    subprocess.run([given.peer_python, str(PEER.resolve()), str(folder)], check=True, cwd=folder)
    history = ResidentInteractions(parts["train"])
    found = evaluate(model_of(folder), history, parts["test"], MEASURED, part="test").means()
    result = json.loads((folder / "result.json").read_text())
    seconds = {"epoch_s": result["train_s"] / result["epochs"], "fit_s": result["train_s"] + result["built_s"]}
    return _shown(found) | {"epochs": result["epochs"], "size": (n_users, n_items)} | seconds


def scores_in(folder: Path) -> Recommender:
    """The model that RecBole's scores in a folder are of."""
    return Given(torch.from_numpy(np.load(folder / "scores.npy")))


def race(name: str, seed: int, sides: Mapping[str, Callable[[Path], dict]], as_json: bool) -> Iterable[dict[str, Any]]:
    """Runs each side in a folder of its own, prints its row and gives it out."""
    for side, run in sides.items():
        with tempfile.TemporaryDirectory(prefix="peer") as scratch:
            row = {"race": name, "side": side, "seed": seed, **run(Path(scratch) / side)}
        print(json.dumps(row) if as_json else "  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        yield row


def options(text: str) -> dict[str, Any]:
    """`a=1,b=x` as a mapping, values read as JSON where they are."""
    pairs = (pair.partition("=")[::2] for pair in text.split(",") if pair)
    return {name: json.loads(value) if value[:1].isdigit() else value for name, value in pairs}


def _shown(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: metrics[f"{name}"] for name in sorted(metrics) if name.startswith(("recall@", "ndcg@"))}
