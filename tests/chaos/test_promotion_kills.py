"""T-G4: killed between promoting and publishing, a consumer sees the old model or the new one, never halves of both."""

from __future__ import annotations

import random
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from servers.writers import first_line, killed, started

from flows.steps.champions import champion_of, champions, decisions
from warehouse import Warehouse, arrow_rows, arrow_table

SEED = 20_261_122
N_ITEMS = {"quiet": 5, "loud": 9}

# switches to and fro as the commands do, the last steps of a refresh in between, until it is killed
SWITCHER = """
import os, sys
from pathlib import Path
from flows.progress import SilentProgress
from flows.settings import Settings, WarehouseSettings
from flows.steps import duel, switch
from flows.workspace import opened
switch.refuse_lost = lambda warehouse, champion: None  # there are no weights here
settings = Settings(warehouse=WarehouseSettings(root=Path(sys.argv[1])))
os.write(1, b"ready\\n")
while True:
    for name in ("quiet", "loud"):
        with opened(settings, f"promote --to {name}", SilentProgress()) as workspace:
            published = switch.promote_to(workspace, name, settings)
        os.write(1, f"{int(published[:8])}\\n".encode())
"""


def two_models(root: Path) -> Warehouse:
    """Two versions with an item map, vectors and lists of their own, the second one published."""
    warehouse = Warehouse(root)
    for number, (name, n_items) in enumerate(N_ITEMS.items(), 1):
        ids = [f"{name}-{n}" for n in range(n_items)]
        with warehouse.lock():
            builder = warehouse.begin(warehouse.current())
            builder.replace("items", arrow_rows("items", [{"item_id": one, "attributes": "{}"} for one in ids]))
            columns = {"kind": ["item"] * n_items, "entity_id": ids, "text_hash": ["h"] * n_items}
            vectors = arrow_table("embeddings_x", {**columns, "embedding": np.full((n_items, 4), number, np.float32)})
            builder.replace("embeddings_x", vectors)
            lists = [{"user_id": "u", "rank": 1, "item_id": ids[0], "score": 1.0, "model": name}]
            builder.replace("recommendations", arrow_rows("recommendations", lists))
            row = {"n": number, "decided_at": 0, "verdict": "BLESSED", "model": name, "model_ids": [name]}
            row |= {"champion_ids": [], "snapshot": "s", "reasons": []}
            builder.append("promotions", arrow_rows("promotions", [row]))
            summary = {"verdict": "BLESSED", "model": name, "model_id": name, "model_ids": [name], "facts": {}}
            builder.stage("promote", key=name, summary=summary)
            warehouse.publish(builder.commit())
    return warehouse


def seen(root: Path) -> tuple[int, str]:
    """(counter, model) of what a consumer reads now; everything it reads is of that model."""
    current = Warehouse(root).current()
    assert current is not None
    name = current.stages["promote"]["summary"]["model_id"]
    items = current.read("items", columns=["item_id"])["item_id"].to_pylist()
    vectors = current.read("embeddings", columns=["entity_id"])["entity_id"].to_pylist()
    lists = current.read("recommendations", columns=["model", "item_id"]).to_pylist()
    champion = champion_of(current)
    assert champion is not None and champion.label == name
    assert items == vectors == [f"{name}-{n}" for n in range(N_ITEMS[name])]
    assert [(row["model"], row["item_id"]) for row in lists] == [(name, items[0])]
    return current.counter, name


def survive(root: Path, kills: int, seed: int) -> tuple[int, int]:
    """How many switches were acknowledged, and how many whole reads were made meanwhile."""
    print(f"seed {seed}")
    rng, done = random.Random(seed), threading.Event()
    two_models(root)
    reads: list[tuple[int, str]] = []
    faults: list[BaseException] = []

    def consume() -> None:
        while not done.is_set():
            try:
                reads.append(seen(root))
            except BaseException as fault:
                faults.append(fault)
                return

    reader = threading.Thread(target=consume)
    reader.start()
    switches = 0
    try:
        for _ in range(kills):
            process = started(SWITCHER, root)
            assert first_line(process) == "ready\n", process.communicate()[1]
            first_line(process)  # it switches, so that the kill strikes within one
            time.sleep(rng.uniform(0, 0.15))
            acknowledged = killed(process)
            switches += 1 + len(acknowledged)
            # the last line may be cut short, the switch under way may have come through
            assert seen(root)[0] >= max((int(line) for line in acknowledged if len(line) < 9), default=0)
    finally:
        done.set()
        reader.join()
    assert not faults, f"{faults[0]!r} (seed {seed})"
    assert [counter for counter, _ in reads] == sorted(counter for counter, _ in reads)
    current = Warehouse(root).current()
    rows = decisions(current)
    assert [row["n"] for row in rows] == list(range(1, len(rows) + 1)) and len(rows) >= 2 + switches - kills
    assert champions(rows)[-1].label == seen(root)[1]
    return switches, len(reads)


def test_T_G4_killed_switches_leave_one_model_with_its_own_item_map_and_vectors(tmp_path):
    switches, reads = survive(tmp_path / "w", kills=4, seed=SEED)
    print(f"{switches} switches, {reads} reads")
    assert switches >= 4 and reads > 0


@pytest.mark.full
def test_T_G4_fifty_kills(tmp_path):
    switches, reads = survive(tmp_path / "w", kills=50, seed=SEED + 1)
    print(f"{switches} switches, {reads} reads")


def test_T_G4_publishing_twice_is_publishing_once(tmp_path):
    warehouse = two_models(tmp_path / "w")
    current = warehouse.current()
    assert current is not None
    with warehouse.lock():
        assert warehouse.publish(current).id == warehouse.publish(current).id == current.id
    shutil.rmtree(tmp_path / "w" / "staging", ignore_errors=True)
    assert seen(tmp_path / "w") == (current.counter, "loud")
