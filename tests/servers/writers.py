"""Processes that write to a warehouse, or read it, until they are killed or told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping

PRELUDE = """
import os, sys, time
from pathlib import Path
import numpy as np
from warehouse import Warehouse, LockHeldError, arrow_table
warehouse = Warehouse(Path(sys.argv[1]))
def say(text):
    os.write(1, (text + chr(10)).encode())  # in one piece, whoever else speaks
def items(n):
    return arrow_table("items", {"item_id": [str(i) for i in range(n)], "attributes": ["{}"] * n})
"""

# every commit has one row more than the one before, in two tables, and vectors full of that number
WRITER = (
    PRELUDE
    + """
import pyarrow
say("ready")
while True:
    try:
        with warehouse.lock("writer"):
            current = warehouse.current()
            n = 1 + (current.rows("items") if current else 0)
            builder = warehouse.begin(current)
            builder.replace("items", items(n))
            vectors = {"kind": ["item"] * n, "entity_id": [str(i) for i in range(n)], "text_hash": ["h"] * n}
            embedding = np.full((n, 8), n, np.float32)
            builder.replace("embeddings_x", arrow_table("embeddings_x", {**vectors, "embedding": embedding}))
            published = warehouse.publish(builder.commit())
        say(f"{published.counter} {n}")
    except LockHeldError:
        pass
"""
)

# reads as fast as it can until the file `stop` is there, then says how often, and what it saw that may not be
READER = (
    PRELUDE
    + """
reads, torn, backwards, last = 0, [], 0, 0
say("ready")
while not Path(sys.argv[2]).exists():
    try:
        current = Warehouse(Path(sys.argv[1])).current()
        if current is None:
            continue
        backwards += current.counter < last
        last = current.counter
        n = current.rows("items")
        embedding = current.read("embeddings")["embedding"].combine_chunks().flatten().to_numpy()
        ids = current.read("items")["item_id"].to_pylist()
        if len(embedding) != 8 * n or (embedding != n).any() or len(ids) != n:
            torn.append(f"{current.id}: {n} items, {len(embedding)} numbers")
        reads += 1
    except Exception as error:
        torn.append(repr(error))
say(f"{reads} {len(torn)} {backwards}")
say(" | ".join(torn[:3]) or "none torn")
"""
)


def started(code: str, *arguments: object, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A process that runs the code with these arguments, its output in pipes."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings)


def first_line(process: subprocess.Popen[str]) -> str:
    """The next line the process says; waits for it."""
    assert process.stdout is not None
    return process.stdout.readline()


def killed(process: subprocess.Popen[str]) -> list[str]:
    """What the process had said when it was killed."""
    process.send_signal(signal.SIGKILL)
    out, _ = process.communicate(timeout=30)
    return out.splitlines()
