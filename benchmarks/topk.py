"""Race: lists for users of a catalogue of a million items, against the bare products and against implicit.

    python -m benchmarks.topk [--users 1024] [--items 1000000] [--dim 64] [--k 100] [--rounds 3] [--threads 1]
        [--implicit PYTHON] [--json]

The users are a sample: seconds are multiplied up to a million of them, memory is not. 20 items of each user are masked.
`bare` multiplies and takes the k best of every row. PYTHON is the interpreter of an environment that holds implicit.
Every side is a process of its own, all in turn; implicit's lists have to be ours.
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

from benchmarks.ranking import PEERS, Products, World, show
from benchmarks.sides import apart, peak_memory, ratios
from rec_models.blocks import products_with_all
from rec_models.evaluation import recommend
from rec_models.interactions import ResidentInteractions
from rec_models.memory import keep_freed_memory

MILLION = 1_000_000
_BARE_USERS_AT_ONCE = 64


def one_side(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds, peak memory and where the lists were left, in this process alone."""
    keep_freed_memory()
    folder = Path(given.folder)
    users, items = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("users", "items"))
    if given.side == "ours":
        world = object.__new__(World)
        world.users, world.items = users.numpy(), items.numpy()
        taken = ResidentInteractions(world.matrix(np.load(folder / "masked.npy")))
        began = time.perf_counter()
        found = recommend(Products(users, items), taken, taken, given.k)[0]
        np.save(folder / "ours.npy", found)
    else:
        began = time.perf_counter()
        for start in range(0, len(users), _BARE_USERS_AT_ONCE):
            torch.topk(products_with_all(users[start : start + _BARE_USERS_AT_ONCE], items), given.k, dim=1)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak_memory_bytes": peak_memory()}


def race(given: argparse.Namespace) -> dict[str, Any]:
    """Medians, seconds for a million users, and ratios round by round; larger ratios are better for us."""
    world = World(given.users, given.items, given.dim)
    rounds: list[dict[str, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory(prefix="topk") as scratch:
        folder = Path(scratch)
        world.write(folder)
        for _ in range(given.rounds):
            found = {side: _process(side, given, folder) for side in ("ours", "bare")}
            if given.implicit:
                command = [given.implicit, str((PEERS / "implicit_topk.py").resolve()), scratch]
                subprocess.run([*command, str(given.threads), str(given.k)], check=True, stdout=subprocess.DEVNULL)
                found["implicit"] = json.loads((folder / "result.json").read_text())
            rounds.append(found)
        if given.implicit:
            same = (np.sort(np.load(folder / "ours.npy")) == np.sort(np.load(folder / "found.npy"))).mean()
            if same < 0.999:  # equal products may be added in another order
                raise SystemExit(f"implicit lists {same:.1%} of our items: no race")
    report: dict[str, Any] = {
        "users": given.users, "items": given.items, "dim": given.dim, "k": given.k, "threads": given.threads
    }  # fmt: skip
    for side in rounds[0]:
        seconds = [found[side]["seconds"] for found in rounds]
        report[side] = {
            "seconds_for_a_million": statistics.median(seconds) * MILLION / given.users,
            "peak_memory_bytes": max(found[side]["peak_memory_bytes"] for found in rounds),
        } | ratios(seconds, [found["ours"]["seconds"] for found in rounds])
    return report


def _process(side: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    return apart("topk", side=side, folder=folder, k=given.k, threads=given.threads)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1024)
    parser.add_argument("--items", type=int, default=MILLION)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--implicit", metavar="PYTHON")
    parser.add_argument("--side", choices=("ours", "bare"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.side:
        print(json.dumps(one_side(given)))
        return
    show(race(given), given.json)


if __name__ == "__main__":
    main()
