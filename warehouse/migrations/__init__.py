"""The history of the tables, in numbered steps that only add: every snapshot ever written can be read for ever.

A step is a file `NNNN_what.sql` beside this one, of CREATE TABLE and ALTER TABLE … ADD COLUMN statements alone. A new
column may be null, for it is null in every fragment that is older. Nothing is renamed, dropped or given another type:
a column with another meaning is a new column. A test runs the steps and compares what they make with `TABLES`.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

from warehouse.errors import SchemaDriftError
from warehouse.table import Table, sql_columns

_STEP = re.compile(r"(\d{4})_[a-z][a-z0-9_]*\.sql")


@lru_cache(maxsize=1)
def steps() -> dict[int, str]:
    """Number → SQL of every step, in order."""
    found = {
        int(match.group(1)): entry.read_text(encoding="utf-8")
        for entry in files(__name__).iterdir()
        if (match := _STEP.fullmatch(entry.name))
    }
    return dict(sorted(found.items()))


def schema_version() -> int:
    """The number of the newest step; a manifest names the one its tables were written under."""
    return max(steps())


def refuse_drift(table: Table, columns: Mapping[str, str], path: str) -> None:
    """Nothing, when a fragment's columns are some of the table's, each of the table's type.

    Args:
        columns: name → SQL type, as the fragment has them.
        path: of the fragment, for the message.

    Raises:
        SchemaDriftError: a column was renamed, dropped or given another type since the fragment was written.
    """
    declared = sql_columns(table.schema)
    for name, kind in columns.items():
        expected = declared.get(name)
        if expected is None:
            raise SchemaDriftError(path, table.name, f"column `{name}` {kind}", "has no such column")
        # each member of a family has its own width
        is_vector = table.family and expected == "FLOAT[]" and re.fullmatch(r"FLOAT\[\d+\]", kind)
        if kind != expected and not is_vector:
            raise SchemaDriftError(path, table.name, f"column `{name}` {kind}", f"has it as {expected}")
