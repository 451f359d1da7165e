"""Queries written by others: one statement, and one that only reads, or the reason why not."""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

# what a query tree may be made of; a CTE may also hold COPY or INSERT, and those write
_READING_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "CTE_NODE", "RECURSIVE_CTE_NODE"})
# named one by one: enable_logging and enable_profiling write files, query and json_execute_serialized_sql run any text
_READING_FUNCTION = re.compile(
    r"read_(blob|text|parquet|(csv|json|ndjson)(_auto)?|(json|ndjson)_objects(_auto)?)|sniff_csv|glob"
    r"|parquet_(scan|schema|metadata|file_metadata|kv_metadata)|range|generate_series|repeat|repeat_row|unnest"
    r"|json_each|json_tree|duckdb_(columns|functions|tables|types|views)|pragma_table_info"
)
_EXPLAIN = re.compile(r"\s*explain(\s+analyze)?\s", re.IGNORECASE)


def refusal(connection: "duckdb.DuckDBPyConnection", sql: str, macros: Collection[str] = ()) -> str | None:
    """Why a text is not exactly one statement that only reads; None where it is. Nothing of it is run.

    Args:
        macros: table macros of our own that it may call.

    Raises:
        duckdb.Error: it does not parse.
    """
    # EXPLAIN ANALYZE runs what it explains: it is judged by that
    judged = _EXPLAIN.sub("", sql, count=1) if _EXPLAIN.match(sql) else sql
    if len(connection.extract_statements(sql)) != 1 or len(connection.extract_statements(judged)) != 1:
        return "expected exactly one statement"
    ((text,),) = connection.execute("SELECT json_serialize_sql($1)", [judged]).fetchall()
    tree = json.loads(text)
    if tree.get("error"):
        return f"only reading statements are run ({tree.get('error_message')})"
    strange = sorted(set(_node_kinds(tree)) - _READING_NODES)
    if strange:
        return f"only reading statements are run, this one holds {strange[0]}"
    names = sorted({name.lower() for name in _table_functions(tree)} - set(macros))
    calls = [name for name in names if not _READING_FUNCTION.fullmatch(name)]
    return f"only reading statements are run, and the function `{calls[0]}` is not known to be one" if calls else None


def literal(text: str) -> str:
    """The text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def exact_path(path: Path | str) -> str:
    """The path as a pattern that finds this file alone: DuckDB expands patterns even in a list of names."""
    # brackets around a pattern character make it a plain one
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def _branches(tree: object) -> Iterator[dict[str, object]]:
    if isinstance(tree, dict):
        yield tree
    for branch in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _branches(branch)


def _node_kinds(tree: object) -> Iterator[str]:
    for branch in _branches(tree):
        kind = branch.get("type")
        if isinstance(kind, str) and kind.endswith("_NODE"):
            yield kind


def _table_functions(tree: object) -> Iterator[str]:
    for branch in _branches(tree):
        if branch.get("type") == "TABLE_FUNCTION":
            called = branch.get("function")
            # what is called without a name is called by nothing we know: it is refused by this one
            yield str(called.get("function_name", "?")) if isinstance(called, dict) else "?"
