"""From a table of embeddings to the rows of a matrix: located by id, decoded and written row group by row group.

Nothing here holds a table or a matrix whole: a row group is decoded, its rows go to their places in the file, and its
memory is used again for the next.
"""

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.errors import CorruptFileError, MatrixError
from warehouse.fragments import Fragment
from warehouse.snapshot import Snapshot
from warehouse.storage import content_key, created
from warehouse.table import vector_width

MatrixDtype = Literal["float32", "float16", "bfloat16"]

# bfloat16 is no NumPy type: its 16 bits are stored as unsigned integers
STORED = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "bfloat16": np.dtype("<u2")}
# of a text's hash, in hex: what tells one row's vector from another's
STAMP = np.dtype("S32")
_IDS = ("kind", "entity_id", "text_hash")
_WORKERS = max(2, min(4, os.cpu_count() or 1))
_GROUPS_A_FLUSH = 4


@dataclass(frozen=True)
class MatrixSpec:
    """What a semantic matrix is made of.

    Attributes:
        key: encoder, vectors and index order by content: equal keys mean equal matrices.
        table: the embeddings table.
        kind: `item` or `user`.
        order: entity ids; row i belongs to order[i].
        encoder_key: vectors of one encoder for texts of equal hash are equal, which a partial rebuild rests on.
        dtype: of the numbers on disk.
    """

    key: str
    table: str
    kind: str
    order: tuple[str, ...]
    encoder_key: str
    dtype: MatrixDtype = "float32"

    @cached_property
    def family(self) -> str:
        """What two matrices share when one can be made from the other by changing rows."""
        return content_key([self.encoder_key, self.kind, list(self.order), self.dtype])[:40]


@dataclass(frozen=True)
class LocatedRows:
    """One row group: where its rows belong and which text each stands for; -1 are rows of the other kind."""

    places: np.ndarray
    stamps: np.ndarray
    vectors: np.ndarray | None


class TableRows:
    """The row groups of one embeddings table, read for one matrix."""

    def __init__(self, snapshot: Snapshot, spec: MatrixSpec) -> None:
        self._spec = spec
        self.fragments = snapshot.tables.get(spec.table, [])
        self._order = pa.array(spec.order, pa.string())
        widths = {vector_width(fragment.columns) for fragment in self.fragments} or {0}
        self.width = max(width or 0 for width in widths)
        try:
            self._footers = {fragment.path: pq.read_metadata(fragment.path) for fragment in self.fragments}
        except (pa.ArrowException, OSError) as error:
            raise CorruptFileError(spec.table, f"a footer does not decode ({error})") from error

    def groups(self) -> list[tuple[Fragment, int]]:
        """Every row group of every fragment."""
        return [
            (fragment, group)
            for fragment in self.fragments
            for group in range(self._footers[fragment.path].num_row_groups)
        ]

    def read(self, fragment: Fragment, group: int, *, vectors: bool) -> LocatedRows:
        """One row group; its vectors too, or only whose they are.

        Pages are checked by their own sums where vectors are not read: nobody hashes the file for three thin columns.

        Raises:
            CorruptFileError: a page does not decode.
            MatrixError: a row of this kind whose id is not in the order.
        """
        columns = [*_IDS, "embedding"] if vectors else list(_IDS)
        try:
            with pq.ParquetFile(
                fragment.path, metadata=self._footers[fragment.path], page_checksum_verification=not vectors
            ) as file:
                rows = file.read_row_group(group, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise CorruptFileError(str(fragment.path), f"it does not decode ({error})") from error
        return LocatedRows(self._places(rows), _stamps(rows), _matrix(rows) if vectors else None)

    def _places(self, rows: pa.Table) -> np.ndarray:
        import pyarrow.compute as pc

        ours = pc.call_function("equal", [rows.column("kind"), pa.scalar(self._spec.kind)]).to_numpy()
        found = pc.call_function("index_in", [rows.column("entity_id")], pc.SetLookupOptions(self._order))
        places = pc.fill_null(found, -1).to_numpy().astype(np.int64)
        if (strangers := ours & (places < 0)).any():
            stranger = rows.column("entity_id")[int(strangers.argmax())].as_py()
            raise MatrixError(self._spec.key, f"{self._spec.kind} {stranger!r} has a vector and no place in the order")
        return np.where(ours, places, -1)


def write_rows(path: Path, spec: MatrixSpec, table: TableRows, check: Callable[[Fragment], None]) -> np.ndarray:
    """Stamps (n,) of the rows of a new .npy at `path`; rows without a vector are zero there and blank here.

    Args:
        check: hashes a fragment in full; runs beside the decoding.

    Raises:
        CorruptFileError, MatrixError, DiskFullError
    """
    stamps = np.zeros(len(spec.order), STAMP)
    stored = STORED[spec.dtype]
    with created(path) as stream, ThreadPoolExecutor(_WORKERS) as pool:
        start = _header(stream, (len(spec.order), table.width), stored)
        row_bytes = table.width * stored.itemsize
        os.truncate(stream.fileno(), start + len(spec.order) * row_bytes)

        def place(group: tuple[Fragment, int]) -> None:
            rows = table.read(*group, vectors=True)
            assert rows.vectors is not None
            values = _as_stored(spec, rows.vectors)
            for first, last in _runs(rows.places):
                os.pwrite(stream.fileno(), values[first:last].data, start + int(rows.places[first]) * row_bytes)
            mine = rows.places >= 0
            stamps[rows.places[mine]] = rows.stamps[mine]

        checked = [pool.submit(check, fragment) for fragment in table.fragments]
        for number, _ in enumerate(pool.map(place, table.groups())):
            if number % _GROUPS_A_FLUSH == _GROUPS_A_FLUSH - 1:
                os.fdatasync(stream.fileno())  # while the next groups decode: the end has less to wait for
        for proof in checked:
            proof.result()
    return stamps


def read_stamps(spec: MatrixSpec, table: TableRows) -> tuple[np.ndarray, list[tuple[tuple[Fragment, int], np.ndarray]]]:
    """Stamps (n,) as the table has them now, and the places of each row group."""
    stamps = np.zeros(len(spec.order), STAMP)
    where = []
    for group in table.groups():
        rows = table.read(*group, vectors=False)
        mine = rows.places >= 0
        stamps[rows.places[mine]] = rows.stamps[mine]
        where.append((group, rows.places))
    return stamps, where


def read_places(
    spec: MatrixSpec,
    table: TableRows,
    wanted: np.ndarray,
    where: Iterable[tuple[tuple[Fragment, int], np.ndarray]],
    check: Callable[[Fragment], None],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(places, values as stored) of wanted rows, a bool (n,), from the row groups that have any of them."""
    checked: set[Path] = set()
    for (fragment, group), places in where:
        taken = (places >= 0) & wanted[places]
        if not taken.any():
            continue
        if fragment.path not in checked:
            check(fragment)
            checked.add(fragment.path)
        vectors = table.read(fragment, group, vectors=True).vectors
        assert vectors is not None
        yield places[taken], _as_stored(spec, vectors[taken])


def save_patch(path: Path, rows: np.ndarray, values: np.ndarray) -> None:
    """Changed rows of a matrix, (m,) int64 and (m, d) as stored, in a zip whose members carry their own checksums."""
    with created(path) as stream:
        np.savez(stream, rows=rows, values=values)


def load_patch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Rows and values of a patch.

    Raises:
        CorruptFileError: a member's checksum is wrong, or it is no patch.
    """
    try:
        with np.load(path, allow_pickle=False) as patch:
            return patch["rows"], patch["values"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CorruptFileError(str(path), f"it is no patch of a matrix ({error})") from error


def _header(stream: BinaryIO, shape: tuple[int, int], dtype: np.dtype) -> int:
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    stream.flush()
    return stream.tell()


def _matrix(rows: pa.Table) -> np.ndarray:
    column = rows.column("embedding").combine_chunks()
    return column.flatten().to_numpy().reshape(rows.num_rows, -1)


def _stamps(rows: pa.Table) -> np.ndarray:
    import pyarrow.compute as pc

    width = STAMP.itemsize
    cut = pc.call_function("utf8_slice_codeunits", [rows.column("text_hash")], pc.SliceOptions(0, width))
    told = pc.call_function("ascii_rpad", [cut], pc.PadOptions(width, "0")).combine_chunks()
    return np.frombuffer(pc.cast(told, pa.binary(width)).buffers()[1], STAMP, rows.num_rows)


def _runs(places: np.ndarray) -> Iterator[tuple[int, int]]:
    """Stretches of rows that lie side by side in the matrix too."""
    if not len(places):
        return
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    for first, last in zip([0, *breaks.tolist()], [*breaks.tolist(), len(places)], strict=True):
        if places[first] >= 0:
            yield first, last


def _as_stored(spec: MatrixSpec, vectors: np.ndarray) -> np.ndarray:
    # a product with ones: one number a row, not finite when any of the row's numbers is not
    with np.errstate(invalid="ignore", over="ignore"):
        if not np.isfinite(vectors @ np.ones(vectors.shape[1], np.float32)).all():
            raise MatrixError(spec.key, "some values are not finite")
    if spec.dtype == "bfloat16":
        bits = np.ascontiguousarray(vectors).view(np.uint32)
        return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)
    return np.ascontiguousarray(vectors.astype(STORED[spec.dtype], copy=False))
