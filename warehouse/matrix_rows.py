"""From a table of embeddings to the rows of a matrix: located by id, decoded and written row group by row group.

No table or matrix is held whole: the thin columns say where rows belong, then a row group's vectors are decoded, go to
their places in the file, and their memory is used again. Pages of thin columns are proved by their own sums, so that a
file is hashed in full only where its vectors are read.
"""

import os
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

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
STAMP = np.dtype("S16")
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
        leave_strangers: rows of ids that are not in the order are passed over; else they are refused.
    """

    key: str
    table: str
    kind: str
    order: tuple[str, ...]
    encoder_key: str
    dtype: MatrixDtype = "float32"
    leave_strangers: bool = False

    @cached_property
    def family(self) -> str:
        """What two matrices share when one can be made from the other by changing rows."""
        return content_key([self.encoder_key, self.kind, list(self.order), self.dtype])[:40]


class TableRows:
    """The rows of one embeddings table, located for one matrix by the thin columns alone.

    Attributes:
        fragments: the files of the table.
        width: numbers in a vector.
        stamps: (n,) of the order; blank where an entity has no row.
        groups: (fragment, row group, places): where its rows belong, -1 for those of the other kind.
    """

    def __init__(self, snapshot: Snapshot, spec: MatrixSpec) -> None:
        self.fragments = snapshot.tables.get(spec.table, [])
        widths = {vector_width(fragment.columns) for fragment in self.fragments} or {0}
        self.width = max(width or 0 for width in widths)
        self.stamps = np.zeros(len(spec.order), STAMP)
        self.groups: list[tuple[Fragment, int, np.ndarray]] = []
        self._spec = spec
        self._footers: dict[Path, pq.FileMetaData] = {}
        order = pa.array(spec.order, pa.string())
        for fragment in self.fragments:
            with _decoding(fragment), pq.ParquetFile(fragment.path, page_checksum_verification=True) as file:
                self._footers[fragment.path] = file.metadata
                rows = file.read(columns=["kind", "entity_id", "text_hash"])
            places = self._places(rows, order)
            mine = places >= 0
            self.stamps[places[mine]] = _stamps(rows)[mine]
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
            for group, part in enumerate(np.split(places, np.cumsum(sizes)[:-1])):
                self.groups.append((fragment, group, part))

    def vectors(self, fragment: Fragment, group: int) -> np.ndarray:
        """(rows, width) of one row group, in the type they are stored in.

        Raises:
            CorruptFileError: a page does not decode.
            MatrixError: a value is not finite.
        """
        with _decoding(fragment), pq.ParquetFile(fragment.path, metadata=self._footers[fragment.path]) as file:
            column = file.read_row_group(group, columns=["embedding"], use_threads=False).column(0).combine_chunks()
        return _as_stored(self._spec, column.flatten().to_numpy().reshape(len(column), -1))

    def _places(self, rows: pa.Table, order: pa.Array) -> np.ndarray:
        import pyarrow.compute as pc

        ids = rows.column("entity_id")
        ours = pc.call_function("equal", [rows.column("kind"), pa.scalar(self._spec.kind)]).to_numpy()
        if ours.sum() == len(order) and ids.filter(pa.array(ours)).equals(pa.chunked_array([order])):
            return np.where(ours, np.cumsum(ours) - 1, -1)  # as the embed stage writes them: nothing to look up
        found = pc.fill_null(pc.call_function("index_in", [ids], pc.SetLookupOptions(order)), -1)
        places = found.to_numpy().astype(np.int64)
        if not self._spec.leave_strangers and (strangers := ours & (places < 0)).any():
            stranger = ids[int(strangers.argmax())].as_py()
            raise MatrixError(self._spec.key, f"{self._spec.kind} {stranger!r} has a vector and no place in the order")
        return np.where(ours, places, -1)


def write_rows(path: Path, spec: MatrixSpec, table: TableRows, check: Callable[[Fragment], None]) -> None:
    """A new .npy at `path` with every row of the table in its place; the others are zero.

    Args:
        check: hashes a fragment in full; runs beside the decoding.

    Raises:
        CorruptFileError, MatrixError, DiskFullError
    """
    stored = STORED[spec.dtype]
    row_bytes = table.width * stored.itemsize
    with created(path) as stream, ThreadPoolExecutor(_WORKERS) as pool:
        shape = (len(spec.order), table.width)
        np.lib.format.write_array_header_1_0(stream, {"descr": stored.str, "fortran_order": False, "shape": shape})
        stream.flush()
        start = stream.tell()
        os.truncate(stream.fileno(), start + len(spec.order) * row_bytes)

        def place(located: tuple[Fragment, int, np.ndarray]) -> None:
            fragment, group, places = located
            if not (places >= 0).any():
                return
            values = table.vectors(fragment, group)
            for first, last in _runs(places):
                os.pwrite(stream.fileno(), values[first:last].data, start + int(places[first]) * row_bytes)

        checked = [pool.submit(check, fragment) for fragment in table.fragments]
        for number, _ in enumerate(pool.map(place, table.groups)):
            if number % _GROUPS_A_FLUSH == _GROUPS_A_FLUSH - 1:
                os.fdatasync(stream.fileno())  # while the next groups decode: the end has less to wait for
        for proof in checked:
            proof.result()


def read_rows(
    table: TableRows, wanted: np.ndarray, check: Callable[[Fragment], None]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(places, values as stored) of wanted rows, a bool (n,), from the row groups that have any of them."""
    checked: set[Path] = set()
    for fragment, group, places in table.groups:
        taken = (places >= 0) & wanted[places]
        if not taken.any():
            continue
        if fragment.path not in checked:
            check(fragment)
            checked.add(fragment.path)
        yield places[taken], table.vectors(fragment, group)[taken]


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


@contextmanager
def _decoding(fragment: Fragment) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise CorruptFileError(str(fragment.path), f"it does not decode ({error})") from error


def _stamps(rows: pa.Table) -> np.ndarray:
    import pyarrow.compute as pc

    width = STAMP.itemsize
    cut = pc.call_function("utf8_slice_codeunits", [rows.column("text_hash")], pc.SliceOptions(0, width))
    told = pc.call_function("ascii_rpad", [cut], pc.PadOptions(width, "0")).combine_chunks()
    return np.frombuffer(pc.cast(told, pa.binary(width)).buffers()[1], STAMP, rows.num_rows)


def _runs(places: np.ndarray) -> Iterator[tuple[int, int]]:
    """Stretches of rows that lie side by side in the matrix too; rows of the other kind (-1) are in none."""
    if not len(places):
        return
    # from -1 to 0 is one step as well, and no neighbourhood
    breaks = np.flatnonzero((np.diff(places) != 1) | (places[:-1] < 0)) + 1
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
