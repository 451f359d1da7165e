"""The door: every row that comes in is kept, or put into quarantine with its code and its evidence."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from warehouse.source_errors import EmptySourceError
from warehouse.storage import canonical_json
from warehouse.tables import QUARANTINE

if TYPE_CHECKING:
    import duckdb

_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
_DETAIL_CHARS = 500
_TYPED = {"rating": pa.float64(), "timestamp": pa.timestamp("us", "UTC"), "text": pa.string()}
# a number too large for seconds since 1970 is in milliseconds, and so on
_MS_FROM, _US_FROM, _NS_FROM, _TOO_LARGE_FROM = 1e11, 1e14, 1e17, 1e19


@dataclass(frozen=True)
class Door:
    """What came in: the rows that may stay, typed, and the rows that may not, with their reasons.

    Attributes:
        interactions: user_id, item_id, rating (float64), timestamp (UTC, microseconds), text, and what else came.
        items, users: one row per id, every column as it came; `users` is None where no users were given.
        quarantine: one row per refused row: kind, id, code, evidence.
    """

    interactions: pa.Table
    items: pa.Table
    users: pa.Table | None
    quarantine: pa.Table

    @property
    def quarantined_share(self) -> float:
        """Refused rows of all rows that came."""
        kept = self.interactions.num_rows + self.items.num_rows + (self.users.num_rows if self.users else 0)
        return self.quarantine.num_rows / max(1, kept + self.quarantine.num_rows)


def check_door(
    interactions: pa.Table,
    items: pa.Table,
    users: pa.Table | None = None,
    *,
    run_id: str = "",
    now: datetime | None = None,
    before: datetime | None = None,
    latest: bool = False,
) -> Door:
    """Every row judged once: kept, or in quarantine with the first of these codes that holds.

    `null_id`, `duplicate_id` (the first row of an id stays), `unknown_item`, `unknown_user` (only where users are
    given), `bad_rating`, `bad_time` (no number, no date), `absurd_time` (before 1990, more than a day ahead),
    `duplicate_pair` (one row of a pair stays).

    Args:
        interactions, items, users: as `read_source` gives them.
        now: the clock, for `absurd_time`.
        before: the caller will leave out rows of this moment and later and rows without one; of a pair, one row
            stays among those and one among the others.
        latest: the row of a pair that stays is its latest, not its first.

    Raises:
        EmptySourceError: no interaction is left.
    """
    span = {"earliest": _EARLIEST, "latest": (now or datetime.now(UTC)) + timedelta(days=1), "before": before}
    first = "timestamp DESC NULLS LAST, row" if latest else "row"
    with _connection() as connection:
        kept_items, refused_items = _entities(connection, items, "item_id")
        kept_users, refused_users = (None, []) if users is None else _entities(connection, users, "user_id")
        kept, refused = _interactions(connection, interactions, kept_items, kept_users, span, first)
    if kept.num_rows == 0:
        raise EmptySourceError(f"after the checks ({_counted(refused)}) the source", "interactions")
    quarantine = [
        *_refusals(interactions, refused, "interaction", "user_id"),
        *_refusals(items, refused_items, "item", "item_id"),
        *(_refusals(users, refused_users, "user", "user_id") if users is not None else []),
    ]
    rows = [{"stage": "ingest", "run_id": run_id, **row} for row in quarantine]
    return Door(kept, kept_items, kept_users, pa.Table.from_pylist(rows, schema=QUARANTINE.schema))


def _entities(
    connection: "duckdb.DuckDBPyConnection", rows: pa.Table, id_column: str
) -> tuple[pa.Table, list[tuple[int, str]]]:
    arriving = pa.table({"row": np.arange(rows.num_rows), "id": rows[id_column]})
    connection.register("arriving", arriving)
    refused = connection.sql(_sql("door_entities")).fetchall()
    return _without(rows, refused), refused


def _interactions(
    connection: "duckdb.DuckDBPyConnection",
    rows: pa.Table,
    items: pa.Table,
    users: pa.Table | None,
    span: Mapping[str, datetime | None],
    first: str,
) -> tuple[pa.Table, list[tuple[int, str]]]:
    rows = _with_optional_columns(rows)
    numbered = rows.append_column("row", pa.array(np.arange(rows.num_rows)))
    connection.register("arriving", numbered.select(["row", "user_id", "item_id", *_TYPED]))
    connection.register("known_items", items.select(["item_id"]))
    if users is not None:
        connection.register("known_users", users.select(["user_id"]))
    casts = {"rating": "TRY_CAST(rating AS DOUBLE)", "timestamp": _timestamp_cast(rows.schema.field("timestamp").type)}
    unknown = "false" if users is None else "NOT user_id IN (SELECT user_id FROM known_users)"
    query = _sql("door_interactions").format(user_is_unknown=unknown, first=first, **casts)
    refused = connection.sql(query, params=dict(span)).fetchall()
    typed = connection.sql(_sql("door_typed").format(**casts)).to_arrow_table()
    for name, kind in _TYPED.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, typed[name].cast(kind))
    return _without(rows, refused), refused


def _with_optional_columns(rows: pa.Table) -> pa.Table:
    for name, kind in _TYPED.items():
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.nulls(rows.num_rows, kind))
    return rows


def _timestamp_cast(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        size = "abs(timestamp::DOUBLE)"
        return (
            f"CASE WHEN timestamp IS NULL OR NOT isfinite(timestamp::DOUBLE) OR {size} >= {_TOO_LARGE_FROM} THEN NULL "
            f"WHEN {size} >= {_NS_FROM} THEN make_timestamptz(TRY_CAST(timestamp AS BIGINT) // 1000) "
            f"WHEN {size} >= {_US_FROM} THEN make_timestamptz(timestamp::BIGINT) "
            f"WHEN {size} >= {_MS_FROM} THEN make_timestamptz((timestamp::DOUBLE * 1000)::BIGINT) "
            "ELSE make_timestamptz((timestamp::DOUBLE * 1000000)::BIGINT) END"
        )
    # without a zone it is UTC: the connection's zone
    return "TRY_CAST(timestamp AS TIMESTAMPTZ)"


def _without(rows: pa.Table, refused: list[tuple[int, str]]) -> pa.Table:
    if not refused:
        return rows
    keep = np.ones(rows.num_rows, dtype=bool)
    keep[[row for row, _ in refused]] = False
    return rows.filter(pa.array(keep))


def _refusals(rows: pa.Table, refused: list[tuple[int, str]], kind: str, id_column: str) -> list[dict[str, str]]:
    taken = rows.take(pa.array([row for row, _ in refused], pa.int64())).to_pylist()
    return [
        {
            "kind": kind,
            "entity_id": str(evidence.get(id_column) or ""),
            "code": code,
            "detail": canonical_json({"row": row, **_readable(evidence)}),
        }
        for (row, code), evidence in zip(refused, taken, strict=True)
    ]


def _readable(evidence: dict[str, object]) -> dict[str, str | None]:
    return {name: None if value is None else str(value)[:_DETAIL_CHARS] for name, value in evidence.items()}


def _counted(refused: list[tuple[int, str]]) -> str:
    codes = [code for _, code in refused]
    return ", ".join(f"{codes.count(code)} {code}" for code in sorted(set(codes))) or "none refused"


def _connection() -> "duckdb.DuckDBPyConnection":
    import duckdb

    connection = duckdb.connect(":memory:", config={"autoinstall_known_extensions": False})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _sql(name: str) -> str:
    return files("warehouse").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
