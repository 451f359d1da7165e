"""One epoch of DGRM and one pass of its predictions, and how both grow with users and items.

    python -m benchmarks.dgrm_epoch [INTERACTIONS.parquet] [--sizes 943x1682x80000 6000x4000x800000]
                                    [--model '{"hidden_share": 0.5}'] [--batch-size 64] [--threads 1] [--json]

The table needs user_id, item_id and rating; ratings of the other sizes are drawn, since what they say changes no time.
Every size has a process of its own. Memory is what the epoch and the predictions add to the process that holds the
model; beside it stands what one number for every user, item and step would take.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.sides import apart, peak_memory
from rec_models.evaluation import EvaluationConfig, evaluate
from rec_models.interactions import InteractionMatrix, ResidentInteractions, UserBatch
from rec_models.memory import keep_freed_memory
from rec_models.models import DGRMConfig
from rec_models.semantic import ModelInputs


def drawn(size: str) -> InteractionMatrix:
    """Ratings of `USERSxITEMSxRATINGS`, every user with as many as the others."""
    n_users, n_items, n_ratings = (int(part) for part in size.split("x"))
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(n_users), n_ratings // n_users)
    items = np.concatenate([rng.choice(n_items, n_ratings // n_users, replace=False) for _ in range(n_users)])
    return InteractionMatrix.from_pairs(users, items, rng.integers(1, 6, len(users)), n_users=n_users, n_items=n_items)


def read(path: str) -> InteractionMatrix:
    """All ratings of a table."""
    table = pq.read_table(path, columns=["user_id", "item_id", "rating"])
    (users, user), (items, item) = (
        np.unique(table[name].to_numpy(), return_inverse=True) for name in ("user_id", "item_id")
    )
    return InteractionMatrix.from_pairs(user, item, table["rating"].to_numpy(), n_users=len(users), n_items=len(items))


def measured(matrix: InteractionMatrix, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds and bytes in this process alone; the first batch warms up and is not counted."""
    keep_freed_memory()  # as `python -m rec_models train` does
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    config = DGRMConfig(**json.loads(given.model))
    model = config.build(ModelInputs(matrix, {}, 0))
    history, order = ResidentInteractions(matrix), np.random.default_rng(0)
    groups = [{"params": group.parameters, "lr": 3e-4} for group in model.parameter_groups()]
    optimiser, rng = torch.optim.Adam(groups, fused=True), torch.Generator().manual_seed(0)
    before, began, steps = peak_memory(), 0.0, 0
    for batch in model.batches(history, order, given.batch_size):
        loss = torch.stack(list(model.loss(cast(UserBatch, batch), rng, steps).values())).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        steps += 1
        if steps == config.generator_steps + config.critic_steps:
            began = time.process_time()
    epoch = time.process_time() - began
    trained = peak_memory()
    began = time.process_time()
    settings = EvaluationConfig(protocol="dgrm-paper", ks=(5,), select_by="ndcg@5")
    n_users, n_items = matrix.shape
    none = np.zeros(0, np.int64)
    nothing = InteractionMatrix.from_pairs(none, none, None, n_users=n_users, n_items=n_items)
    evaluate(model, history, matrix, settings, part="train", exclude=ResidentInteractions(nothing))
    return {
        "users": n_users,
        "items": n_items,
        "ratings": matrix.nnz,
        "steps": steps,
        "epoch_cpu_s": epoch,
        "predictions_cpu_s": time.process_time() - began,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "epoch_added_bytes": trained - before,
        "predictions_added_bytes": peak_memory() - trained,
        "users_items_steps_bytes": 4 * n_users * n_items * config.steps,
    }


def _process(given: argparse.Namespace, *what: str) -> dict[str, Any]:
    options = {name: getattr(given, name) for name in ("model", "batch_size", "threads")}
    return apart("dgrm_epoch", *what, one=True, **options)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interactions", nargs="?")
    parser.add_argument("--sizes", nargs="*", default=["943x1682x80000", "6000x4000x800000"])
    parser.add_argument("--model", default="{}", help="settings of DGRM as JSON")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", action="store_true", help="measure the one table or size named, in this process")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(read(given.interactions) if given.interactions else drawn(given.sizes[0]), given)))
        return
    rows = [_process(given, given.interactions)] if given.interactions else []
    rows += [_process(given, "--sizes", size) for size in given.sizes]
    if given.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            f"{row['users']:,} x {row['items']:,}, {row['ratings']:,} ratings: epoch {row['epoch_cpu_s']:.2f} s of CPU"
            f" ({row['steps']} steps), predictions {row['predictions_cpu_s']:.2f} s; memory added"
            f" {row['epoch_added_bytes'] / 1e6:.0f} + {row['predictions_added_bytes'] / 1e6:.0f} MB, users x items x T"
            f" would be {row['users_items_steps_bytes'] / 1e6:.0f} MB"
        )


if __name__ == "__main__":
    main()
