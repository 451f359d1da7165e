"""Speed of models on the graph: ways to multiply by the adjacency, and seconds an epoch, each beside its floor.

    python -m benchmarks.graph_epoch INTERACTIONS.parquet [--models lightgcn,rlmrec_c] [--steps 10] [--text-dim 384]

Vectors of texts are drawn at random: speed does not depend on what they mean. A product's floor is the time to copy the
rows it gathers, at the copying speed of blocks of the table's own size, which a cache holds. An epoch's floor is
that of its products, two a layer and step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from benchmarks.dmrec_epoch import read_parts, unit_vectors
from rec_models import InteractionMatrix, parse_config
from rec_models.evaluation import EvaluationConfig, evaluate
from rec_models.graph import SparseMatrix, adjacency
from rec_models.interactions import ResidentInteractions
from rec_models.memory import keep_freed_memory
from rec_models.recommender import GradientRecommender
from rec_models.semantic import ModelInputs, SemanticMatrix


def median_ms(act: Callable[[], object], times: int) -> float:
    """Median milliseconds of a call, after one that is not counted."""
    act()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return 1e3 * statistics.median(taken)


def copying_gb_per_s(n_bytes: int) -> float:
    """Bytes read a second while a block of this size is copied over and over."""
    block = torch.randn(n_bytes // 4)
    target = torch.empty_like(block)
    return n_bytes / median_ms(lambda: target.copy_(block), 200) / 1e6


def products(graph: SparseMatrix, table: Tensor) -> dict[str, Callable[[], object]]:
    """Every way to multiply that was tried, over the same entries."""
    starts, columns, values, shape = graph.starts, graph.columns, graph.values, graph.shape
    rows = torch.repeat_interleave(torch.arange(shape[0]), starts.diff())
    short = torch.sparse_csr_tensor(starts.int(), columns.int(), values, shape)
    long = torch.sparse_csr_tensor(starts, columns, values, shape)
    pairs = torch.sparse_coo_tensor(torch.stack([rows, columns]), values, shape).coalesce()
    host = scipy.sparse.csr_array((values.numpy(), columns.int().numpy(), starts.int().numpy()), shape)
    return {
        "bags of embeddings (ours)": lambda: graph(table),
        "torch CSR, int32": lambda: short @ table,
        "torch CSR, int64": lambda: long @ table,
        "torch COO": lambda: torch.sparse.mm(pairs, table),
        "gather and index_add": lambda: torch.zeros_like(table).index_add_(0, rows, table[columns] * values[:, None]),
        "gather and segment_reduce": lambda: torch.segment_reduce(
            table[columns] * values[:, None], "sum", offsets=starts
        ),
        "scipy CSR": lambda: host @ table.numpy(),
    }


def time_products(train: InteractionMatrix, dim: int) -> float:
    """Prints milliseconds of each product and returns the floor of one, in ms."""
    graph = adjacency(train)
    table = torch.randn(graph.shape[1], dim)
    gathered = 4 * dim * len(graph.values)
    floor = gathered / copying_gb_per_s(4 * table.numel()) / 1e6
    print(f"product with (nodes, {dim}): floor {floor:.2f} ms ({gathered / 1e6:.0f} MB gathered)")
    for name, act in products(graph, table).items():
        print(f"  {name:28s} {median_ms(act, 9):8.2f} ms")
    return floor


def time_epoch(name: str, inputs: ModelInputs, valid: InteractionMatrix, steps: int, floors: dict[int, float]) -> None:
    """Prints milliseconds a step, the epoch they make, a validation pass, and the floor of the products."""
    torch.manual_seed(0)
    config = parse_config({"name": name})
    model = config.build(inputs)
    assert isinstance(model, GradientRecommender)
    history, rng, order = ResidentInteractions(inputs.train), torch.Generator().manual_seed(0), np.random.default_rng(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    batches = list(model.batches(history, order, 1024))
    taken, busy = [], []  # beside other jobs a wall clock says little; what the processor spent says more
    for step in range(steps + 1):
        began, spent = time.perf_counter(), time.process_time()
        loss = torch.stack(list(model.loss(batches[step % len(batches)], rng, step).values())).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        assert np.isfinite(loss.item())
        optimiser.step()
        taken.append(time.perf_counter() - began)
        busy.append(time.process_time() - spent)
    step_s, busy_s = statistics.median(taken[1:]), statistics.median(busy[1:])
    validation_s = median_ms(lambda: evaluate(model, history, valid, EvaluationConfig(), part="valid"), 1) / 1e3
    settings = config.key()
    floor = floors.setdefault(settings["dim"], 0.0) or time_products(inputs.train, settings["dim"])
    floors[settings["dim"]] = floor
    epoch = f"{1e3 * step_s:.1f} ms a step ({1e3 * busy_s:.1f} of processor), {len(batches)} steps"
    epoch += f", {step_s * len(batches):.2f} s an epoch ({busy_s * len(batches):.2f})"
    print(f"{name}: {epoch} (products alone {2e-3 * settings['layers'] * len(batches) * floor:.2f} s)", end="")
    print(f"; validation {validation_s:.2f} s")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interactions", type=Path)
    parser.add_argument("--models", default="lightgcn,rlmrec_c,rlmrec_g,kar,llmrec,alpharec")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--text-dim", type=int, default=384)
    given = parser.parse_args()
    keep_freed_memory()  # as `python -m rec_models train` does
    parts = read_parts(given.interactions)
    train = parts["train"]
    semantic = {
        name: SemanticMatrix(unit_vectors(rows, given.text_dim, seed), torch.ones(rows, dtype=torch.bool))
        for name, rows, seed in (("items", train.n_items, 1), ("users", train.n_users, 2))
    }
    print(f"{train.n_users} users, {train.n_items} items, {train.nnz} interactions; {torch.get_num_threads()} threads")
    floors: dict[int, float] = {}
    for name in given.models.split(","):
        time_epoch(name, ModelInputs(train, semantic, 0), parts["valid"], given.steps, floors)


if __name__ == "__main__":
    main()
