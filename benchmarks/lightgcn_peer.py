"""LightGCN beside RecBole's on one split: both trained to their best validation epoch, both scored by our evaluation.

    python -m benchmarks.lightgcn_peer INTERACTIONS.parquet --peer-python PYTHON [--seeds 3] [--dim 64] [--layers 3]
        [--batch-pairs 2048] [--ours l2_weight=1e-6,layer_agg=sum] [--theirs reg_weight=1e-4] [--threads 1]
        [--epochs 1000] [--precision float32] [--json]

The table needs user_id, item_id (indices from 0) and split. PYTHON is the interpreter of an environment that holds
RecBole (`benchmarks/peers/recbole_model.py` names versions that work together). Width, layers, pairs a step,
learning rate and patience are the same; what the two call their penalty differs, so each side takes its own.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.dmrec_epoch import read_parts
from benchmarks.peer_training import arguments, options, ours, race, theirs
from rec_models.blocks import products_with_all
from rec_models.interactions import UserBatch
from rec_models.memory import keep_freed_memory
from rec_models.recommender import Recommender

# Validation passes and their patience, for both sides.
EVERY, PATIENCE = 5, 10


class Vectors(Recommender):
    """Scores that are products of given vectors."""

    def __init__(self, users: Tensor, items: Tensor) -> None:
        super().__init__()
        self.users, self.items = users, items

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items)."""
        return products_with_all(self.users[batch.users], self.items)


def vectors_in(folder: Path) -> Recommender:
    """The model that RecBole's vectors in a folder are of."""
    with np.load(folder / "vectors.npz") as arrays:
        return Vectors(torch.from_numpy(arrays["users"]), torch.from_numpy(arrays["items"]))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.set_defaults(ours="l2_weight=1e-6", theirs="reg_weight=1e-4")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--batch-pairs", type=int, default=2048)
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    parts = read_parts(given.interactions)
    model = {
        "name": "lightgcn",
        "dim": given.dim,
        "layers": given.layers,
        "batch_pairs": given.batch_pairs,
        **options(given.ours),
    }
    training = {"evaluate_every": EVERY, "patience": PATIENCE}
    peer = {
        "model": "LightGCN",
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
        "embedding_size": given.dim,
        "n_layers": given.layers,
        "train_batch_size": given.batch_pairs,
        "eval_step": EVERY,
        "stopping_step": PATIENCE,
        **options(given.theirs),
    }
    for seed in range(given.seeds):
        sides = {
            "ours": partial(ours, parts, given=given, model=model, training=training, seed=seed),
            "theirs": partial(theirs, parts, given=given, settings=peer, seed=seed, model_of=vectors_in),
        }
        list(race("lightgcn", seed, sides, given.json))


if __name__ == "__main__":
    main()
