"""Sources in a database as files: every later step reads a mirror, and asks nobody outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.source_settings import SourceSettings

if TYPE_CHECKING:
    from warehouse import Mirror, Warehouse

KINDS = ("interactions", "items", "users")
_IDS = {"interactions": ("user_id", "item_id"), "items": ("item_id",), "users": ("user_id",)}


def settled(source: SourceSettings, warehouse: Warehouse) -> SourceSettings:
    """The same sources with every query of `source.database` answered into a file under the root.

    Raises:
        MissingDatabaseError, DatabaseError, EmptySourceError, MissingColumnError: exit code 2.
    """
    return source.model_copy(update={"database": None, **mirrored(source, warehouse)[0]})


def mirrored(source: SourceSettings, warehouse: Warehouse) -> tuple[dict[str, str], dict[str, Mirror]]:
    """kind → what to read instead, and kind → its mirror; both empty without a database."""
    from warehouse import Database, LiveQuery, is_query, mirror

    asked = source.database
    if asked is None:
        return {}, {}
    database, instead, mirrors = Database(asked.url_env), {}, {}
    try:
        for kind in KINDS:
            sql, columns = getattr(source, kind), getattr(source.columns, kind)
            if not is_query(sql):
                continue
            keys = asked.keys.get(kind) or tuple(columns.get(name, name) for name in _IDS[kind])
            since = asked.updated_since.get(kind)
            found = mirrors[kind] = mirror(warehouse.root, database, LiveQuery(kind, sql, since, keys))
            # a mark is no attribute: a row whose mark alone moved says what it said
            unread = since is not None and since not in columns.values()
            instead[kind] = found.without(since) if since is not None and unread else str(found.path)
    finally:
        database.close()
    return instead, mirrors
