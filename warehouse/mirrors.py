"""A query of a database as a Parquet file under the root, brought up to now by the rows that changed.

The mirror is a cache: without it the query is read whole. Its bytes follow from its rows, so a source that did not
change has the fingerprint it had.
"""

import json
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warehouse.databases import Database, Reader
from warehouse.errors import CorruptFileError
from warehouse.fragments import write_parquet
from warehouse.queries import exact_path, literal
from warehouse.source_errors import EmptySourceError, MissingColumnError
from warehouse.storage import content_key, make_directory, replacing

if TYPE_CHECKING:
    import pyarrow as pa

_NOTE = b"semalign"
FOLDER = "mirrors"


@dataclass(frozen=True)
class Mirror:
    """What a query of a database holds, on disk.

    Attributes:
        rows: how many it has now.
        fetched: how many of them were read from the database this time.
    """

    path: Path
    rows: int
    fetched: int

    def without(self, column: str) -> str:
        """The mirror as a source: every column but one."""
        excluded = column.replace('"', '""')
        return f'SELECT * EXCLUDE ("{excluded}") FROM read_parquet({literal(exact_path(self.path))})'


@dataclass(frozen=True)
class LiveQuery:
    """A query whose rows may change.

    Args:
        kind: interactions, items or users.
        since: the column that grows whenever a row is written or changed; None reads everything every time.
        keys: columns that identify a row. Where they do not, or rows vanish, everything is read.
    """

    kind: str
    sql: str
    since: str | None
    keys: tuple[str, ...]


def mirror(root: Path, database: Database, query: LiveQuery) -> Mirror:
    """The mirror of a query, brought up to now.

    Rows are counted on both sides: a row that was deleted, or written late under an old mark, shows in the count, and
    then everything is read. A row that was changed without its mark is not noticed.

    Raises:
        DatabaseError: the query does not run.
        EmptySourceError: it gives no row.
        MissingColumnError: it does not give the column of marks or a key.
    """
    path = make_directory(root / FOLDER) / f"{query.kind}.parquet"
    identity = content_key([database.place, query.sql, query.since, list(query.keys)])
    stored = _stored(path, identity)
    with database.reading() as reader:
        count, mark = reader.state(query.sql, query.since) if query.since else (None, None)
        if stored is not None and query.since and stored.note["count"] == count and stored.note["mark"] == _said(mark):
            return Mirror(path, stored.rows.num_rows, 0)
        rows, fetched = _brought_up(reader, query, stored, count)
    if rows.num_rows == 0:
        raise EmptySourceError(f"the query of {database.place}", query.kind)
    for name in (*query.keys, *([query.since] if query.since else [])):
        if name not in rows.column_names:
            raise MissingColumnError(name, rows.column_names, f"the query of {database.place}", query.kind)
    rows = rows.sort_by([(name, "ascending") for name in (*query.keys, *_sortable(rows, query.keys))])
    note = {"identity": identity, "count": count, "mark": _said(mark)}
    with replacing(path) as partial:
        write_parquet(partial, rows.replace_schema_metadata({_NOTE: json.dumps(note, sort_keys=True).encode()}))
    return Mirror(path, rows.num_rows, fetched)


@dataclass(frozen=True)
class _Stored:
    rows: "pa.Table"
    note: dict[str, Any]


def _stored(path: Path, identity: str) -> _Stored | None:
    """The mirror of exactly this query; None where it is another's, unreadable or not there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path, page_checksum_verification=True)
    except (FileNotFoundError, pa.ArrowException, CorruptFileError, OSError):
        return None
    note = json.loads((rows.schema.metadata or {}).get(_NOTE, b"{}"))
    return _Stored(rows, note) if note.get("identity") == identity else None


def _brought_up(reader: Reader, query: LiveQuery, stored: _Stored | None, count: int | None) -> tuple["pa.Table", int]:
    """Every row of the query, and how many of them were read."""
    import pyarrow as pa

    if stored is not None and query.since and (mark := _meant(stored.note["mark"])) is not None:
        # rows at the mark itself are read again: others may have been written in the same instant
        changed = reader.rows(query.sql, (query.since, mark))
        if set(query.keys) <= set(changed.column_names) and changed.column_names == stored.rows.column_names:
            kept = _without(stored.rows, changed, query.keys)
            rows = pa.concat_tables([kept, changed], promote_options="permissive").combine_chunks()
            if rows.num_rows == count:
                return rows, changed.num_rows
    rows = reader.rows(query.sql)
    return rows, rows.num_rows


def _without(rows: "pa.Table", changed: "pa.Table", keys: tuple[str, ...]) -> "pa.Table":
    if changed.num_rows == 0:
        return rows
    types = {name: rows.schema.field(name).type for name in keys}
    named = changed.select(list(keys)).cast(rows.select(list(keys)).schema.remove_metadata())
    assert types
    return rows.join(named, keys=list(keys), join_type="left anti").select(rows.column_names)


def _sortable(rows: "pa.Table", keys: tuple[str, ...]) -> list[str]:
    """The other columns that have an order, so that rows of one key have one too."""
    import pyarrow as pa

    nested = (pa.types.is_nested, pa.types.is_null)
    return [
        field.name for field in rows.schema if field.name not in keys and not any(test(field.type) for test in nested)
    ]


def _said(mark: Any) -> list[str] | None:
    """A mark as JSON keeps it: its type and its text."""
    if mark is None:
        return None
    if isinstance(mark, datetime | date):
        return [type(mark).__name__, mark.isoformat()]
    return [type(mark).__name__, str(mark)]


def _meant(said: list[str] | None) -> Any:
    if said is None:
        return None
    kinds = {"datetime": datetime.fromisoformat, "date": date.fromisoformat, "int": int, "float": float}
    return {**kinds, "Decimal": Decimal}.get(said[0], str)(said[1])
