"""Race: one training epoch and one validation pass of DMRec-M, ours against the dense reference, in turn.

    python -m benchmarks.dmrec_epoch INTERACTIONS.parquet [--rounds 3] [--precision auto] [--dim 1536]
                                     [--batch-size 1024] [--json]

The table needs user_id, item_id and split (train/valid/test), such as the amazon_book set. Vectors are drawn at random:
speed does not depend on what they mean. The reference computes in float32, as its authors do; ours in
the precision asked for, which is `training.precision` of a run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import scipy.sparse
import torch

from benchmarks.dense_reference import DenseDMRec, epoch, validate
from benchmarks.sides import apart, compared, peak_memory
from rec_models.evaluation import EvaluationConfig, evaluate
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.memory import keep_freed_memory
from rec_models.models import DMRecConfig, MultVAEConfig
from rec_models.semantic import ModelInputs, SemanticMatrix
from rec_models.training import TrainingConfig


def read_parts(path: Path) -> dict[str, InteractionMatrix]:
    """train, valid and test as matrices over the ids of the whole table."""
    table = pq.read_table(path, columns=["user_id", "item_id", "split"])
    users, items = (np.unique(table[name].to_numpy(), return_inverse=True) for name in ("user_id", "item_id"))
    split = np.array(table["split"].to_pylist())
    sizes = {"n_users": len(users[0]), "n_items": len(items[0])}
    return {
        part: InteractionMatrix.from_pairs(users[1][split == part], items[1][split == part], None, **sizes)
        for part in ("train", "valid", "test")
    }


def unit_vectors(rows: int, dim: int, seed: int) -> torch.Tensor:
    """(rows, dim) random directions."""
    drawn = np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)
    return torch.from_numpy(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


class Ours:
    """One epoch and one validation pass with the library's own parts, in the order its loop uses them."""

    def __init__(
        self, parts: dict[str, InteractionMatrix], items: torch.Tensor, users: torch.Tensor, given: argparse.Namespace
    ):
        everywhere = {"items": items, "users": users}
        semantic = {name: SemanticMatrix(v, torch.ones(len(v), dtype=torch.bool)) for name, v in everywhere.items()}
        config = DMRecConfig(base=MultVAEConfig(dropout=0.3))
        self.model = config.build(ModelInputs(parts["train"], semantic, 0))
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.history, self.valid = ResidentInteractions(parts["train"]), parts["valid"]
        self.batch_size = given.batch_size
        precision = TrainingConfig(precision=given.precision).resolved_precision(torch.device("cpu"))
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
        self.rng = torch.Generator().manual_seed(0)

    def epoch(self) -> None:
        """All users once."""
        self.model.train()
        order = np.random.permutation(self.history.n_users)
        for start in range(0, len(order), self.batch_size):
            batch = self.history.batch(order[start : start + self.batch_size])
            with self.autocast:
                loss = torch.stack(list(self.model.loss(batch, self.rng, 0).values())).sum()
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            assert np.isfinite(loss.item())
            self.optimiser.step()

    def validate(self) -> dict[str, float]:
        """recall and NDCG over the validation users."""
        settings = EvaluationConfig(ks=(5, 10, 20))
        with self.autocast:
            return evaluate(self.model, self.history, self.valid, settings, part="valid").means()


class Reference:
    """The same with the dense reference."""

    def __init__(
        self, parts: dict[str, InteractionMatrix], items: torch.Tensor, users: torch.Tensor, given: argparse.Namespace
    ):
        self.model = DenseDMRec(items, users, hidden=600, latent=200, dropout=0.3, beta=0.5)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.rows = {}
        for name, part in parts.items():
            self.rows[name] = scipy.sparse.csr_matrix((part.values, part.indices, part.indptr), part.shape)
        self.batch_size = given.batch_size

    def epoch(self) -> None:
        """All users once."""
        epoch(self.model, self.optimiser, self.rows["train"], self.batch_size)

    def validate(self) -> dict[str, float]:
        """recall and NDCG over the validation users."""
        return validate(self.model, self.rows["train"], self.rows["valid"], (5, 10, 20))


SIDES = {"ours": Ours, "reference": Reference}


def one_side(side: str, given: argparse.Namespace) -> dict[str, float]:
    """Seconds of the second epoch and of a validation pass, and the peak memory, in this process alone."""
    if side == "ours":
        keep_freed_memory()  # as `python -m rec_models train` does
    parts = read_parts(given.interactions)
    items, users = (
        unit_vectors(parts["train"].n_items, given.dim, 1),
        unit_vectors(parts["train"].n_users, given.dim, 2),
    )
    runner = SIDES[side](parts, items, users, given)
    runner.epoch()
    seconds = {name: _timed(getattr(runner, name)) for name in ("epoch", "validate")}
    return seconds | {"peak_memory_bytes": peak_memory()}


def race(given: argparse.Namespace) -> dict[str, Any]:
    """Medians of both sides and the ratio round by round, each side in a process of its own, in turn."""
    rounds = [{side: _process(side, given) for side in SIDES} for _ in range(given.rounds)]
    found = {"threads": torch.get_num_threads()}
    found |= {name: getattr(given, name) for name in ("precision", "dim", "batch_size")}
    return found | compared(rounds, ("epoch", "validate"), "reference")


def _process(side: str, given: argparse.Namespace) -> dict[str, float]:
    options = {name: getattr(given, name) for name in ("dim", "batch_size", "precision")}
    return apart("dmrec_epoch", given.interactions, side=side, **options)


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interactions", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dim", type=int, default=1536)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--side", choices=list(SIDES), help="run one side and print its seconds")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.side:
        print(json.dumps(one_side(given.side, given)))
        return
    found = race(given)
    if given.json:
        print(json.dumps(found))
        return
    for name in ("epoch", "validate"):
        row = found[name]
        seconds = f"{row['ours_s']:.2f} s against {row['reference_s']:.2f} s"
        print(f"{name}: {seconds}: {row['ratio']:.2f}x ({row['low']:.2f}-{row['high']:.2f})")
    peaks = {side: f"{peak / 1e9:.2f} GB" for side, peak in found["peak_memory_bytes"].items()}
    print(f"peak memory: {peaks}, threads: {found['threads']}")


if __name__ == "__main__":
    main()
