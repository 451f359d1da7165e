"""Texts of `augmentations` as vectors by the default encoder, one table an aspect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.embedding_sets import DescribedSet, default_set, described, embedding_sets, encoder_of
from flows.errors import SettingValueError
from flows.settings import Settings
from flows.steps.aspects import CHOICE
from flows.steps.encoders import opened_encoder, set_aside, spent
from flows.steps.rows import strings, vectors
from flows.steps.texts import HASH, text_hash
from flows.steps.vector_rows import VectorIndex
from flows.vector_sources import VECTORS
from flows.workspace import Workspace

if TYPE_CHECKING:
    from warehouse import Snapshot, SnapshotBuilder


@dataclass
class AspectVectors:
    """What was embedded: facts for the stage's summary, and rows of `quarantine` for texts without a vector."""

    said: dict[str, Any] = field(default_factory=dict)
    aside: list[dict[str, str]] = field(default_factory=list)


def table_of(aspect: str) -> str:
    """Where the vectors of an aspect lie."""
    return f"embeddings_{aspect}"


def refuse_taken_names(settings: Settings, aspects: Iterable[str]) -> None:
    """Nothing, when no set of vectors has the name of an aspect, and there is an encoder for their texts.

    Raises:
        SettingValueError: names the set.
    """
    if default_set(settings).from_files and any(aspect != CHOICE for aspect in aspects):
        problem = "answers of a language model have to be embedded, and vectors from files come without an encoder"
        raise SettingValueError("embeddings.name", VECTORS, problem)
    taken = {one.table: one.wanted for one in described(embedding_sets(settings))}
    for aspect in aspects:
        if wanted := taken.get(table_of(aspect)):
            problem = f"models keep the vectors of their own question `{aspect}` under that name; give it another"
            raise SettingValueError(wanted.path, wanted.name, problem)


def embed_texts(
    workspace: Workspace,
    builder: SnapshotBuilder,
    upstream: Snapshot,
    settings: Settings,
    rows: Sequence[Mapping[str, Any]],
) -> AspectVectors:
    """Puts a table of vectors an aspect into the builder; each text is encoded once, those known from before not."""
    from warehouse import arrow_table

    told = [row for row in rows if row["text"]]
    encoder = described([default_set(settings)])[0]
    made = AspectVectors({"encoder_key": encoder.identity.key})
    if not told:
        return made
    hashes = np.array([text_hash(row["text"]) for row in told], HASH)
    index = VectorIndex(hashes)
    reused = sum(_recall(index, snapshot, encoder) for snapshot in (upstream, workspace.warehouse.current()))
    why = _encode(workspace, encoder, index, {text_hash(row["text"]): row["text"] for row in told})
    workspace.tally.embeddings_reused += reused
    known = index.knows(hashes)
    aspects = [row["aspect"] for row in told]
    for aspect in sorted(set(aspects)):
        own = [place for place, name in enumerate(aspects) if name == aspect and known[place]]
        columns = {name: [told[place][name] for place in own] for name in ("kind", "entity_id")}
        columns |= {"text_hash": [hashes[place].decode() for place in own]}
        matrix = index.matrix[index.places(hashes[own])] if own else np.zeros((0, 1), np.float32)
        builder.replace(table_of(aspect), arrow_table(table_of(aspect), {**columns, "embedding": matrix}))
    builder.default_embeddings(upstream.default_embeddings)  # the last table written would be it
    for row in (told[place] for place in np.flatnonzero(~known)):
        code, detail = why[row["text"]]
        names = {name: row[name] for name in ("kind", "entity_id", "aspect")}
        made.aside.append({**names, "code": code, "detail": detail})
    return made


def _recall(index: VectorIndex, snapshot: Snapshot | None, encoder: DescribedSet) -> int:
    """How many vectors this very encoder made before."""
    said = snapshot.stages.get("augment", {}).get("summary", {}) if snapshot is not None else {}
    if snapshot is None or said.get("encoder_key") != encoder.identity.key:
        return 0
    found = 0
    for table in map(table_of, said["content"]):
        if table in snapshot.tables and (rows := snapshot.read(table, columns=["text_hash", "embedding"])).num_rows:
            found += index.put(np.array(strings(rows, "text_hash"), HASH), vectors(rows))
    return found


def _encode(
    workspace: Workspace, encoder: DescribedSet, index: VectorIndex, texts: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """Puts the vector of every unknown text into the index; text -> why, of those a server refused."""
    hashes = np.array(list(texts), HASH)
    missing = hashes[~index.knows(hashes)]
    if not len(missing):
        return {}
    due = [texts[hashed.decode()] for hashed in missing]
    workspace.progress.note(f"augment: loading {encoder.config.model}")
    with opened_encoder(workspace, encoder_of(encoder), len(due), index.matrix.shape[1] or None) as opened:

        def on_progress(done: int, total: int) -> None:
            workspace.progress.advance("embed answers", done, total, spent(opened))

        made = opened.encode(due, on_progress)
        why = set_aside(opened)
    good = np.array([text not in why for text in due])
    index.put(missing[good], made[good])
    workspace.tally.embedded += int(good.sum())
    return why
