"""Sinkhorn's speed beside its exponentials, and RecGOAT's alignment (CMCL + OAT) beside the products it contains.

    python -m benchmarks.transport [--batch 4096] [--dim 256] [--items 100000] [--modalities 2] [--steps 3]

Prints one JSON document. Times are of the processor, with one thread, so that a busy machine does not lengthen them.
The floor of a step is the time of its matrix products alone, at their shapes, measured in the same run: three for every
contrast and every matrix of distances, since each has one in each direction of its gradient. Memory is the peak of the
whole process, everything included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from benchmarks.sides import peak_memory
from rec_models import InteractionMatrix, parse_config
from rec_models.interactions import PairBatch, ResidentInteractions
from rec_models.memory import keep_freed_memory
from rec_models.models.recgoat import Heard, RecGOAT
from rec_models.semantic import ModelInputs, SemanticMatrix
from rec_models.transport import sinkhorn


def seconds(act: Callable[[], object], times: int) -> float:
    """Median processor seconds of a call, after one that is not counted."""
    act()
    taken = []
    for _ in range(times):
        began = time.process_time()
        act()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def solving(shape: tuple[int, ...], iterations: int) -> dict[str, float]:
    """Nanoseconds a cell and update of `sinkhorn`, and of the exponentials that an update cannot do without."""
    cost = torch.rand(shape)
    updates = 2 * iterations * cost.numel()
    ours = seconds(lambda: sinkhorn(cost, 0.1, iterations=iterations), 3)
    scratch = torch.empty_like(cost)
    floor = seconds(lambda: torch.exp2(cost, out=scratch), 20) * 2 * iterations
    return {"ns": 1e9 * ours / updates, "floor_ns": 1e9 * floor / updates, "ratio": ours / floor}


def one_item_each(items: int) -> InteractionMatrix:
    """One item of each user, drawn at random."""
    rng = np.random.default_rng(0)
    users = np.arange(items)
    return InteractionMatrix.from_pairs(users, rng.integers(0, items, items), None, n_users=items, n_items=items)


def model_of(items: int, dim: int, modalities: int) -> RecGOAT:
    """RecGOAT over random texts, without the graphs of neighbours, which play no part in alignment."""
    names = ["profiles", *(f"m{place}" for place in range(1, modalities))]
    everywhere = torch.ones(items, dtype=torch.bool)
    texts = {name: SemanticMatrix(torch.randn(items, 8), everywhere) for name in names}
    semantic = {"items" if name == "profiles" else f"items_{name}": text for name, text in texts.items()}
    options = {"dim": dim, "modalities": names, "attention_layers": 0, "user_init": "id", "user_graph": "none"}
    model = parse_config({"name": "recgoat"} | options).build(ModelInputs(one_item_each(items), semantic, 0))
    assert isinstance(model, RecGOAT)
    return model


def aligned(model: RecGOAT, tables: list[Tensor], batch: PairBatch, negatives: Tensor, rng: torch.Generator) -> None:
    """One step of alignment and its gradient, given what the graphs made of everybody."""
    users, ids, *languages = tables
    heard = Heard(users, ids, dict(zip(model.config.modalities, languages, strict=True)))
    some, places = torch.unique(torch.cat([batch.items, negatives]), return_inverse=True)
    taken, drawn = places.split(len(batch))
    found = model.fused(heard, some, rng)
    (model.contrast(users[batch.users], found, taken, drawn) + found.cost).backward()
    for table in tables:
        table.grad = None


def products(batch: PairBatch, negatives: Tensor, dim: int, modalities: int, chosen: int) -> float:
    """Processor seconds of the products in one step of `aligned`."""
    taken, drawn = len(torch.unique(batch.items)), len(torch.unique(negatives))
    pairs = len(list(combinations(range(modalities + 1), 2)))
    shapes = [(len(batch), taken, 3), (taken, taken, 3 * pairs), (drawn, drawn, 3 * pairs)]
    shapes.append((chosen, chosen, 9 * modalities))
    total = 0.0
    for rows, columns, times in shapes:
        a, b = torch.randn(rows, dim), torch.randn(dim, columns)
        total += times * seconds(lambda a=a, b=b: a @ b, 3)
    table, square = torch.randn(taken + drawn, dim), torch.randn(dim, dim)
    return total + 3 * modalities * seconds(lambda: table @ square, 3)  # the maps, and their gradients


def aligning(batch: int, dim: int, items: int, modalities: int, steps: int) -> dict[str, float]:
    """Seconds a step, those of its products, and the peak of memory in bytes."""
    model = model_of(items, dim, modalities)
    history, rng = ResidentInteractions(one_item_each(items)), torch.Generator().manual_seed(0)
    pairs = history.pairs(np.random.default_rng(0).permutation(items)[:batch])
    negatives = pairs.negatives(rng).squeeze(1)
    tables = [torch.randn(items, dim, requires_grad=True) for _ in range(2 + modalities)]
    step = seconds(lambda: aligned(model, tables, pairs, negatives, rng), steps)
    peak = peak_memory()
    floor = products(pairs, negatives, dim, modalities, model.config.oat_items)
    return {"seconds": step, "products_seconds": floor, "ratio": step / floor, "peak_bytes": peak}


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("batch", 4096), ("dim", 256), ("items", 100_000), ("modalities", 2), ("steps", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    alignment = aligning(asked.batch, asked.dim, asked.items, asked.modalities, asked.steps)
    plans = {str(shape): solving(shape, 30) for shape in ((1024, 16, 16), (512, 512))}
    print(json.dumps({"alignment": alignment, "sinkhorn": plans, "torch": torch.__version__, "threads": 1}, indent=2))


if __name__ == "__main__":
    main()
