"""How long an analyst waits: `similar_items` over many vectors, and the first row of `semalign sql` on many rows.

    python -m benchmarks.sql_latency [--items 100000] [--width 384] [--interactions 1000000] [--rounds 5] [--json]

`cold` opens the catalogue of a published snapshot in a process that has not read it, and asks once; `warm` asks the
same open catalogue again. `first_row` is a whole `semalign sql` process on the snapshot, from start to end. Files lie
in the page cache and were hashed before, as after any run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sides import apart
from warehouse import Warehouse, arrow_table

ONE = "SELECT * FROM similar_items('77', k := 10)"
FIRST = "SELECT * FROM interactions LIMIT 1"


def prepare(given: argparse.Namespace) -> None:
    """A published snapshot with items, their unit vectors, and interactions."""
    rng = np.random.default_rng(0)
    names = [str(number) for number in range(given.items)]
    drawn = rng.standard_normal((given.items, given.width), np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    pairs = rng.choice(given.interactions * 8, given.interactions, replace=False)
    tables = {
        "items": {"item_id": names, "title": [f"Title {name}" for name in names], "attributes": ["{}"] * given.items},
        "embeddings_race": {
            "kind": ["item"] * given.items,
            "entity_id": names,
            "text_hash": [f"{number:064x}" for number in range(given.items)],
            "embedding": drawn,
        },
        "interactions": {
            "user_id": [str(user) for user in (pairs // 1000).tolist()],
            "item_id": [str(item) for item in (pairs % 1000).tolist()],
        },
    }
    warehouse = Warehouse(given.root)
    with warehouse.lock():
        builder = warehouse.begin(None)
        for name, columns in tables.items():
            builder.replace(name, arrow_table(name, columns))
        warehouse.publish(builder.commit())


def neighbours(given: argparse.Namespace) -> dict[str, float]:
    """Seconds of the first question and the middle of the next, this process having asked nothing before."""
    started = time.perf_counter()
    warehouse = Warehouse(given.root)
    with warehouse.catalogue(warehouse.current()) as catalogue:
        assert catalogue.query(ONE).num_rows == 10
        cold, again = time.perf_counter() - started, []
        for _ in range(5):
            started = time.perf_counter()
            catalogue.query(ONE)
            again.append(time.perf_counter() - started)
    return {"cold": cold, "warm": statistics.median(again)}


def race(given: argparse.Namespace) -> dict[str, Any]:
    """Every wait, round after round, each in a process of its own."""
    seen: dict[str, list[float]] = {"cold": [], "warm": [], "first_row": []}
    with tempfile.TemporaryDirectory() as root:
        _process("prepare", given, root)
        shell = [str(Path(sys.executable).with_name("semalign")), "sql", FIRST, "--root", root, "--format", "json"]
        for _ in range(given.rounds):
            for name, seconds in _process("neighbours", given, root).items():
                seen[name].append(seconds)
            started = time.perf_counter()
            assert json.loads(subprocess.run(shell, check=True, capture_output=True, text=True).stdout)
            seen["first_row"].append(time.perf_counter() - started)
    return {name: {"median": statistics.median(many), "all": many} for name, many in seen.items()}


def _process(side: str, given: argparse.Namespace, root: str) -> Any:
    sizes = {name: getattr(given, name) for name in ("items", "width", "interactions")}
    return apart("sql_latency", side=side, root=root, **sizes)


def main() -> None:
    """Prints the waits as JSON, in seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=("prepare", "neighbours"), help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side == "prepare":
        prepare(given)
    elif given.side:
        print(json.dumps(neighbours(given)))
    else:
        print(json.dumps(race(given), indent=None if given.json else 2))


if __name__ == "__main__":
    main()
