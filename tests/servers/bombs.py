"""Parquet files that are small on disk and enormous in memory, or broken where a reader looks first."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def bomb(path: Path, rows: int = 10_000, text_bytes: int = 10_000_000) -> int:
    """How many bytes of text a small file stands for: one long text, named by every row of a dictionary column."""
    indices = pa.array([0] * rows, pa.int32())
    text = pa.array([random.Random(0).randbytes(text_bytes // 2).hex()])
    columns = {
        "item_id": pa.array(map(str, range(rows))),
        "user_id": pa.array(["u"] * rows),
        "title": pa.DictionaryArray.from_arrays(indices, text),
    }
    pq.write_table(pa.table(columns), path, dictionary_pagesize_limit=1 << 30, compression="none")
    return rows * text_bytes


def broken_footers(whole: bytes, n: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(what was done, bytes) of a Parquet file whose end says something else than its writer meant."""
    rng = random.Random(seed)
    length = int.from_bytes(whole[-8:-4], "little")
    start = len(whole) - 8 - length
    for place in range(n):
        kind = ("cut", "magic", "length", "noise", "zeros", "shifted")[place % 6]
        content = bytearray(whole)
        if kind == "cut":
            content = content[: rng.randrange(len(whole))]
        elif kind == "magic":
            content[rng.randrange(len(whole) - 4, len(whole))] ^= 1 << rng.randrange(8)
        elif kind == "length":
            other = rng.choice(
                [0, 0xFFFFFFFF, 0x7FFFFFFF, len(whole) + rng.randrange(1 << 20), length + 1 + rng.randrange(99)]
            )
            content[-8:-4] = other.to_bytes(4, "little")
        elif kind == "noise":
            content[start : start + length] = rng.randbytes(length)
        elif kind == "zeros":
            content[start : start + length] = bytes(length)
        else:
            gap = 1 + rng.randrange(length // 2)
            content[start : start + length] = content[start + gap : start + length] + rng.randbytes(gap)
        yield kind, bytes(content)
