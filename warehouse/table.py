"""A table as a value: its columns, what identifies a row, and how rows are made to fit."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from warehouse.errors import DuplicateKeyError, SchemaMismatchError
from warehouse.storage import content_key, sql_identifier

_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.large_string(): "VARCHAR",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.timestamp("us", "UTC"): "TIMESTAMPTZ",
}


@dataclass(frozen=True)
class Table:
    """A declared table.

    Args:
        name: the SQL name; for a family the stem, its members are called `<name>_<member>`.
        schema: columns in order; a field that is not nullable refuses nulls.
        keys: columns that identify one row; empty where rows are events.
        history: True keeps every row ever published: branches of snapshots are united, never dropped.
        family: True for one stored table per member, each with its own vector width.
    """

    name: str
    schema: pa.Schema
    keys: tuple[str, ...] = ()
    history: bool = False
    family: bool = False

    def __post_init__(self) -> None:
        for name in (self.name, *self.schema.names):
            sql_identifier(name)

    def member(self, name: str) -> "Table":
        """The same columns under a member's full name."""
        return Table(name, self.schema, self.keys, self.history, family=True)

    def empty(self) -> pa.Table:
        """No rows, the right columns."""
        return self.schema.empty_table()

    def conform(self, rows: pa.Table) -> pa.Table:
        """The rows with exactly the declared columns, in order and type; casts lose nothing.

        Raises:
            SchemaMismatchError: an unknown or missing column, a null where none may be, a value that does not fit.
        """
        unknown = [name for name in rows.column_names if name not in self.schema.names]
        if unknown:
            raise SchemaMismatchError(self.name, f"unknown column `{unknown[0]}`", ", ".join(self.schema.names))
        columns = [self._column(rows, field) for field in self.schema]
        fields = [field.with_type(column.type) for field, column in zip(self.schema, columns, strict=True)]
        return pa.Table.from_arrays(columns, schema=pa.schema(fields))

    def _column(self, rows: pa.Table, field: pa.Field) -> pa.ChunkedArray:
        if field.name not in rows.column_names:
            if not field.nullable:
                raise SchemaMismatchError(self.name, f"column `{field.name}` is missing", f"a {field.type}")
            return pa.chunked_array([pa.nulls(rows.num_rows, field.type)])
        column = rows.column(field.name)
        if not field.nullable and column.null_count:
            raise SchemaMismatchError(self.name, f"column `{field.name}` has {column.null_count} nulls", "none")
        wanted = field.type
        if self.family and pa.types.is_list(wanted):
            return self._vectors(column, field.name)
        if column.type.equals(wanted):
            return column
        try:
            return column.cast(wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SchemaMismatchError(
                self.name, f"column `{field.name}` is {column.type} ({error})", f"{wanted}"
            ) from error

    def _vectors(self, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
        kind = column.type
        if not (pa.types.is_fixed_size_list(kind) and pa.types.is_float32(kind.value_type) and kind.list_size > 0):
            raise SchemaMismatchError(self.name, f"column `{name}` is {kind}", "fixed_size_list<float32>[d]")
        return column

    def check_keys(self, rows: pa.Table) -> None:
        """Nothing, when no two rows share the keys.

        Raises:
            DuplicateKeyError: names one key that is there twice.
        """
        # a fifth of the package's import time, and only writers come here
        import pyarrow.compute as pc

        if not self.keys or rows.num_rows < 2:
            return
        counted = rows.select(list(self.keys)).group_by(list(self.keys)).aggregate([([], "count_all")])
        if counted.num_rows == rows.num_rows:
            return
        repeated = counted.filter(pc.field("count_all") > 1).slice(0, 1).drop_columns(["count_all"])
        raise DuplicateKeyError(self.name, self.keys, str(repeated.to_pylist()[0]))


def sql_type(kind: pa.DataType) -> str:
    """The DuckDB type of an Arrow type the warehouse stores."""
    if pa.types.is_fixed_size_list(kind):
        return f"{sql_type(kind.value_type)}[{kind.list_size}]"
    if pa.types.is_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    return _SQL_TYPES[kind]


def sql_columns(schema: pa.Schema) -> dict[str, str]:
    """Column name → DuckDB type, in order."""
    return {field.name: sql_type(field.type) for field in schema}


_VECTOR = re.compile(r"FLOAT\[(\d+)\]")


def vector_width(columns: Mapping[str, str]) -> int | None:
    """The length of the fixed-size vector among some SQL columns, None where there is none."""
    widths = [int(match.group(1)) for kind in columns.values() if (match := _VECTOR.fullmatch(kind))]
    return widths[0] if widths else None


def fingerprint(columns: Mapping[str, str]) -> str:
    """16 hex digits that change whenever a column's name, type or place does."""
    return content_key([[name, kind] for name, kind in columns.items()])[:16]


def declared(tables: Sequence[Table], name: str) -> Table | None:
    """The table a name stands for, a family's member included; None where nothing is declared."""
    for table in tables:
        if table.name == name and not table.family:
            return table
        if table.family and name.startswith(f"{table.name}_"):
            return table.member(sql_identifier(name))
    return None
