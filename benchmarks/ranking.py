"""Race: full-ranking evaluation against other libraries, and against the products and the sorting it cannot do without.

    python -m benchmarks.ranking [--users 100000] [--items 50000] [--dim 200] [--rounds 3] [--threads 1]
        [--recbole PYTHON] [--rectools PYTHON] [--json]

Users lean a little to what they are to find; a user is scored by products with all items; 20 items are masked, 5 are
relevant. Recall and NDCG at 10, 20 and 50. `bare` multiplies and takes the 50 best of every row. PYTHON is the
interpreter of an environment that holds the library (`benchmarks/peers/*_ranking.py` say which versions were tried);
what it ranks is a part of the users (`--peer-users`), and its seconds are multiplied up. Each side runs in turn, and
all must agree on the recall of the users they share. Seconds are of the clock.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.sides import ratios
from rec_models import InteractionMatrix
from rec_models.blocks import products_with_all
from rec_models.evaluation import EvaluationConfig, evaluate
from rec_models.interactions import ResidentInteractions, UserBatch
from rec_models.memory import keep_freed_memory
from rec_models.recommender import Recommender

KS = (10, 20, 50)
PEERS = Path(__file__).parent / "peers"
_USERS_AT_ONCE = 1024
_MASKED, _RELEVANT = 20, 5


class Products(Recommender):
    """Scores that are products of given vectors."""

    def __init__(self, users: Tensor, items: Tensor) -> None:
        super().__init__()
        self.users, self.items = users, items

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items)."""
        return products_with_all(self.users[batch.users], self.items)


class World:
    """Vectors, what is masked and what is to be found, drawn from one seed."""

    def __init__(self, n_users: int, n_items: int, dim: int) -> None:
        rng = np.random.default_rng(0)
        self.users = rng.standard_normal((n_users, dim), dtype=np.float32)
        self.items = rng.standard_normal((n_items, dim), dtype=np.float32)
        # A permutation's stretch holds no item twice, and stretches that start elsewhere hold other items.
        order = rng.permutation(n_items)
        starts = rng.integers(0, n_items, n_users)
        drawn = order[(starts[:, None] + np.arange(_MASKED + _RELEVANT)) % n_items]
        self.masked, self.relevant = drawn[:, :_MASKED], drawn[:, _MASKED:]
        # enough for lists that differ to have a different recall
        self.users += 0.2 * self.items[self.relevant].sum(1)

    def matrix(self, items: np.ndarray) -> InteractionMatrix:
        """Rows of items as interactions."""
        n_users, each = items.shape
        rows = np.repeat(np.arange(n_users), each)
        return InteractionMatrix.from_pairs(rows, items.ravel(), None, n_users=n_users, n_items=len(self.items))

    def first(self, n_users: int) -> World:
        """The same of the first users."""
        part = object.__new__(World)
        part.users, part.items = self.users[:n_users], self.items
        part.masked, part.relevant = self.masked[:n_users], self.relevant[:n_users]
        return part

    def write(self, folder: Path) -> None:
        """Files that programs of other libraries read."""
        for name in ("users", "items", "masked", "relevant"):
            np.save(folder / f"{name}.npy", getattr(self, name))


def ours(world: World) -> dict[str, float]:
    """Seconds and recall of our evaluation."""
    model = Products(torch.from_numpy(world.users), torch.from_numpy(world.items))
    history, relevant = ResidentInteractions(world.matrix(world.masked)), world.matrix(world.relevant)
    began = time.perf_counter()
    found = evaluate(model, history, relevant, EvaluationConfig(ks=KS), part="test")
    return {"seconds": time.perf_counter() - began, "recall@20": found.means()["recall@20"]}


@torch.no_grad()
def bare(world: World) -> dict[str, float]:
    """Seconds of products and the best of each row."""
    users, items = torch.from_numpy(world.users), torch.from_numpy(world.items)
    began = time.perf_counter()
    for start in range(0, len(users), _USERS_AT_ONCE):
        torch.topk(products_with_all(users[start : start + _USERS_AT_ONCE], items), max(KS), dim=1)
    return {"seconds": time.perf_counter() - began}


def peer(name: str, python: str, world: World, threads: int) -> dict[str, float]:
    """Seconds and recall of another library, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="ranking") as scratch:
        world.write(Path(scratch))
        command = [python, str((PEERS / f"{name}_ranking.py").resolve()), scratch, str(threads)]
        subprocess.run(command, check=True, cwd=scratch, stdout=subprocess.DEVNULL)
        return json.loads((Path(scratch) / "result.json").read_text())


def race(given: argparse.Namespace) -> dict[str, Any]:
    """Medians and ratios, round by round; larger ratios are better for us."""
    world = World(given.users, given.items, given.dim)
    part = world.first(min(given.peer_users, given.users))
    scale = len(world.users) / len(part.users)
    pythons = {name: python for name in ("recbole", "rectools") if (python := getattr(given, name))}
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(given.rounds):
        found = {"ours": ours(world), "bare": bare(world)}
        found |= {name: peer(name, python, part, given.threads) for name, python in pythons.items()}
        rounds.append(found)
    agreed = ours(part)["recall@20"]
    report: dict[str, Any] = {
        "users": len(world.users),
        "items": len(world.items),
        "dim": given.dim,
        "threads": given.threads,
        "peer_users": len(part.users),
        "recall@20": agreed,
    }
    for side in rounds[0]:
        factor = 1.0 if side in ("ours", "bare") else scale
        seconds = [found[side]["seconds"] * factor for found in rounds]
        report[side] = {"seconds": statistics.median(seconds)}
        report[side] |= ratios(seconds, [found["ours"]["seconds"] for found in rounds])
        if side in pythons:
            report[side]["recall@20"] = rounds[-1][side]["recall@20"]
            if abs(rounds[-1][side]["recall@20"] - agreed) > 1e-4:
                raise SystemExit(f"{side} finds recall@20 {rounds[-1][side]['recall@20']}, ours {agreed}: no race")
    return report


def show(report: dict[str, Any], as_json: bool) -> None:
    """Prints a report, one line a side."""
    if as_json:
        print(json.dumps(report))
        return
    for side, row in report.items():
        print(f"{side:12}", row if not isinstance(row, dict) else "  ".join(f"{k} {v:.4g}" for k, v in row.items()))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer-users", type=int, default=5000)
    parser.add_argument("--recbole", metavar="PYTHON")
    parser.add_argument("--rectools", metavar="PYTHON")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    show(race(given), given.json)


if __name__ == "__main__":
    main()
