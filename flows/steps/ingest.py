"""Sources read, checked at the door, filtered and split: the tables every later stage starts from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.errors import MissingSettingError, QuarantineLimitError
from flows.settings import digest
from flows.source_settings import SourceSettings, SplitSettings
from flows.steps.filters import filtered
from flows.steps.live_sources import settled
from flows.steps.rows import index_order, sequence_hash, strings
from flows.steps.split import FOLD_IN, LEFT_OUT, PARTS, TRAIN, split_rows
from flows.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from warehouse import Snapshot, Tombstones

VERSION = 1
_FILTERS = {
    "as_of",
    "window_days",
    "min_item_words",
    "word_columns",
    "min_user_interactions",
    "min_item_interactions",
}
# What a kind of split reads: the settings of the others change nothing.
_READ_BY = {
    "random": {"shares", "seed"},
    "given": {"column", "valid_share"},
    "users": {"held_out", "target_share", "seed"},
    "last": {"seed"},
    "time": {"shares", "cuts"},
}


@dataclass(frozen=True)
class PreparedTables:
    """What ingest writes, before it is written."""

    items: pa.Table
    users: pa.Table
    interactions: pa.Table
    splits: pa.Table
    quarantine: pa.Table
    summary: dict[str, Any]

    def stored(self) -> dict[str, pa.Table]:
        """name → table of what later stages read, as the warehouse keeps it."""
        from warehouse import pack_entities

        return {
            "items": pack_entities(self.items, kind="items"),
            "users": pack_entities(self.users, kind="users"),
            "interactions": self.interactions,
            "splits": self.splits,
        }


def ingest(workspace: Workspace, source: SourceSettings, split: SplitSettings) -> str:
    """Id of a snapshot with items, users, interactions and splits as the sources hold them today.

    Raises:
        QuarantineLimitError: more bad rows than `source.max_quarantined_share`; nothing is written.
        NothingLeftError, SplitColumnError, MissingSettingError, and what reading a source raises.
    """
    source = settled(source, workspace.warehouse)
    key = ingest_key(source, split)
    if found := workspace.found("ingest", key):
        _refuse_stored(workspace.warehouse.snapshot(found), source)
        return found
    started = time.monotonic()
    workspace.progress.note("ingest: reading the sources")
    prepared = prepare(source, split, workspace.run_id, workspace.warehouse.tombstones())
    builder = workspace.warehouse.begin(workspace.warehouse.current())
    for name, table in (prepared.stored() | {"quarantine": prepared.quarantine}).items():
        builder.replace(name, table)
    stamp(builder, "ingest", key, prepared.summary)
    return workspace.done("ingest", workspace.commit(builder), started)


def ingest_key(source: SourceSettings, split: SplitSettings) -> str:
    """Content of the sources and the settings that shape the tables; where the files lie is not part of it."""
    from warehouse import source_fingerprint

    contents = {}
    for kind, spec in (("interactions", source.interactions), ("items", source.items), ("users", source.users)):
        if spec is None and kind != "users":
            raise MissingSettingError(f"source.{kind}", "run")
        contents[kind] = source_fingerprint(spec, kind=kind) if spec else None
    shaping = source.model_dump(mode="json", include={"columns", "min_rating", "screen"})
    shaping |= source.model_dump(mode="json", include=_FILTERS, exclude_none=True)
    if source.as_of is not None:  # tables made before this rule are not found again
        shaping["repeated_pairs"] = "before as_of"
    if source.screen is not None:  # the seed chooses the users of a screen, whatever splits their rows
        shaping["screen_seed"] = split.seed
    return digest("ingest", VERSION, contents, shaping, _split_identity(split))


def prepare(source: SourceSettings, split: SplitSettings, run_id: str, forgotten: Tombstones) -> PreparedTables:
    """The tables of an ingest, checked, filtered and split, nothing written; rows of forgotten users are not read."""
    from warehouse import check_door, read_source

    columns = source.columns
    interactions = read_source(_spec(source.interactions, "interactions"), columns.interactions, kind="interactions")
    items = read_source(_spec(source.items, "items"), columns.items, kind="items")
    users = read_source(source.users, columns.users, kind="users") if source.users else None
    if forgotten:
        interactions, users = _without(interactions, forgotten), _without(users, forgotten) if users else None
    # the row of a repeated pair that stays must be one that the moment and the window keep, if it has such a row
    latest = source.window_days is not None
    door = check_door(interactions, items, users, run_id=run_id, before=source.as_of, latest=latest)
    n_read = interactions.num_rows + items.num_rows + (users.num_rows if users else 0)
    _refuse_above_limit(strings(door.quarantine, "code"), n_read, source.max_quarantined_share)
    kept, items, left_out = filtered(door.interactions, door.items, source, split.seed)
    parts, without = split_rows(kept, split)
    if split.drops_unseen:
        n_items = items.num_rows
        kept, parts, items = _of_seen_items(kept, parts, items)
        without["unseen_items"] = n_items - items.num_rows
    entities = _users(door.users, index_order(strings(kept, "user_id")), source)
    splits = _splits(kept, parts)
    counts = np.bincount(parts, minlength=len(PARTS))
    summary = {
        "n_items": items.num_rows,
        "n_users": entities.num_rows,
        "n_interactions": kept.num_rows,
        **{f"n_{part}": int(count) for part, count in zip(PARTS[:FOLD_IN], counts, strict=False)},
        **({"n_fold_in": int(counts[FOLD_IN])} if counts[FOLD_IN] else {}),
        "left_out": left_out | without,
        "quarantined": door.quarantine.num_rows,
        "rows_read": n_read,
        "split": split_words(split, source),
        "split_hash": sequence_hash(_split_lines(splits)),
        "items_hash": sequence_hash(index_order(strings(items, "item_id"))),
        "users_hash": sequence_hash(index_order(strings(entities, "user_id"))),
        "item_columns": items.column_names,
        "user_columns": entities.column_names,
    }
    columns_kept = ["user_id", "item_id", "rating", "timestamp", "text"]
    stored = kept.select([name for name in columns_kept if name in kept.column_names])
    return PreparedTables(items, entities, stored, splits, door.quarantine, summary)


def split_words(split: SplitSettings, source: SourceSettings) -> str:
    """The split and the filters before it in words, as tables and reports name them."""
    ratio = ":".join(f"{share:g}" for share in split.shares)
    held_out = " + ".join(f"{said:.0%}" if said < 1 else f"{said:,.0f}" for said in split.held_out)
    words = {
        "given": f"given column {split.column}",
        "random": f"random {ratio}, seed {split.seed}",
        "users": f"held-out users {held_out}, {split.target_share:.0%} of their rows to find, seed {split.seed}",
        "last": f"last row of each user, seed {split.seed}",
        "time": f"by time {ratio}" if split.cuts is None else "by time from " + " and ".join(map(str, split.cuts)),
    }[split.kind]
    if split.kind == "given" and split.valid_share:
        words += f", {split.valid_share:.0%} of each user's training rows as validation, seed {split.seed}"
    if split.unseen_items is not None:
        words += f", items unseen in training {'dropped' if split.drops_unseen else 'kept'}"
    if source.min_item_words is not None:
        words += f", items of {source.min_item_words} words and more"
    if source.cores != (1, 1):
        words += ", core of {} per user and {} per item".format(*source.cores)
    if source.as_of is not None:
        words += f", before {source.as_of.isoformat()}"
    if source.window_days is not None:
        words += f", the last {source.window_days:g} days"
    return f"{words}, screen of {source.screen:.0%} of the users" if source.screen else words


def stamp(builder: Any, stage: str, key: str, summary: dict[str, Any]) -> None:
    """Records a stage as done; the later ones were done on other tables, so their records go."""
    from flows.workspace import STAGES

    builder.stage(stage, key=key, summary=summary)
    for later in (*STAGES[STAGES.index(stage) + 1 :], "publish"):
        builder.drop_stage(later)


def _without(rows: pa.Table, forgotten: Tombstones) -> pa.Table:
    ids = rows.column("user_id").cast("string").to_pylist()
    return rows.take([place for place, user_id in enumerate(ids) if user_id is None or user_id not in forgotten])


def _spec(value: str | None, kind: str) -> str:
    if value is None:
        raise MissingSettingError(f"source.{kind}", "run")
    return value


def _split_identity(split: SplitSettings) -> dict[str, Any]:
    """Only what this kind of split reads."""
    used = {"kind", "unseen_items", *_READ_BY[split.kind]} - ({"shares"} if split.cuts else set())
    used |= {"seed"} if split.kind == "given" and split.valid_share else set()
    return split.model_dump(mode="json", include=used, exclude_none=True)


def _refuse_stored(snapshot: Snapshot, source: SourceSettings) -> None:
    """Today's limit on what was put aside when these sources were read; a limit is no part of a key."""
    n_read = snapshot.stages["ingest"]["summary"].get("rows_read")
    if n_read is not None:
        aside = snapshot.read("quarantine", columns=["code"], filter_equal={"stage": "ingest"})
        _refuse_above_limit(strings(aside, "code"), n_read, source.max_quarantined_share)


def _refuse_above_limit(codes: Sequence[str], n_rows: int, limit: float) -> None:
    if len(codes) > limit * n_rows:
        counted = ", ".join(f"{code} {count}" for code, count in Counter(codes).most_common())
        raise QuarantineLimitError("ingest", len(codes), n_rows, limit, counted, "source.max_quarantined_share")


def _of_seen_items(interactions: pa.Table, parts: np.ndarray, items: pa.Table) -> tuple[pa.Table, np.ndarray, pa.Table]:
    """Rows, parts and items without what is unknown in training."""
    inside = np.flatnonzero(parts != LEFT_OUT)
    seen = set(strings(interactions.take(np.flatnonzero(parts == TRAIN)), "item_id"))
    of_seen = [row for row, item_id in enumerate(strings(items, "item_id")) if item_id in seen]
    return interactions.take(inside), parts[inside], items.take(of_seen)


def _users(users: pa.Table | None, active: Sequence[str], source: SourceSettings) -> pa.Table:
    from warehouse import arrow_table

    if users is None:
        return arrow_table(None, {"user_id": list(active)})
    if source.screen is None and source.min_user_interactions is None:
        return users
    inside = set(active)
    return users.take([row for row, user in enumerate(strings(users, "user_id")) if user in inside])


def _splits(interactions: pa.Table, parts: np.ndarray) -> pa.Table:
    from warehouse import arrow_table

    named = {"user_id": strings(interactions, "user_id"), "item_id": strings(interactions, "item_id")}
    return arrow_table("splits", named | {"part": [PARTS[part] for part in parts]})


def _split_lines(splits: pa.Table) -> list[str]:
    columns = (strings(splits, name) for name in ("user_id", "item_id", "part"))
    return sorted("\x1f".join(row) for row in zip(*columns, strict=True))
