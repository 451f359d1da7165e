"""Parquet that is small on disk and enormous in memory, found before it is read.

What a footer declares cannot be believed: a file of 10 MB that names one long text ten thousand times declares 10 MB
and holds 100 GB. DuckDB adds up the lengths without copying a text, so that looking costs what decoding costs.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from warehouse.errors import CorruptFileError
from warehouse.queries import exact_path

if TYPE_CHECKING:
    import duckdb

# what no one calls a bomb, and how much more than its own size any other file may hold
_HARMLESS_BYTES = 1 << 30
_MOST_TIMES = 100
_CELL_BYTES = 8


def refuse_bombs(connection: "duckdb.DuckDBPyConnection", paths: Sequence[str], columns: Sequence[str] = ()) -> None:
    """Nothing, when each Parquet file holds at most 1 GiB, or a hundred times its own size, in the columns to be read.

    Args:
        columns: those that will be read; all where none is named.

    Raises:
        CorruptFileError: names the file and both sizes, exit code 6.
        duckdb.Error: it does not decode.
    """
    for path in paths:
        relation = connection.sql("SELECT * FROM read_parquet($1)", params=[exact_path(path)])
        kinds = dict(zip(relation.columns, map(str, relation.types), strict=True))
        measured = [_measure(name, kinds[name]) for name in columns or relation.columns]
        (held,) = relation.project(f"sum({' + '.join(measured)}) AS held").fetchall()[0]
        size = os.path.getsize(path)
        if held is not None and held > max(_HARMLESS_BYTES, _MOST_TIMES * size):
            detail = f"its {size:,} bytes stand for {int(held):,} in memory"
            raise CorruptFileError(
                path, detail, "write it again without repeated long texts, in several files if it must"
            )


def _measure(column: str, kind: str) -> str:
    # bytes of one cell, as a number that no sum of them overflows
    name = '"' + column.replace('"', '""') + '"'
    if kind in ("VARCHAR", "JSON"):
        length = f"strlen({name})"
    elif kind in ("VARCHAR[]", "JSON[]"):
        length = f"list_sum(list_transform({name}, lambda text: strlen(text)))"
    elif kind == "BLOB":
        length = f"octet_length({name})"
    elif kind.endswith("]"):
        length = f"{_CELL_BYTES} * len({name})"
    else:
        length = "0"
    return f"({_CELL_BYTES} + coalesce({length}, 0))::HUGEINT"
