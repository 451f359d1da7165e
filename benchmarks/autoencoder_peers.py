"""RecVAE, Mult-VAE and EASE beside RecBole's on one split, all scored by our evaluation.

    python -m benchmarks.autoencoder_peers {rec_vae,mult_vae,ease} INTERACTIONS.parquet --peer-python PYTHON [--seeds 3]
        [--ours kl_weight_per_item=0.06] [--theirs gamma=0.06] [--patience 20] [--batch-size 128] [--threads 1]
        [--epochs 1000] [--precision float32] [--json]

The table needs user_id, item_id and split; `semalign sql 'SELECT user_id, item_id, part AS split FROM splits' -o
FILE.parquet` writes the split of a warehouse. PYTHON is the interpreter of an environment that holds RecBole
(`benchmarks/peers/recbole_model.py` names versions that work together). Both sides train to their best validation
epoch with the same widths, batch, learning rate and patience. EASE has to agree in every metric to 1e-4, else this
ends with 1.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

import torch

from benchmarks.dmrec_epoch import read_parts
from benchmarks.peer_training import arguments, options, ours, race, scores_in, theirs
from rec_models.memory import keep_freed_memory

# What EASE, which has no chance in it, may differ by.
ALIKE = 1e-4
OURS: dict[str, dict[str, Any]] = {
    "rec_vae": {"name": "rec_vae", "learning_rate": None},
    "mult_vae": {"name": "mult_vae", "input_norm": "l2", "dropout": 0.5, "kl_weight": 0.2, "kl_anneal_steps": 20_000},
    "ease": {"name": "ease", "regularization": 250.0},
}
# By RecBole's names; its Mult-VAE has one hidden layer of 600 on either side by default, as ours has.
THEIRS: dict[str, dict[str, Any]] = {
    "rec_vae": {"model": "RecVAE", "hidden_dimension": 600, "latent_dimension": 200},
    "mult_vae": {
        "model": "MultiVAE",
        "mlp_hidden_size": [600],
        "latent_dimension": 200,
        "dropout_prob": 0.5,
        "anneal_cap": 0.2,
        "total_anneal_steps": 100_000,  # the weight rises by one over it a step: 20,000 steps to 0.2
    },
    "ease": {"model": "EASE", "reg_weight": 250.0},
}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(OURS))
    arguments(parser)
    parser.add_argument("--patience", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=128)
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    parts = read_parts(given.interactions)
    training = {"evaluate_every": 1, "patience": given.patience, "batch_size": given.batch_size}
    model = OURS[given.model] | options(given.ours)
    peer = {"train_batch_size": given.batch_size, "eval_step": 1, "stopping_step": given.patience - 1}
    peer |= {"train_neg_sample_args": None} | THEIRS[given.model] | options(given.theirs)
    apart = 0.0
    for seed in range(1 if given.model == "ease" else given.seeds):
        sides = {
            "ours": partial(ours, parts, given=given, model=model, training=training, seed=seed),
            "theirs": partial(theirs, parts, given=given, settings=peer, seed=seed, model_of=scores_in),
        }
        mine, other = race(given.model, seed, sides, given.json)
        apart = max(abs(mine[name] - other[name]) for name in mine if "@" in name)
    return int(given.model == "ease" and apart > ALIKE)


if __name__ == "__main__":
    sys.exit(main())
