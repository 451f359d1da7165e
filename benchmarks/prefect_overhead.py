"""What Prefect adds to a refresh: the same steps as plain calls and as tasks of a flow.

    python -m benchmarks.prefect_overhead [--items 100000] [--users 1000] [--rounds 3] [--json]

The flow is `flows.deployed.refresh`, as a deployment runs it, with a temporary server of its own on loopback. All else
is kept cheap: profiles are composed from attributes, vectors are hashes of words, a small model is trained for one
epoch. Every run is a process with a warehouse of its own. Its seconds and processor seconds are those of the whole
process and of all it started: imports, training and, with Prefect, the server from its start to its end. Rounds change
the order of the two, and a difference is taken within its round.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import providers
from benchmarks.stand_ins import HashedWords
from flows.progress import SilentProgress
from flows.refresh import refresh
from flows.settings_layers import load_settings
from flows.workspace import opened
from warehouse import Warehouse

SETTINGS = """name = "overhead"
[source]
interactions = "interactions.parquet"
items = "items.parquet"
[profiles]
engine = "attributes"
[model]
name = "dmrec"
[model.base]
name = "mult_vae"
hidden_dim = 16
latent_dim = 8
[training]
epochs = 1
batch_size = 256
[evaluation]
baselines = ["popularity"]
[report]
n_map_items = 0
[warehouse]
root = "warehouse"
"""
_PLAIN, _PREFECT = "plain", "prefect"
_TASTES = ("quiet puzzles by the sea", "fast cars at night", "long wars between the stars", "a farm in spring")
_KNOWN, _TAKEN = 500, 30
# Stages whose keys hold what no second run has: its id, and the seconds among its tables.
_OF_THE_RUN = ("promote", "publish")


def write_world(folder: Path, n_items: int, n_users: int) -> None:
    """Settings and sources: users of one taste each take what is known of it; most of a large catalogue is cold."""
    ids = [f"item {index:09}" for index in range(n_items)]
    tags = [f"{_TASTES[index % len(_TASTES)]}, mark {index % 977}" for index in range(n_items)]
    titles = [f"Number {index}" for index in range(n_items)]
    pq.write_table(pa.table({"item_id": ids, "title": titles, "tags": tags}), folder / "items.parquet")
    rng = np.random.default_rng(0)
    users, taken = [], []
    for user in range(n_users):
        liked = np.arange(user % len(_TASTES), min(_KNOWN, n_items), len(_TASTES))
        chosen = rng.choice(liked, min(_TAKEN, len(liked)), replace=False)
        users += [f"user {user}"] * len(chosen)
        taken += [ids[index] for index in chosen]
    pq.write_table(pa.table({"user_id": users, "item_id": taken}), folder / "interactions.parquet")
    (folder / "semalign.toml").write_text(SETTINGS)


def refreshed(how: str, config: Path) -> dict[str, Any]:
    """One refresh in this process: its seconds alone, its steps, and the keys of what it made."""
    providers.parse_encoder = lambda settings: HashedWords()  # pyright: ignore[reportAttributeAccessIssue]
    settings, steps = load_settings(config, []), 0
    began = time.perf_counter()
    if how == _PLAIN:
        with opened(settings, "benchmark", SilentProgress()) as workspace:
            refresh(settings, workspace)
    else:
        from flows import deployed

        as_task = deployed.as_task

        def counted(step: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            return as_task(step, *args, **kwargs)

        deployed.as_task = counted
        deployed.refresh(config=str(config))
    seconds = time.perf_counter() - began
    published = Warehouse(settings.warehouse.root).current()
    assert published is not None, "nothing was published"
    made = {name: stage["key"] for name, stage in published.stages.items() if name not in _OF_THE_RUN}
    return {"refresh_s": seconds, "tasks": steps, "lists": published.rows("recommendations"), "made": made}


def measured(how: str, n_items: int, n_users: int) -> dict[str, Any]:
    """A refresh in a process of its own, with what the process and its own processes took."""
    with tempfile.TemporaryDirectory(prefix="overhead") as folder:
        write_world(Path(folder), n_items, n_users)
        told = {"PREFECT_HOME": f"{folder}/prefect", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true"}
        told |= {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "600", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        told |= {"DO_NOT_TRACK": "1"}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        command = [sys.executable, "-m", "benchmarks.prefect_overhead", "--one", how, "--config"]
        began, busy = time.perf_counter(), _busy()
        ended = subprocess.run(
            [*command, f"{folder}/semalign.toml"], env=kept | told, check=True, stdout=subprocess.PIPE, text=True
        )
        spent = {"seconds": time.perf_counter() - began, "cpu_s": _busy() - busy}
    return spent | json.loads(ended.stdout.splitlines()[-1])


def _busy() -> float:
    """Processor seconds of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compared(n_items: int, n_users: int, n_rounds: int) -> dict[str, Any]:
    """Medians of both ways and of what the second adds, round by round."""
    rounds = []
    for number in range(n_rounds):
        order = (_PLAIN, _PREFECT) if number % 2 == 0 else (_PREFECT, _PLAIN)
        found = {how: measured(how, n_items, n_users) for how in order}
        assert found[_PLAIN]["made"] == found[_PREFECT]["made"], "the two did not make the same"
        rounds.append(found)
    rows = {}
    for what in ("seconds", "cpu_s", "refresh_s"):
        ways = {how: [one[how][what] for one in rounds] for how in (_PLAIN, _PREFECT)}
        added = [there - here for here, there in zip(ways[_PLAIN], ways[_PREFECT], strict=True)]
        medians = {how: statistics.median(values) for how, values in ways.items()}
        rows[what] = {**medians, "added": statistics.median(added), "low": min(added), "high": max(added)}
    last = rounds[-1][_PREFECT]
    return {
        "items": n_items,
        "users": n_users,
        "rounds": n_rounds,
        "tasks": last["tasks"],
        "lists": last["lists"],
        **rows,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=(_PLAIN, _PREFECT), help=argparse.SUPPRESS)
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(refreshed(given.one, given.config)))
        return
    found = compared(given.items, given.users, given.rounds)
    if given.json:
        print(json.dumps(found))
        return
    print(f"{found['items']:,} items, {found['users']:,} users, {found['tasks']} task runs")
    for what, said in (("seconds", "seconds"), ("cpu_s", "processor seconds"), ("refresh_s", "seconds of the refresh")):
        row = found[what]
        added = f"{row['added']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})"
        print(f"{said:>22}: {row[_PLAIN]:6.1f} plain, {row[_PREFECT]:6.1f} with Prefect, {added}")


if __name__ == "__main__":
    main()
