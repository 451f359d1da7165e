"""A snapshot as a training bundle: interactions by index, semantic matrices as memory-mapped files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.embedding_sets import PROFILES
from flows.settings import PlainMapping, digest
from flows.steps.aspect_vectors import table_of
from flows.steps.aspects import CHOICE, aspects_of
from flows.steps.evidence import POOLED
from flows.steps.modalities import Modality, content_keys, modality, source_of_profiles
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


def modality_sources(
    warehouse: Warehouse,
    snapshot: Snapshot,
    ids: Mapping[str, list[str]],
    names: Sequence[str],
    dtype: MatrixDtype,
    model: str,
) -> dict[str, SemanticSource]:
    """`items` and `users` of the profiles, `items_<name>` and `users_<name>` of every other modality of a model.

    Raises:
        UnknownModalityError: the snapshot has no set of that name.
    """
    found: dict[str, SemanticSource] = {}
    for name in names:
        if name == PROFILES:
            found |= semantic_sources(warehouse, snapshot, ids, dtype)
        else:
            found |= _sources_of(warehouse, snapshot, ids, modality(snapshot, name, model), dtype)
    return found


def semantic_sources(
    warehouse: Warehouse, snapshot: Snapshot, ids: Mapping[str, list[str]], dtype: MatrixDtype
) -> dict[str, SemanticSource]:
    """The semantic matrices of a snapshot's items and users, built on first use and shared by every process after.

    A default set without any user leaves them to be pooled from their training items when the bundle is read.
    """
    from rec_models import SemanticSource

    embed = snapshot.stages["embed"]["summary"]
    sources = {"items": source_of_profiles(snapshot), "users": snapshot.stages["profile"]["summary"]["user_source"]}
    if "source" in embed:  # no profile made these vectors
        sources["users"] = embed["source"] if embed["users_with_vector"] else POOLED
    found = {}
    for kind, source in sources.items():
        about = {"source": source, "encoder": embed["encoder"], "encoder_key": embed["encoder_key"], "dtype": dtype}
        if kind == "users" and "source" in embed and not embed["users_with_vector"]:
            found[kind] = SemanticSource(None, None, about | {"pooled_from": "items"})
            continue
        paths = semantic_matrix(warehouse, snapshot, kind, ids[kind], dtype)
        found[kind] = SemanticSource(paths.values, paths.mask, about | {"missing": paths.missing}, paths.patch)
    return found


def _sources_of(
    warehouse: Warehouse, snapshot: Snapshot, ids: Mapping[str, list[str]], one: Modality, dtype: MatrixDtype
) -> dict[str, SemanticSource]:
    """The matrices of one modality; rows of ids that are here no longer are left out, those without a vector masked."""
    from rec_models import SemanticSource
    from warehouse import MatrixSpec

    ingest = snapshot.stages["ingest"]["summary"]
    found = {}
    for kind in ("items", "users"):
        about: dict[str, str | int] = {
            "modality": one.name,
            "source": one.source,
            "encoder": one.encoder,
            "dtype": dtype,
        }
        about["encoder_key"] = one.encoder_key
        if kind == "users" and (not one.has_users or one.users_pooled):
            about["source"] = POOLED
        if kind == "users" and not one.has_users:
            found[f"users_{one.name}"] = SemanticSource(None, None, about | {"pooled_from": f"items_{one.name}"})
            continue
        key = digest("matrix", MATRIX_VERSION, "modality", one.key, ingest[f"{kind}_hash"], kind, dtype)[:40]
        place = (one.table, kind.removesuffix("s"), tuple(ids[kind]), one.encoder_key, dtype)
        paths = warehouse.matrix(snapshot, MatrixSpec(key, *place, leave_strangers=True))
        about["missing"] = paths.missing
        found[f"{kind}_{one.name}"] = SemanticSource(paths.values, paths.mask, about, paths.patch)
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
    snapshot: Snapshot,
    reads_language: bool,
    aspects: Mapping[str, str],
    modalities: Sequence[str] = (PROFILES,),
    words: PlainMapping | None = None,
) -> str:
    """What a model is trained on, by content: the split, and the vectors, other answers and words that it reads."""
    ingest = snapshot.stages["ingest"]["summary"]
    facts: list[Any] = [ingest["split_hash"], ingest["items_hash"], ingest["users_hash"]]
    if reads_language:
        facts += [snapshot.stages["embed"]["summary"]["semantic_key"]] if PROFILES in modalities else []
        facts += [dict(content_keys(snapshot, modalities))] if set(modalities) - {PROFILES} else []
    facts += [dict(aspects)] if aspects else []
    return digest("inputs", *facts, *(words_content(snapshot, words) if words else []))
