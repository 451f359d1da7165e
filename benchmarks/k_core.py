"""Race: the core of a table of interactions, by arrays against sets and dictionaries.

    python -m benchmarks.k_core [--rows 1000000] [--users 60000] [--items 30000] [--core 10] [--rounds 3] [--json]

Users and items are drawn with a long tail, so that leaving cascades. The other side removes one end after another from
a queue, each row once: the fewest steps there are, in plain Python. Both must leave the same rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np

from flows.steps.filters import k_core


def table(n_rows: int, n_users: int, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct pairs, at most that many, of users and items with weights 1 / sqrt(rank)."""
    rng = np.random.default_rng(0)
    ends = []
    for size in (n_users, n_items):
        likely = 1 / np.sqrt(np.arange(1, size + 1))
        ends.append(np.searchsorted(np.cumsum(likely / likely.sum()), rng.random(n_rows)).clip(max=size - 1))
    cells = np.unique(ends[0] * n_items + ends[1])
    return cells // n_items, cells % n_items


def queued(users: np.ndarray, items: np.ndarray, core: int) -> np.ndarray:
    """The same rows as `k_core`, one departure at a time."""
    rows_of: dict[tuple[int, int], set[int]] = {}
    ends = [((0, user), (1, item)) for user, item in zip(users.tolist(), items.tolist(), strict=True)]
    for row, pair in enumerate(ends):
        for end in pair:
            rows_of.setdefault(end, set()).add(row)
    leaving = [end for end, rows in rows_of.items() if len(rows) < core]
    while leaving:
        for row in rows_of.pop(leaving.pop(), ()):
            for other in ends[row]:
                if row in rows_of.get(other, ()):
                    rows_of[other].discard(row)
                    if len(rows_of[other]) == core - 1:
                        leaving.append(other)
    return np.array(sorted(set().union(*rows_of.values())), np.int64)


def main() -> None:
    """Prints seconds of both sides, the median of the rounds, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("rows", 1_000_000), ("users", 60_000), ("items", 30_000), ("core", 10), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    users, items = table(given.rows, given.users, given.items)
    seconds: dict[str, list[float]] = {"arrays": [], "queue": []}
    ours = np.arange(len(users))
    for _ in range(given.rounds):
        began = time.perf_counter()
        ours = k_core(users, items, given.core, given.core)
        middle = time.perf_counter()
        theirs = queued(users, items, given.core)
        seconds["arrays"].append(middle - began)
        seconds["queue"].append(time.perf_counter() - middle)
        assert np.array_equal(ours, theirs)
    found = {side: statistics.median(taken) for side, taken in seconds.items()}
    found |= {"ratio": found["queue"] / found["arrays"], "rows": len(users), "left": len(ours)}
    print(json.dumps(found) if given.json else "\n".join(f"{name:8} {value:,.3f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
