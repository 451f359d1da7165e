"""The rows of a query as a file or a stream: CSV that a spreadsheet may open, JSON, Parquet."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.caution import clean
from flows.errors import FileExistsAlreadyError, SettingSyntaxError

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("table", "csv", "json", "jsonl", "parquet")
# what a spreadsheet takes for the beginning of a formula
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def chosen_format(name: str | None, output: Path | None, as_json: bool) -> str:
    """The format asked for, else the one of the file's name, else a table.

    Raises:
        SettingSyntaxError: no such format, or one that only a file can hold.
    """
    if as_json:
        name = "json"
    if name is None:
        name = output.suffix.lstrip(".").lower() if output else "table"
    if name not in FORMATS or (output and name == "table"):
        given = f"--format {name}" if output is None else f"--output {output}"
        raise SettingSyntaxError(given, "csv, json, jsonl or parquet, and table on a screen")
    if name == "parquet" and output is None:
        raise SettingSyntaxError("--format parquet", "--output FILE.parquet beside it")
    return name


def deliver(rows: pa.Table, format_name: str, output: Path | None, snapshot_id: str) -> None:
    """Writes the rows to a file, all of it or nothing, or to standard output.

    csv: a header and one line a row; lists and structs as JSON; a text that a spreadsheet would run as a formula gets
    a `'` before it. json: one document with the snapshot, the columns and the rows. jsonl: an object a row. parquet:
    the types of the query.
    """
    from warehouse import atomic_write, replacing, write_parquet

    if format_name == "parquet" and output is not None:
        with replacing(output) as partial:
            write_parquet(partial, rows)
        return
    if format_name == "csv":
        text = _csv(rows)
    elif format_name == "jsonl":
        lines = (json.dumps(row, ensure_ascii=False, default=str) for row in rows.to_pylist())
        text = "".join(f"{line}\n" for line in lines)
    else:
        document = {"snapshot": snapshot_id, "columns": rows.column_names, "rows": rows.to_pylist()}
        text = json.dumps(document, ensure_ascii=False, indent=2, default=str) + "\n"
    if output is None:
        sys.stdout.write(text)
    else:
        atomic_write(output, text.encode())


def writable_file(path: Path, force: bool) -> Path:
    """The path, where a file may be written.

    Raises:
        FileExistsAlreadyError: a file is there and may not be replaced.
        SettingSyntaxError: it is no place for a file.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise SettingSyntaxError(str(path), "a file in a folder that exists")
    if path.exists() and not force:
        raise FileExistsAlreadyError(str(path))
    return path


def _csv(rows: pa.Table) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([csv_cell(name) for name in rows.column_names])
    for batch in rows.to_batches(max_chunksize=10_000):
        columns = [column.to_pylist() for column in batch.columns]
        writer.writerows([csv_cell(value) for value in row] for row in zip(*columns, strict=True))
    return stream.getvalue()


def csv_cell(value: Any) -> Any:
    """A value as a spreadsheet may open it: lists as JSON, a text that would run as a formula behind a mark."""
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False, default=str)
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
