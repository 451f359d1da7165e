"""Profiles as vectors: each text embedded once, users without text pooled from their training items."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.settings import PlainMapping, digest
from flows.steps.encoders import may_be_asked_again, opened_encoder, put_aside, set_aside, spent
from flows.steps.ingest import stamp
from flows.steps.rows import index_order, sequence_hash, strings, vectors
from flows.workspace import Workspace

if TYPE_CHECKING:
    from providers import EncoderConfig, EncoderIdentity
    from warehouse import Snapshot

VERSION = 1


@dataclass(frozen=True)
class Texts:
    """What there is to embed.

    Attributes:
        hashes: (kind, entity id) → hash of its text, in index order, items first.
        texts: hash → text.
        pooled: user id → hashes of the texts of the training items that are averaged for them.
    """

    hashes: dict[tuple[str, str], str]
    texts: dict[str, str]
    pooled: dict[str, list[str]]


def embed_profiles(workspace: Workspace, snapshot_id: str, settings: PlainMapping) -> str:
    """Id of a snapshot with a vector for every profile and every user; texts embedded before are not embedded again."""
    from providers import parse_encoder
    from warehouse import arrow_table

    upstream = workspace.warehouse.snapshot(snapshot_id)
    encoder_settings = parse_encoder(settings)
    identity = encoder_settings.describe()
    key = embed_key(upstream, identity)
    if not may_be_asked_again(workspace, key) and (found := workspace.found("embed", key)):
        return found
    started = time.monotonic()
    texts = collect_texts(upstream)
    known = known_vectors((upstream, workspace.warehouse.current()), identity, texts)
    missing = [hashed for hashed in texts.texts if hashed not in known]
    width = next((len(vector) for vector in known.values()), None)
    computed, refused = _encoded(workspace, encoder_settings, missing, texts, width)
    workspace.tally.embedded += len(computed)
    workspace.tally.embeddings_reused += len(known)
    rows = _vector_rows(texts, known | computed)
    summary = embed_summary(upstream, identity, texts, rows) | {"computed": len(computed), "reused": len(known)}
    builder = workspace.warehouse.begin(upstream)
    table = f"embeddings_{identity.short_name}"
    builder.replace(table, arrow_table(table, rows))
    if n_aside := put_aside(workspace, builder, upstream, texts.hashes, refused):
        summary["set_aside"] = n_aside
    stamp(builder, "embed", key, summary)
    return workspace.done("embed", workspace.commit(builder), started)


def embed_key(upstream: Snapshot, identity: EncoderIdentity) -> str:
    """Which profiles by which encoder."""
    profile = upstream.stages["profile"]  # retried under an unchanged key, profiles may still have new content
    return digest("embed", VERSION, profile["key"], profile["summary"]["content"], identity.key)


def collect_texts(snapshot: Snapshot) -> Texts:
    """Every profile of a snapshot by the hash of its text."""
    columns = ["kind", "entity_id", "profile", "evidence"]
    rows = snapshot.read("profiles", columns=columns)
    read = list(zip(*(rows.column(name).to_pylist() for name in columns), strict=True))
    spoken = {(kind, entity_id): profile for kind, entity_id, profile, _ in read if profile}
    order = [
        (kind, entity_id) for kind in ("item", "user") for entity_id in index_order(e for k, e in spoken if k == kind)
    ]
    hashes = {entity: text_hash(spoken[entity]) for entity in order}
    pooled = {}
    for kind, user_id, profile, evidence in read:
        if kind == "user" and not profile:
            members = [hashes["item", item_id] for item_id in evidence if ("item", item_id) in hashes]
            if members:
                pooled[user_id] = sorted(members)
    return Texts(hashes, {hashes[entity]: spoken[entity] for entity in order}, pooled)


def text_hash(text: str) -> str:
    """sha256 of a text, what its vector is stored under."""
    return hashlib.sha256(text.encode()).hexdigest()


def known_vectors(
    snapshots: Sequence[Snapshot | None], identity: EncoderIdentity, texts: Texts
) -> dict[str, np.ndarray]:
    """Vectors of these texts that this very encoder made before."""
    found: dict[str, np.ndarray] = {}
    table = f"embeddings_{identity.short_name}"
    for snapshot in snapshots:
        made_by = snapshot.stages.get("embed", {}).get("summary", {}).get("encoder_key") if snapshot else None
        if snapshot is None or made_by != identity.key or table not in snapshot.tables:
            continue
        rows = snapshot.read(table, columns=["text_hash", "embedding"])
        matrix = vectors(rows)
        for position, hashed in enumerate(strings(rows, "text_hash")):
            if hashed in texts.texts and hashed not in found:
                found[hashed] = matrix[position]
    return found


def embed_summary(
    snapshot: Snapshot, identity: EncoderIdentity, texts: Texts, rows: Mapping[str, Any]
) -> dict[str, Any]:
    """What the embed stage says of itself; `semantic_key` names exactly the vectors that models will read."""
    matrix = rows["embedding"]
    lines = [f"{kind}\x1f{entity_id}\x1f{hashed}" for kind, entity_id, hashed in _columns_of(rows)]
    ingest = snapshot.stages["ingest"]["summary"]
    return {
        "encoder": identity.model,
        "encoder_key": identity.key,
        "short_name": identity.short_name,
        "dtype": identity.dtype,
        "dim": int(matrix.shape[1]) if len(matrix) else 0,
        "items_with_vector": sum(kind == "item" for kind in rows["kind"]),
        "users_with_vector": sum(kind == "user" for kind in rows["kind"]),
        "users_pooled": len(texts.pooled),
        "semantic_key": digest(identity.key, ingest["items_hash"], ingest["users_hash"], sequence_hash(lines)),
    }


def _columns_of(rows: Mapping[str, Any]) -> zip[tuple[str, str, str]]:
    return zip(rows["kind"], rows["entity_id"], rows["text_hash"], strict=True)


def _encoded(
    workspace: Workspace, settings: EncoderConfig, missing: list[str], texts: Texts, width: int | None
) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, str]]]:
    """(vectors by hash of their text, why there is none by hash of the others)"""
    if not missing:
        return {}, {}
    workspace.progress.note(f"embed: loading {settings.model}")

    def on_progress(done: int, total: int) -> None:
        workspace.progress.advance("embed texts", done, total, spent(encoder))

    with opened_encoder(workspace, settings, len(missing), width) as encoder:
        matrix = encoder.encode([texts.texts[hashed] for hashed in missing], on_progress)
        refused = {text_hash(text): why for text, why in set_aside(encoder).items()}
    return {hashed: row for hashed, row in zip(missing, matrix, strict=True) if hashed not in refused}, refused


def _vector_rows(texts: Texts, by_hash: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Columns of the embeddings table; a pooled user has the unit-length mean of the vectors of their items."""
    rows: list[tuple[str, str, str, np.ndarray]] = []
    for (kind, entity_id), hashed in texts.hashes.items():
        if hashed in by_hash:
            rows.append((kind, entity_id, hashed, by_hash[hashed]))
    for user_id in index_order(texts.pooled):
        members = [hashed for hashed in texts.pooled[user_id] if hashed in by_hash]
        if not members:
            continue
        mean = np.mean([by_hash[hashed] for hashed in members], axis=0, dtype=np.float64)
        norm = np.linalg.norm(mean)
        if norm > 0:
            unit = np.asarray(mean / norm, np.float32)
            rows.append(("user", user_id, digest("pooled", members), unit))
    columns = [[row[place] for row in rows] for place in range(3)]
    stacked = np.stack([row[3] for row in rows]) if rows else np.zeros((0, 1), np.float32)
    return {**dict(zip(("kind", "entity_id", "text_hash"), columns, strict=True)), "embedding": stacked}
