"""Time, memory and quality of the closed-form baselines, beside the floor and beside a peer library.

    python -m benchmarks.linear_models ease [--items 17000] [--users 20000] [--each 40] [--json]
    python -m benchmarks.linear_models wmf INTERACTIONS.parquet [--dim 64] [--confidence 40] [--ridge 100] [--json]

`ease` solves random rows with items as unevenly popular as catalogues are. Its floor is n^3 operations, a Cholesky
factor's third and an inverse's two thirds, at the rate at which this machine multiplies matrices in the same run. The
lists of the first users are compared with those of a float64 solution where `--exact` asks for one (three times the
memory).

`wmf` needs a table with user_id and item_id, holds out a fifth of its rows, and races `implicit` where that is
installed: the same confidence, penalty, width and sweeps of three steps of conjugate gradients.

All seconds are processor seconds of one thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy.sparse import csr_matrix

from rec_models.evaluation import EvaluationConfig, evaluate, first_k
from rec_models.interactions import InteractionMatrix, ResidentInteractions, UserBatch
from rec_models.least_squares import gram
from rec_models.models import EASEConfig, WMFConfig
from rec_models.recommender import ClosedFormRecommender, Recommender
from rec_models.semantic import ModelInputs

_COMPARED = 200


def processor_seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def products_a_second(n: int = 2048) -> float:
    """The best rate of a square product; multiply and add count as two."""
    left, right = torch.randn(n, n), torch.randn(n, n)
    return 2 * n**3 / min(processor_seconds(lambda: left @ right) for _ in range(5))


def random_rows(n_users: int, n_items: int, each: int) -> InteractionMatrix:
    """Users with `each` draws of items whose popularity falls as one over the square root of their rank."""
    rng = np.random.default_rng(0)
    share = 1 / np.sqrt(np.arange(1, n_items + 1))
    items = rng.choice(n_items, n_users * each, p=share / share.sum())
    return InteractionMatrix.from_pairs(
        np.repeat(np.arange(n_users), each), items, None, n_users=n_users, n_items=n_items
    )


def ease(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds and gigabytes of a solution, its floor, and how far its lists are from exact ones."""
    train = random_rows(given.users, given.items, given.each)
    rate = products_a_second()
    config = EASEConfig(regularization=500.0)
    model = config.build(ModelInputs(train, {}, 0))
    products = processor_seconds(lambda: gram(train, torch.device("cpu")))
    seconds = processor_seconds(lambda: model.fit(train))
    floor = given.items**3 / rate
    row: dict[str, Any] = {
        "items": given.items,
        "interactions": train.nnz,
        "gflops": rate / 1e9,
        "gram_s": products,
        "fit_s": seconds,
        "floor_s": floor,
        "ratio": seconds / floor,
        "ratio_without_gram": (seconds - products) / floor,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    return row | (_exactness(model, train, config.regularization) if given.exact else {})


def _exactness(model: ClosedFormRecommender, train: InteractionMatrix, regularization: float) -> dict[str, float]:
    """How lists of float32 differ from those of float64."""
    batch = ResidentInteractions(train).batch(np.arange(_COMPARED))
    found = model.scores(batch)
    exact = gram(train, torch.device("cpu")).double()
    exact.diagonal().add_(regularization)
    exact = torch.cholesky_inverse(torch.linalg.cholesky(exact))
    exact.div_(-exact.diagonal().clone()).fill_diagonal_(0)
    rows = torch.zeros(len(batch), train.n_items, dtype=torch.float64)
    rows[batch.rows, batch.items] = 1
    reference = rows @ exact
    for scores in (found, reference):
        scores[batch.rows, batch.items] = -torch.inf
    lists = [first_k(scores.float(), 20)[1] for scores in (found, reference)]
    same = [len(set(a.tolist()) & set(b.tolist())) / 20 for a, b in zip(*lists, strict=True)]
    finite = torch.isfinite(reference)
    error = (found[finite].double() - reference[finite]).abs().max()
    return {"largest_error": float(error), "top20_overlap": float(np.mean(same))}


def random_parts(path: Path) -> tuple[InteractionMatrix, InteractionMatrix]:
    """Four fifths of a table's rows and the rest, over the ids of all of them."""
    table = pq.read_table(path, columns=["user_id", "item_id"])
    users, items = (np.unique(table[name].to_numpy(), return_inverse=True) for name in ("user_id", "item_id"))
    held_out = np.random.default_rng(0).random(table.num_rows) < 0.2
    sizes = {"n_users": len(users[0]), "n_items": len(items[0])}
    train, valid = (
        InteractionMatrix.from_pairs(users[1][part], items[1][part], None, **sizes) for part in (~held_out, held_out)
    )
    return train, valid


class Fixed(Recommender):
    """Scores from tables that somebody else has learnt."""

    def __init__(self, users: torch.Tensor, items: torch.Tensor) -> None:
        super().__init__()
        self.users, self.items = users, items

    def scores(self, batch: UserBatch) -> torch.Tensor:
        """(batch, n_items)."""
        return self.users[batch.users] @ self.items.t()


def wmf(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds and validation metrics of our WMF, and of implicit's where it is installed."""
    train, valid = random_parts(given.interactions)
    history, settings = ResidentInteractions(train), EvaluationConfig()
    config = WMFConfig(dim=given.dim, confidence=given.confidence, ridge=given.ridge)
    model = config.build(ModelInputs(train, {}, 0))
    row: dict[str, Any] = {"interactions": train.nnz, "fit_s": processor_seconds(lambda: model.fit(train))}
    began = time.process_time()
    row |= evaluate(model.eval(), history, valid, settings, part="valid").means()
    row["valid_s"] = time.process_time() - began
    if importlib.util.find_spec("implicit") is None:
        return row | {"peer": "implicit is not installed"}
    from implicit.als import AlternatingLeastSquares  # type: ignore[import-not-found]

    # Its confidence is what a taken item weighs in all, ours what it weighs beyond the 1 of any other.
    peer = AlternatingLeastSquares(
        factors=given.dim,
        alpha=1 + given.confidence,
        regularization=given.ridge,
        iterations=config.sweeps,
        num_threads=1,
        random_state=0,
        use_gpu=False,
    )
    rows = csr_matrix(train.csr())
    row["peer_fit_s"] = processor_seconds(lambda: peer.fit(rows, show_progress=False))
    fixed = Fixed(torch.from_numpy(np.array(peer.user_factors)), torch.from_numpy(np.array(peer.item_factors)))
    found = evaluate(fixed, history, valid, settings, part="valid").means()
    return row | {f"peer_{name}": value for name, value in found.items()}


def main() -> None:
    """Prints one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    models = parser.add_subparsers(dest="model", required=True)
    one = models.add_parser("ease")
    one.add_argument("--items", type=int, default=17_000)
    one.add_argument("--users", type=int, default=20_000)
    one.add_argument("--each", type=int, default=40)
    one.add_argument("--exact", action="store_true")
    two = models.add_parser("wmf")
    two.add_argument("interactions", type=Path)
    two.add_argument("--dim", type=int, default=64)
    two.add_argument("--confidence", type=float, default=40.0)
    two.add_argument("--ridge", type=float, default=100.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    row = ease(given) if given.model == "ease" else wmf(given)
    if given.json:
        print(json.dumps(row))
        return
    for name, value in row.items():
        print(f"{name:22}{value:12.4f}" if isinstance(value, float) else f"{name:22}{value!s:>12}")


if __name__ == "__main__":
    main()
