"""Seconds from a loaded model to a Parquet file of everybody's list, part by part.

    python -m benchmarks.recommend [--users 23310] [--items 5237] [--k 100] [--dim 384] [--diversity 0.3] [--json]

The world is made up in the shape of Steam's: long-tailed items, about 13 training rows a user. The weights are random:
the time of a list does not depend on what is in it. What is timed is what `semalign recommend` does after the model is
loaded: lists, a reason for each place, columns, the file and its hash. Seconds are processor seconds: with one thread,
the wall time of an idle machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from benchmarks.dmrec_epoch import unit_vectors
from flows.steps.reasons import nearest_in_history
from rec_models import InteractionMatrix, diversified
from rec_models.evaluation import recommend
from rec_models.interactions import ResidentInteractions
from rec_models.models import MultVAEConfig
from rec_models.semantic import ModelInputs
from warehouse import arrow_table, file_sha256, write_parquet


def world(n_users: int, n_items: int, rng: np.random.Generator) -> InteractionMatrix:
    """Interactions with Zipf's items and geometric histories, at least one row a user."""
    lengths = 1 + rng.geometric(1 / 12.5, n_users)
    users = np.repeat(np.arange(n_users), lengths)
    shares = 1 / np.arange(1, n_items + 1) ** 0.8
    items = rng.choice(n_items, len(users), p=shares / shares.sum())
    return InteractionMatrix.from_pairs(users, items, None, n_users=n_users, n_items=n_items)


def seconds_of(given: argparse.Namespace) -> dict[str, float]:
    """Part → seconds."""
    rng, spent = np.random.default_rng(0), {}

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        began = time.process_time()
        yield
        spent[part] = time.process_time() - began

    train = world(given.users, given.items, rng)
    vectors = unit_vectors(given.items, given.dim, 0).numpy()
    present = np.ones(given.items, bool)
    torch.manual_seed(0)
    model = MultVAEConfig().build(ModelInputs(train, {}, 0)).eval()
    resident, everyone = ResidentInteractions(train), np.arange(given.users)
    depth = 5 * given.k if given.diversity else given.k
    with timed("lists"):
        items, scores = recommend(model, resident, resident, depth)
    if given.diversity:
        with timed("diversity"):
            items, scores = diversified(items, scores, vectors, present, given.diversity, given.k)
    with timed("reasons"):
        nearest = nearest_in_history(everyone, items, vectors, present, train.indptr, train.indices.astype(np.int64))
        told = np.array([f"near “A title of item {n}” in their history" for n in range(given.items)], object)
        words = np.full(items.shape, None, object)
        words[nearest >= 0] = told[nearest[nearest >= 0]]
    with timed("columns"):
        users, ranks = np.nonzero(items >= 0)
        ids = np.array([str(n) for n in range(max(given.users, given.items))], object)
        one = np.full(len(users), "0123456789abcdef", object)
        columns = {"user_id": ids[users], "rank": (ranks + 1).astype(np.int32), "item_id": ids[items[users, ranks]]}
        columns |= {"score": scores[users, ranks].astype(np.float64), "reason": words[users, ranks]}
        rows = arrow_table("recommendations", columns | {"model": one, "snapshot": one, "variant": one})
    with tempfile.TemporaryDirectory() as folder, timed("file"):
        write_parquet(Path(folder) / "lists.parquet", rows)
        file_sha256(Path(folder) / "lists.parquet")
        n_bytes = (Path(folder) / "lists.parquet").stat().st_size
    return spent | {"all": sum(spent.values()), "rows": rows.num_rows, "bytes": n_bytes}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", type=int, default=23_310)
    parser.add_argument("--items", type=int, default=5_237)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--diversity", type=float, default=0.0)
    parser.add_argument("--json", action="store_true", help="one JSON document and nothing else")
    given = parser.parse_args()
    spent = seconds_of(given)
    if given.json:
        print(json.dumps({"torch_threads": torch.get_num_threads(), **spent}))
        return
    for part, value in spent.items():
        print(f"{part:>10} {value:12,.2f}{' s' if part not in ('rows', 'bytes') else ''}")


if __name__ == "__main__":
    main()
