"""The texts of a set of vectors: who has which, and who gets a vector from others because they have none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.embedding_sets import PROFILE, EmbeddingSet
from flows.settings import digest
from flows.steps.rows import index_order, strings

if TYPE_CHECKING:
    from warehouse import Snapshot

KINDS = {"item": "items", "user": "users"}
HASH = "S70"  # 64 digits, or those of several texts after a mark
_SEVERAL = "texts:"  # the quality check of vectors and profiles knows by it that a row is not of the profile alone


@dataclass(frozen=True)
class TextPool:
    """Distinct texts in the order of their hashes."""

    hashes: np.ndarray
    texts: list[str]


@dataclass(frozen=True)
class SetTexts:
    """What one set has rows for, before anything is encoded: entities with texts, then users pooled from items.

    Attributes:
        kinds, ids: of the entities with texts; items in index order, then users.
        hashes: (n,) what each entity's vector is stored under; of a set of profiles, the hash of the profile.
        starts: (n + 1,) where an entity's texts begin and end in `text_hashes` and `texts`.
        pooled: ids of users without a text, in index order.
        pooled_starts: (p + 1,) where a pooled user's items begin and end in `pooled_rows`.
        pooled_rows: rows of the training items that are averaged for a user, by hash.
    """

    kinds: list[str]
    ids: list[str]
    hashes: np.ndarray
    starts: np.ndarray
    text_hashes: np.ndarray
    texts: list[str]
    pooled: list[str]
    pooled_starts: np.ndarray
    pooled_rows: np.ndarray


def collect_texts(snapshot: Snapshot, wanted: EmbeddingSet) -> SetTexts:
    """Every text of a set; an entity is in it when at least one of its texts is there."""
    columns = ["kind", "entity_id", "profile", "evidence"]
    stored = snapshot.read("profiles", columns=columns)
    profiles = list(zip(*(stored.column(name).to_pylist() for name in columns), strict=True))
    kinds: list[str] = []
    ids: list[str] = []
    texts: list[str] = []
    starts = [0]
    for kind in KINDS:
        sources = _sources(snapshot, kind, wanted.texts, profiles)
        for entity_id in index_order(entity_id for source in sources for entity_id in source):
            found = [source[entity_id] for source in sources if entity_id in source]
            texts += found[:1] if wanted.pooling == "first" else found
            kinds.append(kind)
            ids.append(entity_id)
            starts.append(len(texts))
    hashes = np.fromiter((text_hash(text).encode() for text in texts), HASH, len(texts))
    own = hashes if wanted.reads_profiles_alone else _several(hashes, starts, wanted.pooling)
    pooled, members = _pooled(profiles, kinds, ids, own)
    ends = np.cumsum([0, *map(len, members)])
    rows = np.fromiter((row for rows in members for row in rows), np.int64, int(ends[-1]))
    return SetTexts(kinds, ids, own, np.array(starts), hashes, texts, pooled, ends, rows)


def text_pool(sets: Sequence[SetTexts]) -> TextPool:
    """The distinct texts of some sets."""
    texts = [text for one in sets for text in one.texts]
    hashes, first = np.unique(np.concatenate([one.text_hashes for one in sets]), return_index=True)
    return TextPool(hashes, [texts[place] for place in first])


def text_hash(text: str) -> str:
    """sha256 of a text, what its vector is stored under."""
    return hashlib.sha256(text.encode()).hexdigest()


def pooled_hash(hashes: Sequence[str]) -> str:
    """What a pooled user's vector is stored under: the hashes of the items it was made of."""
    return digest("pooled", list(hashes))


def _sources(
    snapshot: Snapshot, kind: str, names: Sequence[str], profiles: Iterable[tuple[str, str, str | None, Any]]
) -> list[Mapping[str, str]]:
    """For each text of a set, id → text of those that have one."""
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    if PROFILE in found:
        found[PROFILE] = {entity_id: profile for of, entity_id, profile, _ in profiles if of == kind and profile}
    if columns := [name for name in names if name != PROFILE]:
        from warehouse import attribute_text, unpack_attributes

        rows = snapshot.read(KINDS[kind], columns=[f"{kind}_id", "attributes"])
        for entity_id, attributes in zip(strings(rows, f"{kind}_id"), unpack_attributes(rows), strict=True):
            for name in columns:
                if text := attribute_text(attributes.get(name)):
                    found[name][entity_id] = text
    return [found[name] for name in names]


def _several(hashes: np.ndarray, starts: Sequence[int], pooling: str) -> np.ndarray:
    """One hash an entity; how they are pooled is said where there is something to pool."""
    plain = [value.decode() for value in hashes.tolist()]
    own = []
    for start, end in pairwise(starts):
        how = pooling if end - start > 1 else "alone"
        own.append(f"{_SEVERAL}{digest('texts', how, plain[start:end])}".encode())
    return np.array(own, HASH)


def _pooled(
    profiles: Iterable[tuple[str, str, str | None, Sequence[str]]], kinds: list[str], ids: list[str], own: np.ndarray
) -> tuple[list[str], list[list[int]]]:
    """Users without a text, and for each the rows of the training items that have one, in the order of their hashes."""
    row_of = {entity_id: row for row, (kind, entity_id) in enumerate(zip(kinds, ids, strict=True)) if kind == "item"}
    told = {entity_id for kind, entity_id in zip(kinds, ids, strict=True) if kind == "user"}
    by_user = {}
    for kind, user_id, _, evidence in profiles:
        if kind == "user" and user_id not in told:
            members = [row_of[item_id] for item_id in evidence if item_id in row_of]
            if members:
                by_user[user_id] = members
    # vectors are added in this order, so that the sum does not depend on that of the evidence
    rank = np.argsort(np.argsort(own, kind="stable"), kind="stable")
    order = index_order(by_user)
    return order, [sorted(by_user[user_id], key=rank.__getitem__) for user_id in order]
