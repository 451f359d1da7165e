"""What races share: a side as a process of its own, its peak, and the ratios of rounds."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def apart(module: str, *words: object, **options: object) -> Any:
    """What `python -m benchmarks.<module> WORDS --OPTIONS` prints, read as JSON; None if it prints nothing.

    An option that is True is a flag, one that is False or None is left out. A process of its own has its own peak
    memory, and nothing warm from the other side.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, words)]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            command += [flag]
        elif value is not False and value is not None:
            command += [flag, str(value)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(printed) if printed.strip() else None


def peak_memory() -> int:
    """Bytes of memory that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """Median, least and most of theirs / ours, round by round."""
    each = [there / here for there, here in zip(theirs, ours, strict=True)]
    return {"ratio": statistics.median(each), "low": min(each), "high": max(each)}


def compared(rounds: Sequence[Mapping[str, Mapping[str, float]]], names: Sequence[str], other: str) -> dict[str, Any]:
    """Of rounds of sides: the medians of each named measure, its ratios of `other` to `ours`, and the sides' peaks."""
    sides = rounds[0]
    found: dict[str, Any] = {
        "peak_memory_bytes": {side: max(row[side]["peak_memory_bytes"] for row in rounds) for side in sides}
    }
    for name in names:
        seconds = {side: [row[side][name] for row in rounds] for side in sides}
        found[name] = {f"{side}_s": statistics.median(each) for side, each in seconds.items()}
        found[name] |= ratios(seconds[other], seconds["ours"])
    return found
