"""Which texts still want a vector: every text of some sets, less those that tables and shards have one of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flows.embedding_sets import DescribedSet
from flows.steps.rows import strings, vectors
from flows.steps.texts import HASH, SetTexts, TextPool, collect_texts, text_pool
from flows.steps.vector_rows import VectorIndex

if TYPE_CHECKING:
    from warehouse import Snapshot, Warehouse


@dataclass(frozen=True)
class DueVectors:
    """The texts of the sets of one encoder, and what is known of their vectors.

    Attributes:
        texts: of each set.
        missing: rows of the pool without a vector, the longest text first.
        reused: how many vectors were there before.
    """

    pool: TextPool
    texts: list[SetTexts]
    index: VectorIndex
    missing: np.ndarray
    reused: int


def due_vectors(
    warehouse: Warehouse,
    upstream: Snapshot,
    same: Sequence[DescribedSet],
    shards: Iterable[tuple[np.ndarray, np.ndarray]] = (),
) -> DueVectors:
    """What is there and what is not of some sets of one encoder.

    Args:
        shards: (hashes, vectors) that a run made before it was stopped.
    """
    texts = [collect_texts(upstream, one.wanted) for one in same]
    pool = text_pool(texts)
    index = VectorIndex(np.concatenate([pool.hashes, *(own.hashes for own in texts)]))
    reused = sum(index.put(*known) for known in _known(warehouse, upstream, same[0].identity.key))
    index.settle()
    reused += sum(index.put(*shard) for shard in shards)
    needed = np.zeros(len(pool.hashes), bool)
    for own in texts:
        of_new_rows = np.repeat(~index.knows(own.hashes), np.diff(own.starts))
        needed[np.searchsorted(pool.hashes, own.text_hashes[of_new_rows])] = True
    missing = np.flatnonzero(needed & ~index.knows(pool.hashes)).tolist()
    order = np.array(sorted(missing, key=lambda place: (-len(pool.texts[place]), place)), np.int64)
    return DueVectors(pool, texts, index, order, reused)


def tables_of_before(warehouse: Warehouse, upstream: Snapshot) -> set[str]:
    """Tables carried over that this stage made for sets that may be gone; others were brought by somebody else."""
    return {table for _, table in _said(warehouse.current()) if table in upstream.tables}


def _known(warehouse: Warehouse, upstream: Snapshot, encoder_key: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(hashes, vectors) of every table that this very encoder made, as they are stored."""
    for snapshot in (upstream, warehouse.current()):
        for made_by, table in _said(snapshot):
            if snapshot is not None and made_by == encoder_key and table in snapshot.tables:
                rows = snapshot.read(table, columns=["text_hash", "embedding"])
                if rows.num_rows:
                    yield np.array(strings(rows, "text_hash"), HASH), vectors(rows)


def _said(snapshot: Snapshot | None) -> list[tuple[str, str]]:
    """(encoder's key, table) of every set of a snapshot; one written before there were sets has the one it names."""
    summary = snapshot.stages.get("embed", {}).get("summary") if snapshot else None
    if not summary:
        return []
    return [(said["encoder_key"], f"embeddings_{said['short_name']}") for said in summary.get("sets", [summary])]
