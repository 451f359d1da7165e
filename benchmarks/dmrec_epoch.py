"""Race: one training epoch and one validation pass of DMRec-M, ours against the dense reference, in turn.

    python -m benchmarks.dmrec_epoch INTERACTIONS.parquet [--rounds 3] [--dim 1536] [--batch-size 1024] [--json]

The table needs user_id, item_id and split (train/valid/test), such as the amazon_book set. Vectors are drawn at random:
speed does not depend on what they mean.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import scipy.sparse
import torch

from benchmarks.dense_reference import DenseDMRec, epoch, validate
from rec_models.evaluation import EvaluationConfig, evaluate
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.models import DMRecConfig, MultVAEConfig
from rec_models.semantic import ModelInputs, SemanticMatrix


def read_parts(path: Path) -> dict[str, InteractionMatrix]:
    """train and valid as matrices over the ids of the whole table."""
    table = pq.read_table(path, columns=["user_id", "item_id", "split"])
    users, items = (np.unique(table[name].to_numpy(), return_inverse=True) for name in ("user_id", "item_id"))
    split = np.array(table["split"].to_pylist())
    sizes = {"n_users": len(users[0]), "n_items": len(items[0])}
    return {
        part: InteractionMatrix.from_pairs(users[1][split == part], items[1][split == part], None, **sizes)
        for part in ("train", "valid")
    }


def unit_vectors(rows: int, dim: int, seed: int) -> torch.Tensor:
    """(rows, dim) random directions."""
    drawn = np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)
    return torch.from_numpy(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


class Ours:
    """One epoch and one validation pass with the library's own parts, in the order its loop uses them."""

    def __init__(self, parts: dict[str, InteractionMatrix], items: torch.Tensor, users: torch.Tensor, batch_size: int):
        everywhere = {"items": items, "users": users}
        semantic = {name: SemanticMatrix(v, torch.ones(len(v), dtype=torch.bool)) for name, v in everywhere.items()}
        config = DMRecConfig(base=MultVAEConfig(dropout=0.3))
        self.model = config.build(ModelInputs(parts["train"], semantic, 0))
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.history, self.valid, self.batch_size = ResidentInteractions(parts["train"]), parts["valid"], batch_size
        self.rng = torch.Generator().manual_seed(0)

    def epoch(self) -> None:
        """All users once."""
        self.model.train()
        order = np.random.permutation(self.history.n_users)
        for start in range(0, len(order), self.batch_size):
            batch = self.history.batch(order[start : start + self.batch_size])
            loss = torch.stack(list(self.model.loss(batch, self.rng, 0).values())).sum()
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            assert np.isfinite(loss.item())
            self.optimiser.step()

    def validate(self) -> dict[str, float]:
        """recall and NDCG over the validation users."""
        settings = EvaluationConfig(ks=(5, 10, 20))
        return evaluate(self.model, self.history, self.valid, settings, part="valid").means()


def race(parts: dict[str, InteractionMatrix], rounds: int, dim: int, batch_size: int) -> dict[str, Any]:
    """Seconds of both sides, round by round, and their ratios."""
    items, users = unit_vectors(parts["train"].n_items, dim, 1), unit_vectors(parts["train"].n_users, dim, 2)
    ours = Ours(parts, items, users, batch_size)
    ours.epoch()  # the peak of our own run, before the reference is built
    ours.validate()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    theirs = DenseDMRec(items, users, hidden=600, latent=200, dropout=0.3, beta=0.5)
    optimiser = torch.optim.Adam(theirs.parameters(), lr=1e-3)
    rows = {name: scipy.sparse.csr_matrix((m.values, m.indices, m.indptr), m.shape) for name, m in parts.items()}
    contests = {
        "epoch": (ours.epoch, lambda: epoch(theirs, optimiser, rows["train"], batch_size)),
        "validation": (ours.validate, lambda: validate(theirs, rows["train"], rows["valid"], (5, 10, 20))),
    }
    found: dict[str, Any] = {"peak_memory_bytes": peak, "threads": torch.get_num_threads(), "dim": dim}
    for name, sides in contests.items():
        seconds = [[_timed(side) for side in sides] for _ in range(rounds)]
        ratios = [dense / sparse for sparse, dense in seconds]
        found[name] = {
            "ours_s": statistics.median(pair[0] for pair in seconds),
            "reference_s": statistics.median(pair[1] for pair in seconds),
            "ratio": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
        }
    return found


def _timed(side: Any) -> float:
    began = time.perf_counter()
    side()
    return time.perf_counter() - began


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interactions", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dim", type=int, default=1536)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = race(read_parts(given.interactions), given.rounds, given.dim, given.batch_size)
    if given.json:
        print(json.dumps(found))
        return
    for name in ("epoch", "validation"):
        row = found[name]
        low, high = row["ratio_range"]
        print(
            f"{name}: {row['ours_s']:.2f} s against {row['reference_s']:.2f} s, {row['ratio']:.2f}x ({low:.2f}-{high:.2f})"
        )
    print(f"peak memory of our side: {found['peak_memory_bytes'] / 1e9:.2f} GB, threads: {found['threads']}")


if __name__ == "__main__":
    main()
