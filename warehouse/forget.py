"""The right to be forgotten: what one user left behind, taken out of every file under the root.

The one exception to retention. The published tables are written again without the user, every older version goes, and
with it whatever was made from one: bundles, models, reports, cached matrices and words, vector shards, copies of the
ledger. What stays of the user is a keyed hash, so that a source that still has them does not bring them back.
"""

import hashlib
import hmac
import json
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from warehouse.entities import attribute_text, unpack_attributes
from warehouse.errors import UnknownUserError
from warehouse.storage import atomic_write

if TYPE_CHECKING:
    from warehouse.commits import SnapshotBuilder
    from warehouse.root import Warehouse
    from warehouse.snapshot import Snapshot

RETRAIN = "retrain_required"


@dataclass(frozen=True)
class Removal:
    """What was taken out for one user.

    Args:
        rows: table → rows that named the user or were built from their words.
        items: items whose profile was built from a text of the user; the next run asks for them again.
        users: users whose profile was built from such a profile; the next run asks for them again.
        models: ids of the models that held a row of the user, now marked and gone.
        elsewhere: exports outside the root that may name the user; they are not touched.
    """

    rows: dict[str, int]
    items: tuple[str, ...]
    users: tuple[str, ...]
    replies: int
    models: tuple[str, ...]
    snapshots: int
    elsewhere: tuple[str, ...]


@dataclass(frozen=True)
class _Reach:
    """How far a user's words went.

    Args:
        items: items whose profile was built from a text of theirs.
        users: other users whose profile was built from the profile of such an item.
        around: (kind, id) of all whose replies, older ones too, may have been built from either.
    """

    items: frozenset[str]
    users: frozenset[str]
    around: frozenset[tuple[str, str]]


class Tombstones:
    """Keyed hashes of the users that were forgotten; `user_id in tombstones` asks for one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        stored = json.loads(path.read_bytes()) if path.exists() else {"key": secrets.token_hex(32), "hashes": []}
        self._key = bytes.fromhex(stored["key"])
        self._hashes = set(stored["hashes"])

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, user_id: str) -> bool:
        return bool(self._hashes) and self._hash(user_id) in self._hashes

    def add(self, user_id: str) -> None:
        """On disk when this returns."""
        self._hashes.add(self._hash(user_id))
        content = {"key": self._key.hex(), "hashes": sorted(self._hashes)}
        atomic_write(self._path, json.dumps(content, indent=1).encode())

    def _hash(self, user_id: str) -> str:
        return hmac.new(self._key, user_id.encode(), hashlib.sha256).hexdigest()


def forget_user(warehouse: "Warehouse", user_id: str) -> Removal:
    """Takes a user out of the warehouse; a call that was cut short is finished by the same call again.

    Raises:
        LockRequiredError: the run lock is not held by this process.
        UnknownUserError: no kept version and no request names the user.
        PinnedError: a reader still has an older version; nothing was changed.
    """
    tombstones, current = warehouse.tombstones(), warehouse.current()
    if user_id not in tombstones and not any(_knows(snapshot, user_id) for snapshot in warehouse.snapshots()):
        raise UnknownUserError(user_id, str(warehouse.root))
    warehouse.refuse_readers()
    tombstones.add(user_id)
    reach = _reach(warehouse.snapshots(), user_id)
    models = _models_of(warehouse.root / "models", user_id)
    rows: dict[str, int] = {}
    if current is not None:
        builder = warehouse.begin(current)
        rows = _write_without(builder, current, user_id, reach, [folder.name for folder in models])
        for stage in current.stages:
            builder.drop_stage(stage)
        warehouse.publish(builder.commit(code_version=current.manifest["code_version"]), forgetting=True)
    replies = 0
    if (warehouse.root / "ledger.sqlite").exists():
        with warehouse.ledger() as ledger:
            ledger.embedded.keep_only(_texts_that_stay(warehouse.current()))
            replies = ledger.forget("user", user_id, reach.around, _answers(warehouse.current()))
    dropped = warehouse.gc(keep=1, min_age_s=0).snapshots
    for folder in models:
        shutil.rmtree(folder)
    for name in ("reports", "matrices", "words", "backups", "mirrors"):  # vector shards went with the older versions
        shutil.rmtree(warehouse.root / name, ignore_errors=True)
    names = tuple(folder.name for folder in models)
    items, users = tuple(sorted(reach.items)), tuple(sorted(reach.users))
    return Removal(rows, items, users, replies, names, dropped, tuple(warehouse.exports()))


def _knows(snapshot: "Snapshot", user_id: str) -> bool:
    return any(snapshot.read(name, ["user_id"], {"user_id": user_id}).num_rows for name in ("users", "interactions"))


def _reach(snapshots: "Sequence[Snapshot]", user_id: str) -> _Reach:
    """How far the user's words went in any version that is kept."""
    items: set[str] = set()
    told: set[str] = set()
    met: set[str] = set()
    for snapshot in snapshots:
        met.update(_column(snapshot.read("interactions", ["item_id"], {"user_id": user_id}), "item_id"))
        rows = snapshot.read("profiles", ["entity_id", "evidence"], {"kind": "item"}).to_pylist()
        items.update(row["entity_id"] for row in rows if user_id in row["evidence"])
    around = {("item", item_id) for item_id in items | met}
    for snapshot in snapshots:
        rows = snapshot.read("profiles", ["entity_id", "evidence", "profile"], {"kind": "user"}).to_pylist()
        told.update(row["entity_id"] for row in rows if row["profile"] and not items.isdisjoint(row["evidence"]))
        rows = snapshot.read("augmentations", ["entity_id", "evidence", "candidates"], {"kind": "user"}).to_pylist()
        told.update(row["entity_id"] for row in rows if not items.isdisjoint([*row["evidence"], *row["candidates"]]))
        pairs = snapshot.read("interactions", ["user_id", "item_id"])
        pairs = pairs.filter(pc.field("item_id").isin(pa.array(sorted(items | met), pa.string())))
        around.update(("user", other) for other in _column(pairs, "user_id"))
    around.update(("user", other) for other in told)
    return _Reach(frozenset(items), frozenset(told - {user_id}), frozenset(around))


def _answers(snapshot: "Snapshot | None") -> set[str]:
    """Keys of the replies that the rows left were made of: no word of the user is in either."""
    if snapshot is None:
        return set()
    return {
        key
        for name in ("profiles", "augmentations", "decisions")
        for key in _column(snapshot.read(name), "request_key")
        if key
    }


def _column(rows: pa.Table, name: str) -> set[str]:
    return set(rows.column(name).to_pylist())


def _texts_that_stay(snapshot: "Snapshot | None") -> set[str]:
    """Hashes of the texts of everybody else; whatever else was embedded may be the user's, of today or of long ago."""
    if snapshot is None:
        return set()
    texts = snapshot.read("profiles", ["profile"])["profile"].to_pylist()
    texts += snapshot.read("augmentations", ["text"])["text"].to_pylist()
    # sets of vectors of columns: their tables have the hash of several texts, the ledger that of each
    for kind in ("items", "users"):
        for attributes in unpack_attributes(snapshot.read(kind, ["attributes"])):
            texts += map(attribute_text, attributes.values())
    staying = {hashlib.sha256(text.encode()).hexdigest() for text in texts if text}
    for name in snapshot.tables:
        if name.startswith("embeddings_"):
            staying.update(snapshot.read(name, ["text_hash"])["text_hash"].to_pylist())
    return staying


def _write_without(
    builder: "SnapshotBuilder", snapshot: "Snapshot", user_id: str, reach: _Reach, models: list[str]
) -> dict[str, int]:
    """Every table again without the user, models marked; returns how many rows of each table went."""
    removed = {}
    for name in snapshot.tables:
        rows = snapshot.read(name)
        if name == "llm_calls":
            kept = _anonymous(rows, user_id, reach)
        elif name == "model_registry":
            kept = _marked(rows, models)
        else:
            kept = rows.filter(_stays(rows, user_id, reach))
        removed[name] = rows.num_rows - kept.num_rows
        builder.replace(name, kept)
    return {name: n for name, n in removed.items() if n}


def _models_of(models: Path, user_id: str) -> list[Path]:
    """Folders of models whose bundle has a row of the user; one that cannot be read counts."""
    return [folder for folder in sorted(models.glob("*")) if folder.is_dir() and _names(folder, user_id)]


def _marked(registry: pa.Table, models: list[str]) -> pa.Table:
    rows = zip(registry["model_id"].to_pylist(), registry["state"].to_pylist(), strict=True)
    return _with(registry, "state", [RETRAIN if model_id in models else state for model_id, state in rows])


def _stays(rows: pa.Table, user_id: str, reach: _Reach) -> pc.Expression:
    stays = pc.scalar(True)
    if "user_id" in rows.column_names:
        stays &= pc.field("user_id") != user_id
    if {"kind", "entity_id"} <= set(rows.column_names):
        for kind, gone in (("user", reach.users | {user_id}), ("item", reach.items)):
            stays &= ~((pc.field("kind") == kind) & pc.field("entity_id").isin(pa.array(sorted(gone), pa.string())))
    return stays


def _anonymous(calls: pa.Table, user_id: str, reach: _Reach) -> pa.Table:
    """Calls keep their tokens and their price; whom they were about, and what a server said, goes."""
    gone = {"user": reach.users | {user_id}, "item": reach.items}
    about = zip(calls["kind"].to_pylist(), calls["entity_id"].to_pylist(), strict=True)
    named = [entity in gone.get(kind, ()) for kind, entity in about]
    for column in ("entity_id", "error"):
        values = zip(calls[column].to_pylist(), named, strict=True)
        calls = _with(calls, column, [None if hit else value for value, hit in values])
    return calls


def _with(rows: pa.Table, column: str, values: list[str | None]) -> pa.Table:
    field = rows.schema.field(column)
    return rows.set_column(rows.column_names.index(column), field, pa.array(values, field.type))


def _names(folder: Path, user_id: str) -> bool:
    try:
        return user_id in json.loads((folder / "user_ids.json").read_bytes())
    except (OSError, ValueError):
        return True
