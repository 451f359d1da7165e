"""Vectors from outside and back: .npy with a file of ids, Parquet, and pickles of arrays, always joined by id."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.bombs import refuse_bombs
from warehouse.pickles import read_pickle
from warehouse.source_errors import VectorFileError
from warehouse.storage import atomic_write, created, replacing

MAX_WIDTH = 65_536
_ID_COLUMNS = ("entity_id", "id", "item_id", "user_id")
_NAME_IDS = (
    "Give the id of each row, in its order: --ids FILE (.txt, .json, .csv or .npy), or --ids rows: row n is id n"
)
# how far a length may be from one and still be a rounding of it
_ROUNDING = 1e-3


@dataclass(frozen=True)
class NamedVectors:
    """Vectors and whose they are: `ids` distinct, `values` (n, d) float32, finite, each of length one.

    Args:
        scaled: how many had another length in the file.
        empty: rows without a vector, all zero, that were left out of a file whose row n belongs to id n.
    """

    ids: list[str]
    values: np.ndarray
    scaled: int = 0
    empty: int = 0


def read_vectors(
    path: Path,
    ids: Path | Literal["rows"] | None = None,
    *,
    id_column: str | None = None,
    vector_column: str | None = None,
) -> NamedVectors:
    """The vectors of a file by id, of length one and in float32; those that had it already keep every bit.

    Args:
        path: .npy (n, d); Parquet with an id and a list of numbers a row; or a pickle of an array, whose rows are
            numbered as RLMRec numbers them where no ids are given, or of id → vector.
        ids: the id of each row, for a file that holds none; `<name>.ids.json` beside a .npy is found by itself. "rows"
            says that row n belongs to id n; such a file cannot leave a row out, so one that is all zero is no vector.
        id_column, vector_column: of a Parquet file, where they cannot be told from the types.

    Raises:
        VectorFileError: exit code 2; names what is wrong, and the ids of the rows it is wrong with.
        UnsafePickleError: exit code 6.
    """
    readers = {".npy": _numpy_file, ".pkl": _pickle_file, ".pickle": _pickle_file}
    if not path.is_file():
        raise VectorFileError(str(path), "there is no such file", "Correct the path")
    if path.suffix.lower() in (".parquet", ".pq"):
        if ids is not None:
            raise VectorFileError(str(path), "it names its rows itself", "Leave --ids out")
        names, values = _parquet_file(path, id_column, vector_column)
    elif path.suffix.lower() in readers:
        names, values = readers[path.suffix.lower()](path, ids)
    else:
        raise VectorFileError(str(path), "it is of no kind known here", "Expected .npy, .parquet or .pkl")
    if ids != "rows":
        return _checked(path, names, values)
    numbers = values.ndim == 2 and values.dtype.kind == "f"
    kept = np.flatnonzero(values.any(axis=1)) if numbers else np.arange(len(names))
    if not 0 < len(kept) < len(names):
        return _checked(path, names, values)
    return replace(_checked(path, [names[row] for row in kept], values[kept]), empty=len(names) - len(kept))


def read_ids(path: Path) -> list[str]:
    """Ids in order: lines of a .txt, a list in a .json, a column of a .csv, a 1-d .npy of integers or texts.

    A .csv with a column `row`, counted from 0, may name them in any order.

    Raises:
        VectorFileError: it is none of these.
    """
    readers = {".txt": _text_ids, ".json": _json_ids, ".csv": _csv_ids, ".npy": _numpy_ids}
    reader = readers.get(path.suffix.lower())
    if reader is None or not path.is_file():
        raise VectorFileError(str(path), "it is no file of ids", "Expected a .txt, .json, .csv or .npy that is there")
    try:
        found = reader(path)
    except (ValueError, TypeError, OSError, csv.Error) as error:
        raise VectorFileError(str(path), f"its ids cannot be read ({error})", _NAME_IDS) from error
    if any(isinstance(name, bool) or not isinstance(name, str | int) for name in found):
        raise VectorFileError(str(path), "it holds ids that are neither text nor whole numbers", _NAME_IDS)
    return [str(name) for name in found]


def write_vectors(path: Path, ids: Sequence[str], values: np.ndarray) -> Path:
    """Writes (n, d) float32 to a .npy and the ids to `<name>.ids.json` beside it, which is returned.

    The ids are there before the vectors are, and no older vectors stand beside them.
    """
    beside = ids_beside(path)
    path.unlink(missing_ok=True)
    atomic_write(beside, (json.dumps(list(ids), ensure_ascii=False) + "\n").encode())
    with replacing(path) as partial, created(partial) as stream:
        np.save(stream, np.ascontiguousarray(values, np.float32), allow_pickle=False)
    return beside


def ids_beside(path: Path) -> Path:
    """Where the ids of an exported .npy lie."""
    return path.with_suffix(".ids.json")


def pickled_profiles(path: Path) -> pa.Table | None:
    """Columns id, profile and reasoning of a pickle of id → {"profile": …}; None where it holds something else.

    Raises:
        UnsafePickleError: it holds more than plain values.
    """
    found = read_pickle(path)
    told = {name: {"profile": said} if isinstance(said, str) else said for name, said in _items(found)}
    if not told or not all(isinstance(said, dict) and isinstance(said.get("profile"), str) for said in told.values()):
        return None
    words = {column: [_text(said.get(column)) for said in told.values()] for column in ("profile", "reasoning")}
    return pa.table(
        {"id": [str(name) for name in told], **{name: pa.array(v, pa.string()) for name, v in words.items()}}
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _items(found: Any) -> Sequence[tuple[Any, Any]]:
    return list(found.items()) if isinstance(found, dict) else []


def _checked(path: Path, names: list[str], values: np.ndarray) -> NamedVectors:
    name = str(path)
    if values.ndim != 2 or not 0 < values.shape[1] <= MAX_WIDTH or values.dtype.kind != "f" or not len(values):
        shape = f"{values.dtype} {values.shape}"
        raise VectorFileError(name, f"it holds {shape}, expected floats (n, d) with 0 < d <= {MAX_WIDTH:,}", _NAME_IDS)
    if len(names) != len(values):
        raise VectorFileError(name, f"it holds {len(values):,} vectors and {len(names):,} ids name them", _NAME_IDS)
    repeated = list(dict.fromkeys(entity for entity, n in _counted(names).items() if n > 1))
    if repeated:
        raise VectorFileError(name, f"{len(repeated):,} ids are there more than once", "Keep one row an id", repeated)
    with np.errstate(over="ignore"):
        # a copy: a mapped file could change after it was looked at
        single = np.array(values, np.float32, order="C")
    lengths = np.sqrt(np.einsum("nd,nd->n", single, single, dtype=np.float64))
    for bad, what in ((~np.isfinite(lengths), "hold a number that is not finite"), (lengths == 0, "are all zero")):
        if bad.any():
            rows = [names[place] for place in np.flatnonzero(bad)]
            raise VectorFileError(name, f"{len(rows):,} vectors {what}", "Leave these rows out of the file", rows)
    off = np.abs(lengths - 1) > _ROUNDING
    if off.any():
        single[off] = (single[off] / lengths[off, None]).astype(np.float32)
    return NamedVectors(names, single, int(off.sum()))


def _counted(names: Sequence[str]) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _numpy_file(path: Path, ids: Path | Literal["rows"] | None) -> tuple[list[str], np.ndarray]:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise VectorFileError(str(path), f"it is no array of numbers ({error})", "Write it with numpy.save") from error
    if ids == "rows":
        return _numbered(values), values
    beside = ids_beside(path)
    if ids is None and not beside.is_file():
        raise VectorFileError(str(path), "nothing says whose its rows are", _NAME_IDS)
    return read_ids(ids or beside), values


def _numbered(values: np.ndarray) -> list[str]:
    return [str(row) for row in range(len(values) if values.ndim else 0)]


def _pickle_file(path: Path, ids: Path | Literal["rows"] | None) -> tuple[list[str], np.ndarray]:
    found = read_pickle(path)
    if isinstance(found, dict):
        return _pickled_mapping(path, found, ids is not None)
    try:
        values = np.asarray(found)
    except ValueError as error:
        raise VectorFileError(str(path), f"its rows differ in length ({error})", "Expected one array (n, d)") from error
    # RLMRec numbers users and items from 0 in the order of its rows
    return read_ids(ids) if isinstance(ids, Path) else _numbered(values), values


def _pickled_mapping(path: Path, found: dict[Any, Any], named: bool) -> tuple[list[str], np.ndarray]:
    if named:
        raise VectorFileError(str(path), "it names its rows itself", "Leave --ids out")
    if any(isinstance(value, dict | str) for value in found.values()):
        cure = "`semalign import … --to FILE.parquet` makes a table of them, which [source] can name"
        raise VectorFileError(str(path), "it holds profiles, no vectors", cure)
    try:
        values = np.stack([np.asarray(value) for value in found.values()]) if found else np.zeros((0, 0))
    except ValueError as error:
        raise VectorFileError(
            str(path), f"its rows differ in length ({error})", "Expected vectors of one width"
        ) from error
    return [str(name) for name in found], values


def _parquet_file(path: Path, id_column: str | None, vector_column: str | None) -> tuple[list[str], np.ndarray]:
    try:
        schema = pq.read_schema(path)
        named, vector = _chosen(path, schema, id_column, vector_column)
        _refuse_bomb(path, [named, vector])
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            rows = parquet.read(columns=[named, vector])
    except (pa.ArrowException, OSError) as error:
        raise VectorFileError(
            str(path), f"it is no Parquet file that can be read ({error})", "Write it anew"
        ) from error
    ids = rows.column(named)
    if ids.null_count:
        raise VectorFileError(
            str(path), f"column `{named}` has {ids.null_count:,} rows without an id", "Leave them out"
        )
    return [str(name) for name in ids.to_pylist()], _matrix(path, rows.column(vector).combine_chunks(), vector)


def _refuse_bomb(path: Path, columns: list[str]) -> None:
    import duckdb

    with duckdb.connect() as connection:
        try:
            refuse_bombs(connection, [str(path)], columns)
        except (duckdb.Error, RuntimeError) as error:
            raise VectorFileError(
                str(path), f"it is no Parquet file that can be read ({error})", "Write it anew"
            ) from error


def _matrix(path: Path, column: pa.Array, name: str) -> np.ndarray:
    # (n lists of d numbers) -> (n, d); a null or a list of another length has no place in it
    flat = column.flatten()
    width = len(flat) / len(column) if len(column) else 0
    lengths = {width} if pa.types.is_fixed_size_list(column.type) else set(column.value_lengths().unique().to_pylist())
    if column.null_count or flat.null_count or len(lengths) > 1 or not math.isclose(width, round(width)):
        raise VectorFileError(
            str(path), f"column `{name}` has rows without a vector, or of several widths", "Mend them"
        )
    return flat.to_numpy(zero_copy_only=False).reshape(len(column), round(width))


def _chosen(path: Path, schema: pa.Schema, id_column: str | None, vector_column: str | None) -> tuple[str, str]:
    vectors = [field.name for field in schema if _holds_numbers(field.type)]
    plain = [field.name for field in schema if _names_things(field.type)]
    usual = [name for name in plain if name in _ID_COLUMNS]
    chosen = []
    for asked, candidates, what in ((id_column, plain, "id"), (vector_column, vectors, "vector")):
        known = [asked] if asked in candidates else [] if asked else (usual or plain) if what == "id" else vectors
        if len(known) != 1:
            cure = f"Name it: --{what}-column NAME; its columns: {', '.join(schema.names)}"
            raise VectorFileError(str(path), f"which column holds the {what} is not clear", cure)
        chosen.append(known[0])
    return chosen[0], chosen[1]


def _names_things(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)


def _holds_numbers(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and pa.types.is_floating(kind.value_type)


def _text_ids(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    return lines[:-1] if not lines[-1] else lines


def _json_ids(path: Path) -> list[Any]:
    found = json.loads(path.read_bytes())
    if not isinstance(found, list):
        raise ValueError("expected a list")
    return found


def _csv_ids(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        first = stream.readline()
        stream.seek(0)
        header, *rows = [row for row in csv.reader(stream, delimiter=max(",\t;", key=first.count)) if row]
    numbered = header.index("row") if "row" in header else None
    known = [place for place, name in enumerate(header) if name in _ID_COLUMNS]
    known = known or [place for place in range(len(header)) if place != numbered]
    if len(known) != 1:
        raise ValueError(f"expected one column, or one called {', '.join(_ID_COLUMNS)}, got {', '.join(header)}")
    if numbered is not None:
        rows.sort(key=lambda row: int(row[numbered]))
        gap = next((place for place, row in enumerate(rows) if int(row[numbered]) != place), None)
        if gap is not None:
            raise ValueError(f"its column `row` does not name row {gap} once")
    return [row[known[0]] for row in rows]


def _numpy_ids(path: Path) -> list[Any]:
    found = np.load(path, allow_pickle=False)
    if found.ndim != 1 or found.dtype.kind not in "iuU":
        raise ValueError(f"expected integers or texts (n,), got {found.dtype} {found.shape}")
    return found.tolist()
