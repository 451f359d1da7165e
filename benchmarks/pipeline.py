"""Cost of an entity on its way to a stored profile, with an engine that answers at once, as the ledger grows.

    python -m benchmarks.pipeline [--entities 10000,100000] [--prefilled 1000000] [--rounds 3] [--json]

The flow `build-profiles` runs whole: items read from Parquet, questions rendered, every intent and every reply on disk
before it goes on, replies checked, the table committed. The wire is replaced by a reply from memory. Every measurement
is a process of its own; `prefilled` is the first size again over a ledger that holds so many calls already.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.loopback_chat import chat_reply
from benchmarks.sides import apart, peak_memory, ratios
from flows.build_profiles import build_profiles
from flows.progress import SilentProgress
from flows.settings_layers import load_settings
from flows.workspace import opened
from providers import Request
from providers.wire import Wire
from warehouse import Ledger

SETTINGS = """name = "race"
[source]
interactions = "interactions.parquet"
items = "items.parquet"
[profiles]
domain = "games"
[profiles.engine]
name = "openai"
model = "loopback"
base_url = "http://127.0.0.1:1/v1"
concurrency = 256
[warehouse]
root = "warehouse"
"""
_USERS = 1000


def write_world(folder: Path, n_items: int) -> Path:
    """Settings and sources of so many items, each in the history of one user."""
    ids = [f"item {index:09}" for index in range(n_items)]
    titles = [f"The {index} rooms of the house by the sea" for index in range(n_items)]
    tags = [f"slow, quiet, exploration, mark {index % 977}" for index in range(n_items)]
    pq.write_table(pa.table({"item_id": ids, "title": titles, "tags": tags}), folder / "items.parquet")
    users = [f"user {index % _USERS}" for index in range(n_items)]
    pq.write_table(pa.table({"user_id": users, "item_id": ids}), folder / "interactions.parquet")
    (folder / "semalign.toml").write_text(SETTINGS)
    return folder / "semalign.toml"


def prefill(path: Path, n_calls: int) -> None:
    """A ledger that holds so many calls that other entities have paid for."""
    with Ledger(path):
        pass
    body = chat_reply()
    responses = ((f"{n:064x}", body, f"{n:064x}") for n in range(n_calls))
    attempts = ((f"{n:064x}", f"old {n}") for n in range(n_calls))
    with closing(sqlite3.connect(path)) as file, file:
        file.executemany("INSERT INTO response (key, body, sha256, model) VALUES (?, ?, ?, 'loopback')", responses)
        file.executemany(
            "INSERT INTO attempt (key, n, state, started_at, latency_ms, status, tokens_in, tokens_out, usd, model,"
            " kind, entity_id) VALUES (?, 1, 'done', 1, 1.0, 200, 100, 20, 0.0, 'loopback', 'item', ?)",
            attempts,
        )


def measure(n_items: int, n_prefilled: int) -> dict[str, float]:
    """Entities a second of one whole flow, and the memory of this process."""
    body = chat_reply()

    async def from_memory(self: Wire, request: Request) -> tuple[int, Mapping[str, str], bytes]:
        return 200, {}, body

    Wire.ask = from_memory
    with tempfile.TemporaryDirectory(prefix="pipeline") as folder:
        settings = load_settings(write_world(Path(folder), n_items), [])
        if n_prefilled:
            Path(folder, "warehouse").mkdir()
            prefill(Path(folder, "warehouse", "ledger.sqlite"), n_prefilled)
        with opened(settings, "benchmark", SilentProgress()) as workspace:
            began, busy = time.perf_counter(), time.process_time()
            snapshot = workspace.warehouse.snapshot(build_profiles(settings, workspace))
            seconds, busy = time.perf_counter() - began, time.process_time() - busy
            told = snapshot.read("profiles", ["profile"])["profile"]
            assert len(told) - told.null_count >= n_items, "a reply was not kept"
            assert workspace.tally.calls == workspace.tally.replies >= n_items, "not everybody was asked"
    return {
        "entities": len(told),
        "entities_per_s": len(told) / seconds,
        "entities_per_cpu_s": len(told) / busy,
        "peak_memory_bytes": peak_memory(),
    }


def race(given: argparse.Namespace) -> dict[str, Any]:
    """Medians of every size, and the time of an entity beside that of the first size, round by round."""
    sizes = [(int(size), 0) for size in given.entities.split(",")]
    sizes.append((sizes[0][0], given.prefilled))
    rounds = [[_process(*size) for size in sizes] for _ in range(given.rounds)]
    rows = []
    for place, (n_items, n_prefilled) in enumerate(sizes):
        found = [one[place] for one in rounds]
        rates = [one["entities_per_s"] for one in found]
        rows.append(
            {
                "items": n_items,
                "prefilled": n_prefilled,
                "entities_per_s": statistics.median(rates),
                "time_of_an_entity": ratios([one[0]["entities_per_s"] for one in rounds], rates),
                "peak_memory_bytes": max(one["peak_memory_bytes"] for one in found),
            }
        )
    return {"rounds": given.rounds, "sizes": rows}


def _process(n_items: int, n_prefilled: int) -> dict[str, float]:
    return apart("pipeline", entities=n_items, prefilled=n_prefilled, one=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", default="10000,100000", help="numbers of items, separated by commas")
    parser.add_argument("--prefilled", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(int(given.entities), given.prefilled)))
        return
    found = race(given)
    if given.json:
        print(json.dumps(found))
        return
    for row in found["sizes"]:
        times = row["time_of_an_entity"]
        print(
            f"{row['items']:>9,} items, {row['prefilled']:>9,} calls before: {row['entities_per_s']:7,.0f} entities/s,"
            f" {times['ratio']:.2f} of the first ({times['low']:.2f}-{times['high']:.2f}),"
            f" {row['peak_memory_bytes'] / 1e6:,.0f} MB"
        )


if __name__ == "__main__":
    main()
