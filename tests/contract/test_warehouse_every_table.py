"""One suite over every declared table: it can be stored, read back, seen from SQL and read when it is absent."""

import numpy as np
import pyarrow as pa
import pytest

from warehouse import TABLES, Table, Warehouse
from warehouse.table import sql_columns

_VALUES = {
    pa.string(): ["a", "b"],
    pa.int32(): [1, 2],
    pa.int64(): [1, 2],
    pa.float64(): [0.5, None],
    pa.timestamp("us", "UTC"): [0, 1],
    pa.list_(pa.string()): [["x"], []],
}


def example_rows(table: Table) -> pa.Table:
    """Two rows that differ in every column."""
    arrays = []
    for field in table.schema:
        if table.family and pa.types.is_list(field.type):
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6, dtype=np.float32)), 3))
        else:
            arrays.append(pa.array(_VALUES[field.type], field.type))
    return pa.table(dict(zip(table.schema.names, arrays, strict=True)))


def stored_name(table: Table) -> str:
    return f"{table.name}_mini" if table.family else table.name


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_what_is_stored_is_read_back_and_seen_from_sql(table, tmp_path):
    warehouse, rows = Warehouse(tmp_path), example_rows(table)
    with warehouse.lock():
        builder = warehouse.begin(None)
        builder.replace(stored_name(table), rows)
        snapshot = builder.commit()
    assert snapshot.read(table.name).to_pylist() == rows.to_pylist()
    with warehouse.catalogue(snapshot) as catalogue:
        seen = catalogue.query(f"SELECT * FROM {table.name} ORDER BY 1")
    assert seen.to_pylist() == rows.to_pylist()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_nothing_was_written_to_is_empty_with_its_columns(table, tmp_path):
    warehouse = Warehouse(tmp_path)
    with warehouse.lock():
        snapshot = warehouse.begin(None).commit()
    assert snapshot.read(table.name).schema.names == table.schema.names
    for version in (snapshot, None):
        with warehouse.catalogue(version) as catalogue:
            seen = catalogue.query(f"SELECT * FROM {table.name}")
        assert (seen.num_rows, seen.schema.names) == (0, table.schema.names)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_column_has_an_sql_type(table):
    assert list(sql_columns(table.schema)) == table.schema.names
