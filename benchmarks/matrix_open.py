"""Race: a semantic matrix built from Parquet against pyarrow's bare decoding; then opened, read and patched.

    python -m benchmarks.matrix_open [--rows 1000000] [--width 384] [--changed 0.01] [--rounds 3] [--json]

Every measurement is a process of its own over one warehouse, so memory and caches of one say nothing of another; the
files lie in the page cache. `build` hashes the whole table, decodes it, writes and syncs the matrix; `bare` only
decodes the same columns into memory. `patch` builds the matrix of a snapshot in which some vectors changed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute  # noqa: F401  # loaded before any clock runs, as in a process that has read its tables
import pyarrow.parquet as pq

from benchmarks.sides import apart
from warehouse import MatrixSpec, Warehouse, arrow_table
from warehouse.matrices import MatrixStore  # noqa: F401

TABLE = "embeddings_race"
SIDES = ("bare", "build", "open", "patch")


def spec(given: argparse.Namespace, key: str) -> MatrixSpec:
    """The matrix of all items, in the order of their numbers."""
    return MatrixSpec(key, TABLE, "item", tuple(map(str, range(given.rows))), "race")


def rows_of(numbers: np.ndarray, width: int, version: int) -> Any:
    """Random unit vectors of some items, their hashes telling the version."""
    drawn = np.random.default_rng(version).standard_normal((len(numbers), width), np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    hashes = [f"{version:032x}{number:032x}" if version else f"{number:064x}" for number in numbers.tolist()]
    columns = {"kind": ["item"] * len(numbers), "entity_id": [str(number) for number in numbers.tolist()]}
    return arrow_table(TABLE, {**columns, "text_hash": hashes, "embedding": drawn})


def prepare(given: argparse.Namespace) -> None:
    """Two snapshots: all rows, then some of them new in a fragment of their own, as the embed stage leaves them."""
    warehouse = Warehouse(given.root)
    numbers = np.arange(given.rows)
    changed = np.sort(np.random.default_rng(9).choice(given.rows, max(1, int(given.rows * given.changed)), False))
    whole = rows_of(numbers, given.width, 0)
    with warehouse.lock():
        builder = warehouse.begin(None)
        builder.replace(TABLE, whole)
        first = warehouse.publish(builder.commit())
        builder = warehouse.begin(first)
        builder.replace(TABLE, whole.take(np.setdiff1d(numbers, changed)))
        builder.append(TABLE, rows_of(changed, given.width, 1))
        warehouse.publish(builder.commit())


def measure(given: argparse.Namespace) -> dict[str, float]:
    """Seconds and memory of one side, in a process that has done nothing else."""
    warehouse = Warehouse(given.root)
    second, first = warehouse.snapshots()
    wanted = {key: spec(given, key) for key in ("first", "second")}
    for each in wanted.values():
        assert each.family  # the ids are hashed here: they are not part of reading a table
    before, started = resident_mb(), time.perf_counter()
    found: dict[str, float] = {}
    if given.side == "bare":
        for fragment in first.tables[TABLE]:
            decoded = pq.read_table(fragment.path, columns=["kind", "entity_id", "text_hash", "embedding"])
            assert decoded.num_rows == fragment.rows
    elif given.side == "patch":
        assert warehouse.matrix(second, wanted["second"]).patch is not None
    else:
        values, _ = warehouse.matrix(first, wanted["first"]).open()
        found["resident_mb"] = resident_mb() - before
        if given.side == "open":
            found["seconds"] = time.perf_counter() - started
            buffer, began = np.empty_like(values[:8192]), time.perf_counter()
            for start in range(0, len(values), len(buffer)):
                block = values[start : start + len(buffer)]
                np.copyto(buffer[: len(block)], block)
            found["read_gb_per_s"] = values.nbytes / (time.perf_counter() - began) / 1e9
    return {"seconds": time.perf_counter() - started, "peak_mb": peak_mb() - before} | found


def resident_mb() -> float:
    """Memory of this process now."""
    return _status_kib("VmRSS") / 1024


def peak_mb() -> float:
    """Most memory this process ever had."""
    return _status_kib("VmHWM") / 1024


def _status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def race(given: argparse.Namespace) -> dict[str, Any]:
    """All sides in turn, round after round."""
    seen: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory(dir=given.root) as root:
        _process("prepare", given, root)
        for _ in range(given.rounds):
            shutil.rmtree(Path(root) / "matrices", ignore_errors=True)
            for side in SIDES:
                seen[side].append(_process(side, given, root))
    middle = {
        side: {name: round(statistics.median(one[name] for one in many), 4) for name in many[0]}
        for side, many in seen.items()
    }
    size_mb = given.rows * given.width * 4 / 2**20
    return {
        "matrix_mb": round(size_mb, 1),
        "build_against_bare_speed": round(middle["bare"]["seconds"] / middle["build"]["seconds"], 3),
        "build_peak_of_matrix": round(middle["build"]["peak_mb"] / size_mb, 3),
        "patch_of_build": round(middle["patch"]["seconds"] / middle["build"]["seconds"], 3),
        "median": middle,
        "all_seconds": {side: [round(one["seconds"], 4) for one in many] for side, many in seen.items()},
    }


def _process(side: str, given: argparse.Namespace, root: str) -> Any:
    return apart("matrix_open", side=side, root=root, rows=given.rows, width=given.width, changed=given.changed)


def main() -> None:
    """Prints the race as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--changed", type=float, default=0.01)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--root", help="where the warehouse is made and removed; a temporary folder by default")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=("prepare", *SIDES), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side == "prepare":
        prepare(given)
    elif given.side:
        print(json.dumps(measure(given)))
    else:
        print(json.dumps(race(given), indent=None if given.json else 2))


if __name__ == "__main__":
    main()
