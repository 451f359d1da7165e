"""Writes a golden warehouse with whatever version of the code is on the path: `python write.py FOLDER`.

Two published snapshots over every table that version declares, and `expected.json` beside them: what that version
itself read back from the second one. Times are fixed, so that only the code decides what is written.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from warehouse import TABLES, Table, Warehouse

WIDTH = 3


def example_rows(table: Table, first: int) -> pa.Table:
    """Two rows that differ in every column, numbered from `first`."""
    numbers = [first, first + 1]
    by_type = {
        pa.string(): [f"text {n}" for n in numbers],
        pa.int32(): numbers,
        pa.int64(): numbers,
        pa.float64(): [first + 0.5, None],
        pa.timestamp("us", "UTC"): [n * 86_400_000_000 for n in numbers],
        pa.list_(pa.string()): [["x", "y"], []],
    }
    arrays = {}
    for field in table.schema:
        if table.family and pa.types.is_list(field.type):
            flat = pa.array(np.arange(2 * WIDTH, dtype=np.float32) + first)
            arrays[field.name] = pa.FixedSizeListArray.from_arrays(flat, WIDTH)
        else:
            arrays[field.name] = pa.array(by_type[field.type], field.type)
    return pa.table(arrays)


def write(root: Path) -> None:
    """The golden warehouse under `root`, which is not there yet."""
    warehouse = Warehouse(root)
    with warehouse.lock("golden"):
        published = None
        for first in (0, 10):
            builder = warehouse.begin(published)
            for table in TABLES:
                name = f"{table.name}_mini" if table.family else table.name
                (builder.append if table.history else builder.replace)(name, example_rows(table, first))
            builder.stage("ingest", key=f"golden-{first}", summary={"rows": 2})
            published = warehouse.publish(builder.commit(settings_hash="golden", code_version="golden"))
    read = {name: published.read(name).to_pylist() for name in sorted(published.tables)}
    expected = {"snapshot": published.id, "tables": read}
    text = json.dumps(expected, indent=1, sort_keys=True, default=lambda moment: moment.isoformat())
    (root / "expected.json").write_text(text + "\n", encoding="utf-8")
    for name in ("LOCK", "init.sql", "verified.json"):
        (root / name).unlink(missing_ok=True)
    for folder in ("staging", "pins"):
        if (root / folder).is_dir():
            (root / folder).rmdir()


if __name__ == "__main__":
    write(Path(sys.argv[1]).absolute())
