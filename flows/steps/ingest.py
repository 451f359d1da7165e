"""Sources read, checked at the door, filtered and split: the tables every later stage starts from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.errors import MissingSettingError, NothingLeftError, QuarantineLimitError
from flows.settings import SourceSettings, SplitSettings, digest
from flows.steps.rows import index_order, positions, sequence_hash, strings, values
from flows.steps.split import PARTS, given_parts, random_parts
from flows.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from warehouse import Snapshot, Tombstones

VERSION = 1


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
    door = check_door(interactions, items, users, run_id=run_id)
    n_read = interactions.num_rows + items.num_rows + (users.num_rows if users else 0)
    _refuse_above_limit(strings(door.quarantine, "code"), n_read, source.max_quarantined_share)
    kept, dropped = _filtered(door.interactions, source, split.seed)
    user_ids = index_order(strings(kept, "user_id"))
    entities = _users(door.users, user_ids, screened=source.screen is not None)
    splits = _splits(kept, split)
    summary = {
        "n_items": door.items.num_rows,
        "n_users": entities.num_rows,
        "n_interactions": kept.num_rows,
        **{f"n_{part}": strings(splits, "part").count(part) for part in PARTS},
        **dropped,
        "quarantined": door.quarantine.num_rows,
        "rows_read": n_read,
        "split": split_words(split, source.screen),
        "split_hash": sequence_hash(_split_lines(splits)),
        "items_hash": sequence_hash(index_order(strings(door.items, "item_id"))),
        "users_hash": sequence_hash(index_order(strings(entities, "user_id"))),
        "item_columns": door.items.column_names,
        "user_columns": entities.column_names,
    }
    columns_kept = ["user_id", "item_id", "rating", "timestamp", "text"]
    stored = kept.select([name for name in columns_kept if name in kept.column_names])
    return PreparedTables(door.items, entities, stored, splits, door.quarantine, summary)


def split_words(split: SplitSettings, screen: float | None) -> str:
    """The split in words, as tables and reports name it."""
    if split.kind == "given":
        words = f"given column {split.column}"
    else:
        words = f"random {':'.join(f'{share:g}' for share in split.shares)}, seed {split.seed}"
    return f"{words}, screen of {screen:.0%} of the users" if screen else words


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
    """Only what this kind of split reads, so that the other kind's settings change nothing."""
    used = {"given": {"kind", "column"}, "random": {"kind", "shares", "seed"}}[split.kind]
    return split.model_dump(mode="json", include=used)


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


def _filtered(interactions: pa.Table, source: SourceSettings, seed: int) -> tuple[pa.Table, dict[str, int]]:
    """Interactions that pass the rating threshold and the screen, in (user, item) order, and how many did not."""
    dropped: dict[str, int] = {}
    kept = interactions
    if source.min_rating is not None:
        if "rating" not in kept.column_names:
            raise NothingLeftError(
                kept.num_rows, f"min_rating = {source.min_rating:g}: the source has no rating column"
            )
        passing = np.nan_to_num(values(kept, "rating").astype(float), nan=-np.inf) >= source.min_rating
        dropped["below_min_rating"] = int((~passing).sum())
        kept = kept.take(np.flatnonzero(passing))
    if source.screen is not None:
        chosen = screened_users(strings(kept, "user_id"), source.screen, seed)
        inside = np.fromiter((user in chosen for user in strings(kept, "user_id")), bool, kept.num_rows)
        dropped["outside_screen"] = int((~inside).sum())
        kept = kept.take(np.flatnonzero(inside))
    if kept.num_rows == 0:
        raise NothingLeftError(interactions.num_rows, ", ".join(dropped) or "the checks at the door")
    return kept.sort_by([("user_id", "ascending"), ("item_id", "ascending")]), dropped


def screened_users(user_ids: Sequence[str], share: float, seed: int) -> set[str]:
    """A seeded share of the users, at least one; the same ones whatever the order of the rows."""
    order = index_order(user_ids)
    chosen = np.random.default_rng([seed, 0x5C]).permutation(len(order))[: max(1, round(share * len(order)))]
    return {order[position] for position in chosen}


def _users(users: pa.Table | None, active: Sequence[str], screened: bool) -> pa.Table:
    from warehouse import arrow_table

    if users is None:
        return arrow_table(None, {"user_id": list(active)})
    if not screened:
        return users
    inside = set(active)
    return users.take([row for row, user in enumerate(strings(users, "user_id")) if user in inside])


def _splits(interactions: pa.Table, split: SplitSettings) -> pa.Table:
    from warehouse import arrow_table

    user_ids, item_ids = strings(interactions, "user_id"), strings(interactions, "item_id")
    if split.kind == "given":
        parts = given_parts(interactions, split.column)
    else:
        users, items = positions(user_ids, index_order(user_ids)), positions(item_ids, index_order(item_ids))
        parts = random_parts(users, items, shares=split.shares, rng=np.random.default_rng([split.seed, 0x31]))
    return arrow_table("splits", {"user_id": user_ids, "item_id": item_ids, "part": [PARTS[part] for part in parts]})


def _split_lines(splits: pa.Table) -> list[str]:
    columns = (strings(splits, name) for name in ("user_id", "item_id", "part"))
    return sorted("\x1f".join(row) for row in zip(*columns, strict=True))
