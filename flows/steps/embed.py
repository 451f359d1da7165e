"""Texts as vectors, one table a set: each text embedded once, users without text pooled from their training items.

What is computed is written down as it goes, a thousand texts at a time; a run that was killed goes on from there. What
a server was paid for is in the ledger the moment it comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.embedding_sets import DescribedSet, EmbeddingSet, by_encoder, described, encoder_of
from flows.errors import SettingValueError
from flows.settings import digest
from flows.shards import run_shards
from flows.steps.due_vectors import DueVectors, due_vectors, tables_of_before
from flows.steps.encoders import keeps_its_replies, may_be_asked_again, opened_encoder, put_aside, set_aside, spent
from flows.steps.import_vectors import rows_of_files
from flows.steps.ingest import stamp
from flows.steps.modalities import is_imported
from flows.steps.rows import sequence_hash
from flows.steps.texts import HASH, SetTexts
from flows.steps.vector_rows import VectorIndex, vector_rows
from flows.vector_sources import VECTORS, VectorFiles
from flows.workspace import Workspace

if TYPE_CHECKING:
    from providers import Encoder, EncoderConfig
    from warehouse import Snapshot, SnapshotBuilder, VectorShards

VERSION = 1
SHARD_TEXTS = 1_024

# The encoder of a worker's shards so far, at most one.
_OPEN: list[tuple[EncoderConfig, Encoder]] = []
_OPENING = threading.Lock()

# hash of a text → (code, detail): why there is no vector of it
Refused = dict[bytes, tuple[str, str]]


def embed_profiles(workspace: Workspace, snapshot_id: str, sets: Sequence[EmbeddingSet]) -> str:
    """Id of a snapshot with the vectors of every set; texts embedded before are not embedded again.

    Args:
        sets: the default one, which models read and the view `embeddings` shows, and any others.

    Raises:
        What the encoder refuses, and DiskFullError; shards finished before are kept for the next run.
    """
    from warehouse import arrow_table

    warehouse = workspace.warehouse
    upstream = warehouse.snapshot(snapshot_id)
    asked = described(sets)
    key = embed_key(upstream, asked)
    if not may_be_asked_again(workspace, key) and (found := workspace.found("embed", key)):
        for same in by_encoder(asked):
            warehouse.vector_shards(same[0].identity.key).remove()
        return found
    _refuse_imported(upstream, asked)
    started = time.monotonic()
    builder = warehouse.begin(upstream)
    for table in tables_of_before(warehouse, upstream) - {one.table for one in asked}:
        builder.drop_table(table)
    said: dict[str, dict[str, Any]] = {}
    aside: dict[tuple[str, str], tuple[str, str]] = {}
    counted = {"computed": 0, "reused": 0}
    for one in asked:
        if isinstance(one.config, VectorFiles):
            rows = rows_of_files(upstream, one.config, f"{one.wanted.path}.max_unknown")
            builder.replace(one.table, arrow_table(one.table, rows))
            said[one.table] = set_summary(upstream, one, rows)
    for same in by_encoder([one for one in asked if not one.wanted.from_files]):
        shards = warehouse.vector_shards(same[0].identity.key)
        due = due_vectors(warehouse, upstream, same, shards.read())
        refused = _encode(workspace, encoder_of(same[0]), due, shards) if len(due.missing) else {}
        for one, own in zip(same, due.texts, strict=True):
            rows = vector_rows(own, due.index, one.wanted.pooling)
            _write(builder, one.table, rows, due.index)
            said[one.table] = set_summary(upstream, one, rows, len(own.pooled))
            aside |= _aside(own, refused)
        counted["computed"] += len(due.missing) - len(refused)
        counted["reused"] += due.reused
    put_aside(workspace, builder, upstream, aside)
    default = asked[0].table
    builder.default_embeddings(default)
    summary = {**said[default], **counted, "sets": [said[one.table] for one in asked]}
    stamp(builder, "embed", key, summary | ({"set_aside": len(aside)} if aside else {}))
    workspace.tally.embedded += counted["computed"]
    workspace.tally.embeddings_reused += counted["reused"]
    snapshot = workspace.commit(builder)
    for same in by_encoder(asked):
        warehouse.vector_shards(same[0].identity.key).remove()
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


def set_summary(snapshot: Snapshot, one: DescribedSet, rows: Mapping[str, Any], pooled: int = 0) -> dict[str, Any]:
    """What the embed stage says of a set; `semantic_key` names exactly the vectors that models will read.

    Args:
        pooled: how many users were to be pooled from items.
    """
    matrix, ingest = rows["embedding"], snapshot.stages["ingest"]["summary"]
    named = zip(rows["kind"], rows["entity_id"], rows["text_hash"], strict=True)
    lines = sequence_hash(f"{kind}\x1f{entity_id}\x1f{hashed}" for kind, entity_id, hashed in named)
    several = {} if one.wanted.reads_profiles_alone else {"texts": one.wanted.texts, "pooling": one.wanted.pooling}
    # a row of a file goes by the hash of its vector, so that other files with the same vectors change nothing
    made_by = VECTORS if one.wanted.from_files else one.identity.key
    return {
        "encoder": one.identity.model,
        "encoder_key": one.identity.key,
        "short_name": one.table.removeprefix("embeddings_"),
        "dtype": one.identity.dtype,
        "dim": int(matrix.shape[1]) if len(matrix) else 0,
        **several,
        **({"source": f"vectors ({one.identity.model})"} if one.wanted.from_files else {}),
        "items_with_vector": rows["kind"].count("item"),
        "users_with_vector": rows["kind"].count("user"),
        "users_pooled": pooled,
        "semantic_key": digest(made_by, ingest["items_hash"], ingest["users_hash"], lines),
    }


def _refuse_imported(upstream: Snapshot, asked: Sequence[DescribedSet]) -> None:
    """Nothing, when no set would be written over vectors that somebody imported."""
    for one in asked:
        if one.table in upstream.tables and is_imported(upstream, one.table):
            problem = f"{one.table} holds imported vectors, which it would replace; give this set another name"
            raise SettingValueError(one.wanted.path, one.table.removeprefix("embeddings_"), problem)


def _encode(workspace: Workspace, config: EncoderConfig, due: DueVectors, shards: VectorShards) -> Refused:
    """Puts the vector of every missing text into the index, each shard on disk before the next one is begun."""
    pool, order = due.pool, due.missing
    needs_shards = not keeps_its_replies(config)
    if needs_shards and workspace.engine.runner != "local":
        _encode_elsewhere(workspace, config, due, shards)
        return {}
    at_once = SHARD_TEXTS if needs_shards else len(order)
    refused: Refused = {}
    workspace.progress.note(f"embed: loading {config.model}")
    with opened_encoder(workspace, config, len(order), due.index.matrix.shape[1] or None) as encoder:
        for start in range(0, len(order), at_once):
            part = order[start : start + at_once]

            def on_progress(done: int, total: int, before: int = start) -> None:
                workspace.progress.advance("embed texts", before + done, len(order), spent(encoder))

            made = encoder.encode([pool.texts[place] for place in part], on_progress)
            why = set_aside(encoder)
            good = np.array([pool.texts[place] not in why for place in part])
            if needs_shards and good.any():
                shards.add(pool.hashes[part[good]], made[good])
            due.index.put(pool.hashes[part[good]], made[good])
            refused |= {bytes(pool.hashes[place]): why[pool.texts[place]] for place in part[~good]}
    return refused


def _encode_elsewhere(workspace: Workspace, config: EncoderConfig, due: DueVectors, shards: VectorShards) -> None:
    """The same by workers of a cluster: a shard is a file under the root, and its name is all that comes back."""
    pool, order = due.pool, due.missing
    parts = [order[start : start + SHARD_TEXTS] for start in range(0, len(order), SHARD_TEXTS)]
    asked = [(shards, config, pool.hashes[part], [pool.texts[place] for place in part]) for part in parts]
    workspace.progress.note(f"embed: {len(order):,} texts in {len(parts):,} shards on {workspace.engine.runner}")
    done = 0
    for name in run_shards(workspace.engine, encode_shard, asked):
        hashes, vectors = shards.one(name)
        due.index.put(hashes, vectors)
        done += len(hashes)
        workspace.progress.advance("embed texts", done, len(order), "")


def encode_shard(shards: VectorShards, config: EncoderConfig, hashes: np.ndarray, texts: Sequence[str]) -> str:
    """Name of the shard that holds the vectors of these texts, on disk whole; runs wherever the root is seen."""
    return shards.add(hashes, _opened(config).encode(list(texts)))


def _opened(config: EncoderConfig) -> Encoder:
    """An encoder that stays open until this process ends: a worker is given one shard after another."""
    with _OPENING:
        if not _OPEN or _OPEN[0][0] != config:
            # one that needs the ledger is not sharded
            _OPEN[:] = [(config, ExitStack().enter_context(config.open()))]  # pyright: ignore[reportCallIssue]
        return _OPEN[0][1]


def _write(builder: SnapshotBuilder, table: str, rows: Mapping[str, Any], index: VectorIndex) -> None:
    """The rows of a set; those that are new in a file of their own, so that a matrix made before reads only them."""
    from warehouse import arrow_table

    old = index.settled(np.array(rows["text_hash"], HASH))
    whole = arrow_table(table, rows)
    builder.replace(table, whole.filter(old) if old.any() and not old.all() else whole)
    if old.any() and not old.all():
        builder.append(table, whole.filter(~old))


def _aside(texts: SetTexts, refused: Refused) -> dict[tuple[str, str], tuple[str, str]]:
    """(kind, id) → why, for everybody with a text that has no vector; they are masked."""
    owners = np.repeat(np.arange(len(texts.ids)), np.diff(texts.starts))
    unmade = np.flatnonzero(np.isin(texts.text_hashes, np.array(list(refused), HASH)))
    return {
        (texts.kinds[owners[row]], texts.ids[owners[row]]): refused[bytes(texts.text_hashes[row])] for row in unmade
    }
