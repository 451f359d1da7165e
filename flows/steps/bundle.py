"""A snapshot as a training bundle: interactions by index, semantic matrices as memory-mapped files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.settings import PlainMapping, digest
from flows.steps.aspect_vectors import table_of
from flows.steps.aspects import CHOICE, aspects_of
from flows.steps.rows import index_order, positions, strings
from flows.steps.split import FOLD_IN, PARTS
from flows.steps.words import words_content

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rec_models import InteractionMatrix, SemanticSource
    from warehouse import MatrixDtype, MatrixPaths, Snapshot, Warehouse

MATRIX_VERSION = 3


def entity_ids(snapshot: Snapshot) -> dict[str, list[str]]:
    """`users` and `items` of a snapshot in index order: position 0 is index 0."""
    return {
        kind: index_order(strings(snapshot.read(kind, columns=[column]), column))
        for kind, column in (("users", "user_id"), ("items", "item_id"))
    }


def interaction_parts(snapshot: Snapshot, ids: Mapping[str, list[str]]) -> dict[str, InteractionMatrix]:
    """train, valid and test as sparse matrices of ones, and fold_in where users are held out."""
    from rec_models import InteractionMatrix

    splits = snapshot.read("splits")
    users = positions(strings(splits, "user_id"), ids["users"])
    items = positions(strings(splits, "item_id"), ids["items"])
    parts = np.array(strings(splits, "part"))
    shape = {"n_users": len(ids["users"]), "n_items": len(ids["items"])}
    return {
        part: InteractionMatrix.from_pairs(users[inside], items[inside], None, **shape)
        for part in PARTS
        if (inside := parts == part).any() or part != PARTS[FOLD_IN]
    }


def semantic_sources(
    warehouse: Warehouse, snapshot: Snapshot, ids: Mapping[str, list[str]], dtype: MatrixDtype
) -> dict[str, SemanticSource]:
    """The semantic matrices of a snapshot's items and users, built on first use and shared by every process after."""
    from rec_models import SemanticSource

    embed = snapshot.stages["embed"]["summary"]
    profile = snapshot.stages["profile"]["summary"]
    sources = {"items": profile["source"], "users": profile["user_source"]}
    found = {}
    for kind, source in sources.items():
        paths = semantic_matrix(warehouse, snapshot, kind, ids[kind], dtype)
        about = {"source": source, "encoder": embed["encoder"], "encoder_key": embed["encoder_key"], "dtype": dtype}
        about["missing"] = paths.missing
        found[kind] = SemanticSource(paths.values, paths.mask, about, paths.patch)
    return found


def semantic_matrix(
    warehouse: Warehouse, snapshot: Snapshot, kind: str, order: Sequence[str], dtype: MatrixDtype = "float32"
) -> MatrixPaths:
    """The matrix of `items` or `users` in index order by the default encoder, from the cache or built into it."""
    from warehouse import MatrixSpec

    embed = snapshot.stages["embed"]["summary"]
    key = digest("matrix", MATRIX_VERSION, embed["semantic_key"], kind, dtype)[:40]
    table = f"embeddings_{embed['short_name']}"
    spec = MatrixSpec(key, table, kind.removesuffix("s"), tuple(order), embed["encoder_key"], dtype)
    return warehouse.matrix(snapshot, spec)


def answered_aspects(snapshot: Snapshot, name: str) -> dict[str, str]:
    """aspect -> content of the answers, of what the snapshot holds of those a model of that name reads."""
    content = snapshot.stages.get("augment", {}).get("summary", {}).get("content", {})
    return {aspect: content[aspect] for aspect in aspects_of(name) if aspect in content}


def aspect_sources(
    warehouse: Warehouse, snapshot: Snapshot, ids: Mapping[str, list[str]], name: str, dtype: MatrixDtype
) -> dict[str, SemanticSource]:
    """The matrices of the texts that a model of that name asked for, such as `items_factual`."""
    from prompts import ASPECTS
    from rec_models import SemanticSource
    from warehouse import MatrixSpec

    embed = snapshot.stages["embed"]["summary"]
    found = {}
    for aspect, content in answered_aspects(snapshot, name).items():
        table, kind = table_of(aspect), ASPECTS[aspect]
        if table not in snapshot.tables:
            continue
        order = tuple(ids[f"{kind}s"])
        key = digest("matrix", MATRIX_VERSION, embed["semantic_key"], aspect, content, dtype)[:40]
        paths = warehouse.matrix(snapshot, MatrixSpec(key, table, kind, order, embed["encoder_key"], dtype))
        about = {"source": snapshot.stages["augment"]["summary"]["source"], "dtype": dtype, "missing": paths.missing}
        about |= {"encoder": embed["encoder"], "encoder_key": embed["encoder_key"]}
        found[f"{kind}s_{aspect}"] = SemanticSource(paths.values, paths.mask, about, paths.patch)
    return found


def chosen_edges(snapshot: Snapshot, ids: Mapping[str, list[str]], name: str) -> dict[str, NDArray[np.int64]]:
    """name -> (n_users, 2) item a language model chose for each user and one it refused, -1 for none; or nothing."""
    if CHOICE not in answered_aspects(snapshot, name):
        return {}
    columns = ["entity_id", "liked", "refused"]
    rows = snapshot.read("augmentations", columns=columns, filter_equal={"aspect": CHOICE})
    users, *pair = (strings(rows, column) for column in columns)
    edges = np.full((len(ids["users"]), 2), -1, np.int64)
    places = positions(users, ids["users"])
    edges[places] = np.stack([positions(items, ids["items"]) for items in pair], 1)
    return {name: edges}


def inputs_key(
    snapshot: Snapshot, reads_language: bool, aspects: Mapping[str, str], words: PlainMapping | None = None
) -> str:
    """What a model is trained on, by content: the split alone, or the split, the vectors, other answers and words."""
    ingest = snapshot.stages["ingest"]["summary"]
    facts: list[Any] = [ingest["split_hash"], ingest["items_hash"], ingest["users_hash"]]
    if reads_language:
        facts.append(snapshot.stages["embed"]["summary"]["semantic_key"])
    facts += [dict(aspects)] if aspects else []
    return digest("inputs", *facts, *(words_content(snapshot, words) if words else []))
