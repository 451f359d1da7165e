"""Texts as vectors, one table a set: each text embedded once, users without text pooled from their training items.

What is computed is written down as it goes, a thousand texts at a time; a run that was killed goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.embedding_sets import DescribedSet, EmbeddingSet, described
from flows.settings import digest
from flows.steps.ingest import stamp
from flows.steps.rows import sequence_hash, strings, vectors
from flows.steps.texts import HASH, SetTexts, TextPool, collect_texts, text_pool
from flows.steps.vector_rows import VectorIndex, vector_rows
from flows.workspace import Workspace

if TYPE_CHECKING:
    from providers import EncoderConfig
    from warehouse import Snapshot, SnapshotBuilder, VectorShards

VERSION = 1
SHARD_TEXTS = 1_024


@dataclass(frozen=True)
class Made:
    """The vectors of one encoder.

    Attributes:
        computed, reused: how many were encoded now, how many were there before.
    """

    index: VectorIndex
    shards: VectorShards
    computed: int
    reused: int


def embed_profiles(workspace: Workspace, snapshot_id: str, sets: Sequence[EmbeddingSet]) -> str:
    """Id of a snapshot with the vectors of every set; texts embedded before are not embedded again.

    Args:
        sets: the default one, which models read and the view `embeddings` shows, and any others.

    Raises:
        What the encoder refuses, and DiskFullError; shards finished before are kept for the next run.
    """
    upstream = workspace.warehouse.snapshot(snapshot_id)
    asked = described(sets)
    key = embed_key(upstream, asked)
    if found := workspace.found("embed", key):
        for encoder_key in {one.identity.key for one in asked}:
            workspace.warehouse.vector_shards(encoder_key).remove()
        return found
    started = time.monotonic()
    builder = workspace.warehouse.begin(upstream)
    for table in _tables_of_before(workspace, upstream) - {one.table for one in asked}:
        builder.drop_table(table)
    made: list[Made] = []
    said: dict[str, dict[str, Any]] = {}
    for encoder_key in dict.fromkeys(one.identity.key for one in asked):
        same = [one for one in asked if one.identity.key == encoder_key]
        texts = [collect_texts(upstream, one.wanted) for one in same]
        made.append(_vectors(workspace, upstream, same[0], texts))
        for one, own in zip(same, texts, strict=True):
            rows = vector_rows(own, made[-1].index, one.wanted.pooling)
            _write(builder, one.table, rows, made[-1].index)
            said[one.table] = set_summary(upstream, one, own, rows)
    default = asked[0].table
    builder.default_embeddings(default)
    counted = {"computed": sum(one.computed for one in made), "reused": sum(one.reused for one in made)}
    stamp(builder, "embed", key, {**said[default], **counted, "sets": [said[one.table] for one in asked]})
    workspace.tally.embedded += counted["computed"]
    workspace.tally.embeddings_reused += counted["reused"]
    snapshot = workspace.commit(builder)
    for one in made:
        one.shards.remove()
    return workspace.done("embed", snapshot, started)


def embed_key(upstream: Snapshot, asked: Sequence[DescribedSet]) -> str:
    """Which profiles by which encoders; the columns that other texts come from are part of the profile stage's key."""
    profile = upstream.stages["profile"]  # retried under an unchanged key, profiles may still have new content
    default = asked[0].identity.key
    others = {
        one.wanted.name or "": [one.identity.key, one.wanted.texts, one.wanted.pooling]
        for one in asked
        if one.wanted.name or not one.wanted.reads_profiles_alone
    }
    facts = [others] if others else []
    return digest("embed", VERSION, profile["key"], profile["summary"]["content"], default, *facts)


def set_summary(snapshot: Snapshot, one: DescribedSet, texts: SetTexts, rows: Mapping[str, Any]) -> dict[str, Any]:
    """What the embed stage says of a set; `semantic_key` names exactly the vectors that models will read."""
    matrix, ingest = rows["embedding"], snapshot.stages["ingest"]["summary"]
    named = zip(rows["kind"], rows["entity_id"], rows["text_hash"], strict=True)
    lines = sequence_hash(f"{kind}\x1f{entity_id}\x1f{hashed}" for kind, entity_id, hashed in named)
    several = {} if one.wanted.reads_profiles_alone else {"texts": one.wanted.texts, "pooling": one.wanted.pooling}
    return {
        "encoder": one.identity.model,
        "encoder_key": one.identity.key,
        "short_name": one.table.removeprefix("embeddings_"),
        "dtype": one.identity.dtype,
        "dim": int(matrix.shape[1]) if len(matrix) else 0,
        **several,
        "items_with_vector": rows["kind"].count("item"),
        "users_with_vector": rows["kind"].count("user"),
        "users_pooled": len(texts.pooled),
        "semantic_key": digest(one.identity.key, ingest["items_hash"], ingest["users_hash"], lines),
    }


def _vectors(workspace: Workspace, upstream: Snapshot, one: DescribedSet, texts: Sequence[SetTexts]) -> Made:
    """The vector of every text of some sets of one encoder, or that of the entity where it was pooled before."""
    pool = text_pool(texts)
    index = VectorIndex(np.concatenate([pool.hashes, *(own.hashes for own in texts)]))
    shards = workspace.warehouse.vector_shards(one.identity.key)
    reused = sum(index.put(*known) for known in _known(workspace, upstream, one.identity.key))
    index.settle()
    reused += sum(index.put(*shard) for shard in shards.read())
    needed = np.zeros(len(pool.hashes), bool)
    for own in texts:
        of_new_rows = np.repeat(~index.knows(own.hashes), np.diff(own.starts))
        needed[np.searchsorted(pool.hashes, own.text_hashes[of_new_rows])] = True
    missing = np.flatnonzero(needed & ~index.knows(pool.hashes))
    if len(missing):
        _encode(workspace, one.config, pool, missing, index, shards)
    return Made(index, shards, len(missing), reused)


def _write(builder: SnapshotBuilder, table: str, rows: Mapping[str, Any], index: VectorIndex) -> None:
    """The rows of a set; those that are new in a file of their own, so that a matrix made before reads only them."""
    from warehouse import arrow_table

    old = index.settled(np.array(rows["text_hash"], HASH))
    whole = arrow_table(table, rows)
    builder.replace(table, whole.filter(old) if old.any() and not old.all() else whole)
    if old.any() and not old.all():
        builder.append(table, whole.filter(~old))


def _known(workspace: Workspace, upstream: Snapshot, encoder_key: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(hashes, vectors) of every table that this very encoder made, as they are stored."""
    for snapshot in (upstream, workspace.warehouse.current()):
        for made_by, table in _said(snapshot):
            if snapshot is not None and made_by == encoder_key and table in snapshot.tables:
                rows = snapshot.read(table, columns=["text_hash", "embedding"])
                if rows.num_rows:
                    yield np.array(strings(rows, "text_hash"), HASH), vectors(rows)


def _tables_of_before(workspace: Workspace, upstream: Snapshot) -> set[str]:
    """Tables carried over that this stage made for sets that may be gone; others were brought by somebody else."""
    return {table for _, table in _said(workspace.warehouse.current()) if table in upstream.tables}


def _said(snapshot: Snapshot | None) -> list[tuple[str, str]]:
    """(encoder's key, table) of every set of a snapshot; one written before there were sets has the one it names."""
    summary = snapshot.stages.get("embed", {}).get("summary") if snapshot else None
    if not summary:
        return []
    return [(said["encoder_key"], f"embeddings_{said['short_name']}") for said in summary.get("sets", [summary])]


def _encode(
    workspace: Workspace,
    config: EncoderConfig,
    pool: TextPool,
    missing: np.ndarray,
    index: VectorIndex,
    shards: VectorShards,
) -> None:
    """Every missing text as a vector, longest first, each shard on disk before the next one is begun."""
    order = np.array(sorted(missing.tolist(), key=lambda place: (-len(pool.texts[place]), place)))
    workspace.progress.note(f"embed: loading {config.model}")
    with config.open() as encoder:
        for start in range(0, len(order), SHARD_TEXTS):
            part = order[start : start + SHARD_TEXTS]

            def on_progress(done: int, total: int, before: int = start) -> None:
                workspace.progress.advance("embed texts", before + done, len(order))

            made = encoder.encode([pool.texts[place] for place in part], on_progress)
            shards.add(pool.hashes[part], made)
            index.put(pool.hashes[part], made)
