"""A snapshot as a training bundle: interactions by index, semantic matrices as memory-mapped files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.embedding_sets import PROFILES
from flows.settings import PlainMapping, digest
from flows.split_errors import MissingRatingsError
from flows.steps.aspect_vectors import table_of
from flows.steps.aspects import CHOICE, aspects_of
from flows.steps.evidence import POOLED
from flows.steps.modalities import Modality, content_keys, modality, source_of_profiles
from flows.steps.rows import index_order, positions, sequence_hash, strings, values
from flows.steps.split import FOLD_IN, KNOWN, PARTS
from flows.steps.words import words_content

if TYPE_CHECKING:
    import pyarrow as pa
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


def interaction_parts(
    snapshot: Snapshot, ids: Mapping[str, list[str]], rated: Collection[str] = (), liked: float | None = None
) -> dict[str, InteractionMatrix]:
    """train, valid and test as sparse matrices, and fold_in where users are held out.

    Args:
        rated: parts whose values are ratings; those of the others are ones.
        liked: train and fold_in hold only what was rated so and above; all of it is then in `seen`.

    Raises:
        MissingRatingsError: ratings are asked for and a row has none.
    """
    from rec_models import InteractionMatrix

    splits = snapshot.read("splits")
    users = positions(strings(splits, "user_id"), ids["users"])
    items = positions(strings(splits, "item_id"), ids["items"])
    parts = np.array(strings(splits, "part"))
    shape = {"n_users": len(ids["users"]), "n_items": len(ids["items"])}
    ratings = _ratings(snapshot, splits) if rated or liked is not None else None

    hidden = np.zeros(len(parts), bool)
    if ratings is not None and liked is not None:
        hidden = np.isin(parts, KNOWN) & (ratings < liked)

    def matrix(inside: np.ndarray, is_rated: bool) -> InteractionMatrix:
        weights = ratings[inside] if ratings is not None and is_rated else None
        return InteractionMatrix.from_pairs(users[inside], items[inside], weights, **shape)

    found = {
        part: matrix(inside & ~hidden, part in rated)
        for part in PARTS
        if (inside := parts == part).any() or part != PARTS[FOLD_IN]
    }
    return found | ({"seen": matrix(np.isin(parts, KNOWN), False)} if liked is not None else {})


def _ratings(snapshot: Snapshot, splits: pa.Table) -> NDArray[np.float32]:
    """(rows,) the rating of each row of the splits."""
    rows = snapshot.read("interactions", columns=["user_id", "item_id", "rating"])
    given = values(rows, "rating").astype(np.float32)
    if n_missing := int(np.isnan(given).sum()):
        raise MissingRatingsError(n_missing, len(given))
    of_pair = dict(zip(zip(strings(rows, "user_id"), strings(rows, "item_id"), strict=True), given, strict=True))
    pairs = zip(strings(splits, "user_id"), strings(splits, "item_id"), strict=True)
    return np.fromiter((of_pair[pair] for pair in pairs), np.float32, splits.num_rows)


def ratings_content(snapshot: Snapshot) -> str:
    """Hash of who rated what how."""
    rows = snapshot.read("interactions", columns=["user_id", "item_id", "rating"])
    columns = (strings(rows, "user_id"), strings(rows, "item_id"), values(rows, "rating").tolist())
    return sequence_hash(sorted("\x1f".join(map(str, row)) for row in zip(*columns, strict=True)))


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
    reads_ratings: bool = False,
) -> str:
    """What a model is trained on, by content: the split, and the vectors, answers, words and ratings that are read."""
    ingest = snapshot.stages["ingest"]["summary"]
    facts: list[Any] = [ingest["split_hash"], ingest["items_hash"], ingest["users_hash"]]
    if reads_language:
        facts += [snapshot.stages["embed"]["summary"]["semantic_key"]] if PROFILES in modalities else []
        facts += [dict(content_keys(snapshot, modalities))] if set(modalities) - {PROFILES} else []
    facts += [dict(aspects)] if aspects else []
    facts += [ratings_content(snapshot)] if reads_ratings else []
    return digest("inputs", *facts, *(words_content(snapshot, words) if words else []))
