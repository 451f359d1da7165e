"""Mult-VAE on large catalogues: a step over all items, and one over those of the batch and some others.

    python -m benchmarks.large_catalogue [--sizes 100000x100000,1000000x1000000] [--full-up-to 100000] [--width 128]
        [--sampled 8192] [--per-user 20] [--batch-size 512] [--steps 20] [--threads 1] [--json]

Users take items drawn by a Zipf law, the same number each. A row is a process of its own: seconds of a step (processor
seconds too), of an epoch by them, and of exact lists of 100 for 256 users; its peak beside what the tables of items
need by formula: two tables of (items x width) float32, each with two moments.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any, cast

import numpy as np
import torch

from benchmarks.sides import apart, peak_memory
from rec_models.evaluation import recommend
from rec_models.interactions import InteractionMatrix, ResidentInteractions, UserBatch
from rec_models.memory import keep_freed_memory
from rec_models.models import MultVAEConfig
from rec_models.sampled import RowAdam
from rec_models.semantic import ModelInputs

_LISTED, _K = 256, 100


def drawn(n_users: int, n_items: int, per_user: int) -> InteractionMatrix:
    """(n_users, n_items) interactions; item r is taken in proportion to 1 / (r + 10)."""
    rng = np.random.default_rng(0)
    reach = np.log1p(n_items / 10)
    items = (10 * np.expm1(rng.random((n_users, per_user)) * reach)).astype(np.int64).clip(0, n_items - 1)
    users = np.repeat(np.arange(n_users), per_user)
    pairs = np.unique(users * n_items + items.reshape(-1))  # an item once a user
    return InteractionMatrix.from_pairs(pairs // n_items, pairs % n_items, None, n_users=n_users, n_items=n_items)


def measured(size: str, given: argparse.Namespace) -> dict[str, Any]:
    """One row, in this process; the first two steps fill caches and are not counted."""
    keep_freed_memory()  # as `python -m rec_models train` does
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    n_users, n_items = (int(part) for part in size.split("x"))
    matrix = drawn(n_users, n_items, given.per_user)
    sampled = given.sampled or None
    config = MultVAEConfig(hidden_dim=given.width, latent_dim=given.width // 2, sampled_items=sampled)
    model = config.build(ModelInputs(matrix, {}, 0))
    history, rng = ResidentInteractions(matrix), torch.Generator().manual_seed(0)
    optimiser = RowAdam(model.parameters(), fused=True)
    began = spent = 0.0
    for step, batch in enumerate(model.batches(history, np.random.default_rng(0), given.batch_size)):
        if step == 2:
            began, spent = time.perf_counter(), time.process_time()
        if step == 2 + given.steps:
            break
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(model.loss(cast(UserBatch, batch), rng, step).values())).sum().backward()
        optimiser.step()
    seconds, processor = time.perf_counter() - began, time.process_time() - spent
    trained = peak_memory()
    began = time.perf_counter()
    recommend(model, history, history, _K, users=np.arange(_LISTED))
    return {
        "users": n_users,
        "items": n_items,
        "width": given.width,
        "sampled_items": sampled,
        "step_s": seconds / given.steps,
        "step_cpu_s": processor / given.steps,
        "epoch_cpu_s": processor / given.steps * -(-n_users // given.batch_size),
        "peak_memory_bytes": trained,
        "tables_bytes": 2 * 3 * 4 * n_items * given.width,
        "lists_s": time.perf_counter() - began,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100000x100000,1000000x1000000", help="users x items, separated by commas")
    parser.add_argument("--full-up-to", type=int, default=100_000, help="items up to which all of them are also taken")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--sampled", type=int, default=8192)
    parser.add_argument("--per-user", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given.one, given)))
        return
    shared = {name: getattr(given, name) for name in ("width", "per_user", "batch_size", "steps", "threads")}
    rows = []
    for size in given.sizes.split(","):
        n_items = int(size.split("x")[1])
        for sampled in (given.sampled, *([0] if n_items <= given.full_up_to else [])):
            rows.append(apart("large_catalogue", one=size, sampled=sampled, **shared))
    if given.json:
        print(json.dumps(rows))
        return
    for row in rows:
        what = f"{row['sampled_items']:,} drawn" if row["sampled_items"] else "all items"
        print(
            f"{row['users']:,} x {row['items']:,}, width {row['width']}, {what}: step {row['step_s']:.3f} s"
            f" ({row['step_cpu_s']:.3f} of a processor), epoch {row['epoch_cpu_s']:.0f} processor seconds,"
            f" peak {row['peak_memory_bytes'] / 1e9:.2f} GB (tables {row['tables_bytes'] / 1e9:.2f}),"
            f" {_LISTED} exact lists {row['lists_s']:.1f} s"
        )


if __name__ == "__main__":
    main()
