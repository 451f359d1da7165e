"""Time of a training epoch and a validation pass of every base, alone and inside DMRec, beside the floor.

    python -m benchmarks.base_epochs INTERACTIONS.parquet [--rounds 3] [--precision float32] [--dim 1536]
                                     [--batch-size 1024] [--json]

The table needs user_id, item_id and split, such as the amazon_book set. Seconds are processor seconds of one thread, so
that a busy machine tells the same as an idle one. The floor is the time of the dense matrix products alone at the rate
that this machine multiplies matrices of the decoder's shape: three a layer in training, one in ranking.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.dmrec_epoch import read_parts, unit_vectors
from rec_models.blocks import products_with_all
from rec_models.evaluation import EvaluationConfig, evaluate
from rec_models.interactions import ResidentInteractions
from rec_models.memory import keep_freed_memory
from rec_models.models import CVGAConfig, DMRecConfig, LDiffRecConfig, MultVAEConfig
from rec_models.models.dmrec import DMRec
from rec_models.recommender import GradientRecommender, RecommenderConfig
from rec_models.semantic import ModelInputs, SemanticMatrix

BASES = {"mult_vae": MultVAEConfig(), "cvga": CVGAConfig(), "l_diffrec": LDiffRecConfig(clusters=2)}


def processor_seconds(work: Callable[[], object], rounds: int) -> list[float]:
    """Of each round, after one that nobody counts."""
    work()
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return spent


def flops_a_second(rows: int, n_items: int, dtype: torch.dtype) -> float:
    """The best rate of the product that dominates every model here; multiply and add count as two."""
    hidden, weight = torch.randn(rows, 600).to(dtype), torch.randn(n_items, 600).to(dtype)
    return 2 * rows * n_items * 600 / min(processor_seconds(lambda: products_with_all(hidden, weight), 10))


def row(config: RecommenderConfig, inputs: ModelInputs, valid: object, given: argparse.Namespace) -> dict[str, float]:
    """Processor seconds of an epoch and of a validation pass, and the floor of each."""
    torch.manual_seed(0)
    model, history = config.build(inputs), ResidentInteractions(inputs.train)
    assert isinstance(model, GradientRecommender)
    groups = [{"params": group.parameters} for group in model.parameter_groups()]
    optimiser, rng = torch.optim.Adam(groups, lr=1e-3, fused=True), torch.Generator().manual_seed(0)
    low = torch.autocast("cpu", torch.bfloat16, enabled=given.precision == "bfloat16")

    def epoch() -> None:
        model.train()
        for start in range(0, inputs.n_users, given.batch_size):
            batch = history.batch(np.arange(start, min(start + given.batch_size, inputs.n_users)))
            with low:
                loss = torch.stack(list(model.loss(batch, rng, 1000).values())).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

    def validate() -> None:
        with low:
            evaluate(model, history, valid, EvaluationConfig(), part="valid")  # type: ignore[arg-type]

    dense = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, torch.nn.Linear))
    frozen = model.meta_network.hidden.weight.numel() if isinstance(model, DMRec) else 0  # no gradient of its input
    rate = flops_a_second(given.batch_size, inputs.n_items, torch.bfloat16 if low._enabled else torch.float32)
    return {
        "epoch_s": statistics.median(processor_seconds(epoch, given.rounds)),
        "epoch_floor_s": (6 * dense - 2 * frozen) * inputs.n_users / rate,
        "validation_s": statistics.median(processor_seconds(validate, given.rounds)),
        "validation_floor_s": 2 * dense * inputs.n_users / rate,
        "gflops": rate / 1e9,
    }


def main() -> None:
    """Prints one row a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interactions", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--dim", type=int, default=1536)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    parts = read_parts(given.interactions)
    train = parts["train"]
    vectors = {"items": unit_vectors(train.n_items, given.dim, 0), "users": unit_vectors(train.n_users, given.dim, 1)}
    semantic = {name: SemanticMatrix(v, torch.ones(len(v), dtype=torch.bool)) for name, v in vectors.items()}
    inputs = ModelInputs(train, semantic, 0, torch.arange(train.n_items) % 2)
    for name, base in BASES.items():
        for label, config in ((name, base), (f"dmrec on {name}", DMRecConfig(base=base))):
            found = row(config, inputs, parts["valid"], given)
            if given.json:
                print(json.dumps({"model": label} | found), flush=True)
            else:
                print(label, *(f"{what} {value:.2f}" for what, value in found.items()), sep="  ", flush=True)


if __name__ == "__main__":
    main()
