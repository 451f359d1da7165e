"""All races, or some of them, as one table.

    python -m benchmarks all|NAME... [--data DIR] [--split FILE] [--recbole PYTHON] [--implicit PYTHON]
        [--rounds 3] [--threads 2] [--results FILE] [--json]

DIR holds the data sets (SEMALIGN_DATA by default), FILE is the split that the races against RecBole train on:
user_id, item_id (indices from 0) and split. Each PYTHON is the interpreter of an environment of its own that holds the
peers: RecBole; implicit and RecTools (`benchmarks/peers/*.py` say which versions were tried). A race that lacks what it
needs is `not run`, with what it lacks. Rows are written to FILE of `--results` after every race, and stand there until
the race is run again; without it they go to benchmarks/results/<processor>.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.races import RACES, Row

RESULTS = Path(__file__).parent / "results"
_VERSIONS = ("torch", "numpy", "scipy", "pyarrow", "duckdb", "openai", "sentence-transformers")


def processor() -> str:
    """Its name as the system tells it, and how many cores there are."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    bf16 = ", bfloat16 products" if "avx512_bf16" in flags else ""
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores{bf16}"


def run(name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one race; of a command of its that was not run a single one that says why."""
    paths = {
        "amazon_book": given.data and given.data / "amazon_book" / "interactions.parquet",
        "split": given.split,
        "recbole": given.recbole,
        "implicit": given.implicit,
        "rounds": given.rounds,
        "threads": given.threads,
    }
    race = RACES[name]
    return [row for command in race.commands for row in _rows(name, command, race.rows, paths)]


def _rows(name: str, command: str, rows: Callable[[Sequence[Any]], Iterator[Row]], paths: Mapping) -> list[dict]:
    asked = [field for _, field, _, _ in string.Formatter().parse(command) if field]
    about: dict[str, Any] = {"race": name, "command": f"python -m benchmarks.{command}"}
    if lacking := [field for field in asked if paths[field] is None]:
        return [about | {"not_run": f"needs {', '.join(lacking)}"}]
    began = time.perf_counter()
    module, *arguments = (part.format(**paths) for part in command.split())
    ended = subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *arguments], capture_output=True, text=True)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines()
        return [about | {"not_run": f"exit {ended.returncode}: {lines[-1] if lines else 'no word'}"}]
    about |= {
        "hardware": processor(),
        "threads": paths["threads"],
        "versions": {package: version(package) for package in _VERSIONS},
        "date": time.strftime("%Y-%m-%d"),
        "took_s": round(time.perf_counter() - began, 1),
    }
    return [about | row._asdict() for row in rows(documents(ended.stdout))]


def documents(printed: str) -> list[Any]:
    """The JSON documents of an output, one in all or one a line."""
    try:
        return [json.loads(printed)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def kept(path: Path, rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """All rows of the file with those of one race replaced; a command that was not run replaces none of its rows."""
    before = json.loads(path.read_text()) if path.exists() else []
    stood = {row["command"] for row in before if "not_run" not in row}
    new = [row for row in rows if "not_run" not in row or row["command"] not in stood]
    left = {row["command"] for row in rows} - {row["command"] for row in new}
    found = [row for row in before if row["race"] != name or row["command"] in left] + new
    found.sort(key=lambda row: list(RACES).index(row["race"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return found


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    if "not_run" in row:
        return f"{row['race']:14} not run: {row['not_run']}"
    found = Row(**{name: row[name] for name in Row._fields})
    met = "" if found.goal is None else f", goal {found.goal:.2g} {'met' if found.ratio >= found.goal else 'MISSED'}"
    sides = f"{found.ours:.4g} and {found.theirs:.4g} {found.unit}"
    note = f"; {found.note}" if found.note else ""
    return f"{row['race']:14} {found.ratio:.2f}x ({found.low:.2f}-{found.high:.2f}){met}: {found.what} ({sides}{note})"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = os.environ.get("SEMALIGN_DATA")
    parser.add_argument("races", nargs="+", choices=["all", *RACES], metavar="RACE", help=f"all, {', '.join(RACES)}")
    parser.add_argument("--data", type=Path, default=Path(data) if data else None)
    parser.add_argument("--split", type=Path)
    parser.add_argument("--recbole", metavar="PYTHON")
    parser.add_argument("--implicit", metavar="PYTHON", help="also holds RecTools")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON lines")
    given = parser.parse_args()
    path = given.results or RESULTS / f"{re.sub(r'[^a-z0-9]+', '_', processor().lower()).strip('_')}.json"
    for name in RACES if "all" in given.races else given.races:
        rows = run(name, given)
        kept(path, rows, name)
        for row in rows:
            print(json.dumps(row, ensure_ascii=False) if given.json else line(row), flush=True)


if __name__ == "__main__":
    main()
