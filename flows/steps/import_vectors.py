"""Vectors that were made elsewhere, joined by id with the items or users of today, as a table of their own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.embedding_sets import PROFILES
from flows.errors import NothingPublishedError
from flows.settings import Settings, digest
from flows.steps.bundle import entity_ids
from flows.steps.modalities import FROM_FILE, IMPORTED, table_named
from flows.steps.publish import append_run
from flows.steps.rows import strings, vectors
from flows.transfer_errors import TableTakenError, UnknownIdsError
from flows.vector_sources import VectorFiles
from flows.workspace import Workspace

if TYPE_CHECKING:
    from warehouse import NamedVectors, Snapshot, SnapshotBuilder

VERSION = 1


@dataclass(frozen=True)
class Imported:
    """What an import came to.

    Args:
        snapshot: id of the published version that holds it.
        changed: False where these very vectors were there already, and nothing was written.
        rows: vectors that were taken, each `dim` numbers.
        unknown: vectors of ids that nobody here has; they were left out.
        missing: items or users here that got none.
        scaled: vectors that had another length than one.
    """

    snapshot: str
    changed: bool
    table: str
    kind: str
    rows: int
    dim: int
    unknown: int
    missing: int
    scaled: int


def import_vectors(
    workspace: Workspace,
    named: NamedVectors,
    name: str,
    kind: str,
    settings: Settings,
    source: str = "a file",
    max_unknown: float = 0.01,
) -> Imported:
    """The vectors as rows of `embeddings_<name>` in a new published version; those of the other kind stay.

    Args:
        kind: "item" or "user".
        source: what the vectors were read from, for messages and the record.
        max_unknown: the largest share of vectors that may belong to nobody here.

    Raises:
        UnknownIdsError: more than that do.
        TableTakenError: an encoder's vectors lie under the name, or vectors of another width, or it is that of the
            default set.
        NothingPublishedError: there is nothing to join them with.
    """
    from warehouse import arrow_table, sql_identifier

    if name == PROFILES:
        raise TableTakenError(table_named(name), "would have the name that models give the default set")
    table, stage = sql_identifier(f"embeddings_{name}"), sql_identifier(f"import_{kind}_{name}")
    current = workspace.warehouse.current()
    if current is None:
        raise NothingPublishedError(str(workspace.warehouse.root))
    current = current.doubting()
    ids, values, unknown = _joined(named, entity_ids(current)[f"{kind}s"], source, kind, max_unknown)
    others = _others(current, table, kind, values.shape[1])
    hashes = [IMPORTED + hashlib.sha256(row).hexdigest() for row in values]
    key = digest("import", VERSION, table, kind, ids, hashes)
    missing = len(entity_ids(current)[f"{kind}s"]) - len(ids)
    facts = {"rows": len(ids), "dim": int(values.shape[1]), "unknown": unknown, "missing": missing}
    facts["scaled"] = named.scaled
    if current.stages.get(stage, {}).get("key") == key and table in current.tables:
        return Imported(current.id, False, table, kind, **facts)
    columns = {
        "kind": [*others["kind"], *[kind] * len(ids)],
        "entity_id": [*others["entity_id"], *ids],
        "text_hash": [*others["text_hash"], *hashes],
        "embedding": np.concatenate([others["embedding"], values]),
    }
    builder = workspace.warehouse.begin(current)
    builder.replace(table, arrow_table(table, columns))
    # what was made elsewhere takes nobody's place: `embeddings` stands for what it stood for
    builder.default_embeddings(current.default_embeddings)
    builder.stage(stage, key=key, summary={"source": "import", "table": table, "kind": kind, "file": source, **facts})
    return Imported(_published(workspace, builder, settings), True, table, kind, **facts)


def rows_of_files(snapshot: Snapshot, files: VectorFiles, option: str) -> dict[str, Any]:
    """Columns of an embeddings table, from the files of a set: items in index order, then users who have a vector.

    Args:
        option: where the settings have `max_unknown`, for messages.

    Raises:
        UnknownIdsError: more vectors than that belong to nobody here.
        TableTakenError: users have vectors of another width than items.
        What reading the files raises.
    """
    known = entity_ids(snapshot)
    columns: dict[str, Any] = {"kind": [], "entity_id": [], "text_hash": []}
    parts: list[np.ndarray] = []
    for kind in ("item", "user"):
        if (found := files.read(kind)) is None:
            continue
        named, name = found
        ids, values, _ = _joined(named, known[f"{kind}s"], name, kind, files.max_unknown, option)
        if parts and parts[0].shape[1] != values.shape[1]:
            problem = f"would hold items with {parts[0].shape[1]:,} numbers and users with {values.shape[1]:,}"
            raise TableTakenError(option.removesuffix(".max_unknown"), problem, "Give both one width")
        columns["kind"] += [kind] * len(ids)
        columns["entity_id"] += ids
        columns["text_hash"] += [FROM_FILE + hashlib.sha256(row).hexdigest() for row in values]
        parts.append(values)
    return {**columns, "embedding": np.concatenate(parts)}


def _published(workspace: Workspace, builder: SnapshotBuilder, settings: Settings) -> str:
    mark = append_run(workspace, builder, settings, 0)
    return workspace.warehouse.publish(workspace.commit(builder, mark)).id


def _joined(
    named: NamedVectors, known: list[str], source: str, kind: str, max_unknown: float, option: str = "--max-unknown"
) -> tuple[list[str], np.ndarray, int]:
    """ids in index order and their vectors (n, d), and how many belong to nobody."""
    place = {entity: row for row, entity in enumerate(named.ids)}
    taken = [entity for entity in known if entity in place]
    n_unknown = len(named.ids) - len(taken)
    if n_unknown > max_unknown * len(named.ids) or not taken:
        strangers = sorted(set(named.ids) - set(known))[:5]
        raise UnknownIdsError(source, kind, n_unknown, len(named.ids), max_unknown, strangers, option)
    return taken, named.values[[place[entity] for entity in taken]], n_unknown


def _others(current: Snapshot, table: str, kind: str, dim: int) -> dict[str, list[str] | np.ndarray]:
    """Columns of what the table holds of the other kind.

    Raises:
        TableTakenError: it is not an imported one, or its vectors have another width.
    """
    if table not in current.tables:
        return {"kind": [], "entity_id": [], "text_hash": [], "embedding": np.zeros((0, dim), np.float32)}
    if not all(said.startswith(IMPORTED) for said in strings(current.read(table, columns=["text_hash"]), "text_hash")):
        raise TableTakenError(table, "holds the vectors of an encoder or of a set of the settings")
    other = {"item": "user", "user": "item"}[kind]
    rows = current.read(table, filter_equal={"kind": other})
    width = vectors(rows).shape[1] if rows.num_rows else dim
    if width != dim:
        raise TableTakenError(table, f"holds {other}s with vectors of {width:,} numbers, these have {dim:,}")
    held = {name: strings(rows, name) for name in ("kind", "entity_id", "text_hash")}
    return {**held, "embedding": vectors(rows) if rows.num_rows else np.zeros((0, dim), np.float32)}
