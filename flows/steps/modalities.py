"""Modalities: the named sets of vectors that a model reads, each traced to whoever made it.

`profiles` is the default set. Any other name is a set of [encoders.<name>], or vectors that `semalign import` brought.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.embedding_sets import PROFILE, PROFILES
from flows.model_choices import ModelChoice
from flows.model_errors import UnknownModalityError
from flows.settings import PlainMapping, Settings, digest
from flows.steps.rows import strings
from flows.workspace import Workspace

if TYPE_CHECKING:
    from warehouse import Snapshot

# How a row says that no text here made its vector: brought by a command, or read from the files of a set.
IMPORTED, FROM_FILE = "import:", "file:"


@dataclass(frozen=True)
class Modality:
    """One named set of vectors of a snapshot.

    Attributes:
        source: who made the texts or the vectors, in words.
        encoder_key: as `MatrixSpec` has it.
        key: changes whenever a vector of an item or user does.
        items: ids of the items that have a vector.
        has_users: whether any user has a vector; if none does, users are pooled from their training items.
        users_pooled: whether every vector of a user is a mean over items.
    """

    name: str
    table: str
    source: str
    encoder: str
    encoder_key: str
    key: str
    items: frozenset[str]
    has_users: bool
    users_pooled: bool


def modalities_of(mapping: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that a model, or the base it wraps, reads by its settings; profiles alone where it has no choice."""
    base = mapping.get("base")
    asked = mapping.get("modalities", base.get("modalities") if isinstance(base, Mapping) else None)
    if not isinstance(asked, list | tuple) or not all(isinstance(name, str) for name in asked):
        return (PROFILES,)
    return tuple(dict.fromkeys(asked))


def others_of(mapping: Mapping[str, Any]) -> tuple[str, ...]:
    """The modalities beside the profiles."""
    return tuple(name for name in modalities_of(mapping) if name != PROFILES)


def table_named(name: str) -> str:
    """Where the vectors of a modality lie."""
    return f"embeddings_{name}"


def modality(snapshot: Snapshot, name: str, model: str) -> Modality:
    """The set of that name.

    Raises:
        UnknownModalityError: there is none; names those there are.
    """
    table, sets = table_named(name), _sets(snapshot)
    if table not in snapshot.tables or (name not in sets and not is_imported(snapshot, table)):
        raise UnknownModalityError(model, name, known_modalities(snapshot))
    rows = snapshot.read(table, columns=["kind", "entity_id"])
    placed = list(zip(strings(rows, "kind"), strings(rows, "entity_id"), strict=True))
    items = frozenset(entity_id for kind, entity_id in placed if kind == "item")
    n_users = len(placed) - len(items)
    if said := sets.get(name):
        pooled = n_users <= said["users_pooled"]
        facts = (_source_of(said, snapshot), said["encoder"], said["encoder_key"], said["semantic_key"])
        return Modality(name, table, *facts, items, n_users > 0, pooled)
    stages = (snapshot.stages.get(f"import_{kind}_{name}", {}).get("summary", {}) for kind in ("item", "user"))
    files = ", ".join(dict.fromkeys(said["file"] for said in stages if "file" in said))
    width = snapshot.columns(table)["embedding"]
    # the hash of such a row is that of its vector, so that any file of this width may patch any other
    facts = (f"import ({files})" if files else "import", "import", f"{IMPORTED}{width}", _imported_key(snapshot, table))
    return Modality(name, table, *facts, items, n_users > 0, users_pooled=False)


def known_modalities(snapshot: Snapshot) -> list[str]:
    """Every name that a model of this snapshot may read."""
    imported = (table for table in snapshot.tables if is_imported(snapshot, table))
    return [PROFILES, *sorted({*_sets(snapshot), *(table.removeprefix("embeddings_") for table in imported)})]


def is_imported(snapshot: Snapshot, table: str) -> bool:
    """Whether a table of vectors was brought by `semalign import`; no table has rows of both sorts."""
    if not table.startswith("embeddings_") or not snapshot.rows(table):
        return False
    return snapshot.read(table, columns=["text_hash"]).column(0)[0].as_py().startswith(IMPORTED)


def content_keys(snapshot: Snapshot, names: Iterable[str]) -> dict[str, str | None]:
    """name → what changes whenever a vector does, None where there are none; of the modalities beside the profiles."""
    sets = _sets(snapshot)
    keys: dict[str, str | None] = {}
    for name in names:
        if name in sets:
            keys[name] = sets[name]["semantic_key"]
        elif name != PROFILES:
            table = table_named(name)
            keys[name] = _imported_key(snapshot, table) if table in snapshot.tables else None
    return keys


def source_of_profiles(snapshot: Snapshot) -> str:
    """Who made what the default set holds, as tables name it; `none` where no stage did."""
    if embed := snapshot.stages.get("embed"):
        return _source_of(embed["summary"], snapshot)
    return snapshot.stages.get("profile", {}).get("summary", {}).get("source", "none")


def reads_profiles(said: PlainMapping) -> bool:
    """Whether profiles are among the texts of a set, by its summary."""
    return "source" not in said and PROFILE in said.get("texts", [PROFILE])


def _source_of(said: PlainMapping, snapshot: Snapshot) -> str:
    """Who made the texts or the vectors of a set, by its summary."""
    profile = snapshot.stages["profile"]["summary"]["source"] if reads_profiles(said) else ""
    columns = ", ".join(text for text in said.get("texts", ()) if text != PROFILE)
    return said.get("source") or " + ".join(part for part in (profile, f"columns {columns}" * bool(columns)) if part)


def refuse_unknown_modalities(workspace: Workspace, choices: Iterable[ModelChoice], settings: Settings) -> None:
    """Nothing, when the settings or what is published have a set for every modality that a model reads.

    Raises:
        UnknownModalityError: before anything is paid for.
    """
    wanted = [(choice.label, name) for choice in choices for name in others_of(choice.mapping)]
    strangers = [(label, name) for label, name in wanted if name not in settings.encoders]
    if not strangers:
        return
    current = workspace.warehouse.current()
    imported = [] if current is None else [name for _, name in strangers if is_imported(current, table_named(name))]
    for label, name in strangers:
        if name not in imported:
            known = [PROFILES, *settings.encoders]
            if current is not None:
                tables = (table for table in current.tables if is_imported(current, table))
                known += [table.removeprefix("embeddings_") for table in tables]
            raise UnknownModalityError(label, name, known)


def with_imports(workspace: Workspace, snapshot_id: str, names: Iterable[str]) -> str:
    """Id of a snapshot whose imported vectors of these names are those that are published now.

    A stage found again may lie in a version from before an import; what was imported since is carried over to it.
    """
    warehouse, current = workspace.warehouse, workspace.warehouse.current()
    snapshot = warehouse.snapshot(snapshot_id)
    tables = [] if current is None else [table for table in map(table_named, names) if is_imported(current, table)]
    changed = [table for table in tables if current and _files(current, table) != _files(snapshot, table)]
    if not changed or current is None:
        return snapshot_id
    builder = warehouse.begin(snapshot)
    for table in changed:
        builder.replace(table, current.doubting().read(table))
        for stage in (f"import_{kind}_{table.removeprefix('embeddings_')}" for kind in ("item", "user")):
            if said := current.stages.get(stage):
                builder.stage(stage, key=said["key"], summary=said["summary"])
    builder.default_embeddings(snapshot.default_embeddings)
    workspace.tally.committed += 1
    return workspace.commit(builder).id


def _imported_key(snapshot: Snapshot, table: str) -> str:
    return digest(IMPORTED, sorted(_files(snapshot, table)))


def _files(snapshot: Snapshot, table: str) -> set[str]:
    return {fragment.sha256 for fragment in snapshot.tables.get(table, ())}


def _sets(snapshot: Snapshot) -> dict[str, PlainMapping]:
    """name → what the embed stage says of it, of the sets beside the default one."""
    summary = snapshot.stages.get("embed", {}).get("summary", {})
    return {said["short_name"]: said for said in summary.get("sets", ())[1:]}
