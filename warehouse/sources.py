"""Tables from outside: Parquet, CSV, JSONL, lists or a query, read through DuckDB into Arrow."""

import csv
import glob
import gzip
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from warehouse.bombs import refuse_bombs
from warehouse.errors import CorruptFileError
from warehouse.queries import exact_path, literal, refusal
from warehouse.source_errors import (
    ColumnMapError,
    EmptySourceError,
    MissingColumnError,
    MissingFileError,
    NotUtf8Error,
    UnreadableSourceError,
)
from warehouse.storage import content_key, file_sha256
from warehouse.user_lists import user_lists

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

SourceSpec = str | Path | Sequence[str | Path]

_QUERY = re.compile(r"\s*(select|with|from)\s", re.IGNORECASE)
_NOT_UTF8 = re.compile(r"not utf-?8 encoded|invalid unicode|invalid utf-?8|invalid string encoding", re.IGNORECASE)
_READERS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".txt": "lists",
    ".npy": "rows",
}
# what is read of one kind alone, and why not of others
_ONLY = {
    "lists": (("interactions",), "lists of items (.txt) hold interactions"),
    "rows": (("items", "users"), "vectors (.npy) say how many items or users there are, and nothing of who took what"),
}
_IDS = {"interactions": ("user_id", "item_id"), "items": ("item_id",), "users": ("user_id",)}
# read as they are written: `007` is an id, `1984` a title
_TEXT_COLUMNS = frozenset({"user_id", "item_id", "title", "text", "split", "part"})


def read_source(
    spec: SourceSpec,
    columns: Mapping[str, str] | None = None,
    kind: str = "interactions",
    directory: Path | None = None,
) -> "pa.Table":
    """The rows of a source under our names, in the order they are written.

    Ids are strings, lists stay lists, every other column keeps its type; columns nobody mapped keep their names.

    Args:
        spec: a path, a glob, a list of those, or SQL that starts with SELECT, WITH or FROM. Of .txt each line is a user
            and their items, and `split` is the part a file is named after; of .npy only the number of rows is read.
        columns: our name → the source's name.
        kind: "interactions" (needs user_id and item_id), "items" (item_id) or "users" (user_id).
        directory: where relative paths start, in SQL too; the working directory by default.

    Raises:
        MissingFileError, EmptySourceError, MissingColumnError, NotUtf8Error, UnreadableSourceError: exit code 2.
        CorruptFileError: a Parquet file that does not decode, exit code 6.
    """
    import duckdb

    named = _called(spec)
    try:
        with _connection(directory) as connection:
            relation = _relation(connection, spec, dict(columns or {}), kind, directory)
            rows = relation.project(_selection(relation, dict(columns or {}), kind, named)).to_arrow_table()
    except (duckdb.Error, RuntimeError) as error:
        # a name in a broken footer that is no text ends the binding itself, outside of DuckDB's own errors
        _raise_named(error, spec, kind, directory)
    if rows.num_rows == 0:
        raise EmptySourceError(named, kind)
    return _plain_types(rows)


def source_fingerprint(spec: SourceSpec, directory: Path | None = None, kind: str = "interactions") -> str:
    """sha256, in hex, of what a source holds: the bytes of its files in order of name, or the rows of its query.

    Raises:
        MissingFileError: a named file does not exist.
        UnreadableSourceError: a query that does not run, or is not one statement that only reads.
    """
    import duckdb

    if not is_query(spec):
        return content_key([file_sha256(Path(path).resolve()) for path in _paths(spec, kind, directory)])
    digest = hashlib.sha256()
    try:
        with _connection(directory) as connection:
            relation = _relation(connection, spec, {}, kind, directory)
            # sorted, for a query without ORDER BY may give the same rows in any order
            rows = relation.set_alias("_whole_row").project("sha256(_whole_row::VARCHAR) AS row").order("row")
            for batch in rows.to_arrow_reader():
                digest.update("".join(batch.column(0).to_pylist()).encode())
    except duckdb.Error as error:
        _raise_named(error, spec, kind, directory)
    return digest.hexdigest()


def is_query(spec: object) -> bool:
    """Whether a source is SQL: text that starts with SELECT, WITH or FROM; anything else names files."""
    return isinstance(spec, str) and bool(_QUERY.match(spec))


def _relation(
    connection: "duckdb.DuckDBPyConnection",
    spec: SourceSpec,
    columns: dict[str, str],
    kind: str,
    directory: Path | None,
) -> "duckdb.DuckDBPyRelation":
    if is_query(spec):
        query = str(spec).strip().rstrip(";")
        if why := refusal(connection, query):
            raise UnreadableSourceError(_called(spec), kind, why)
        return connection.sql(query)
    paths = _paths(spec, kind, directory)
    parts = [(path, _reader(path, kind)) for path in paths]
    readers = {reader for _, reader in parts}
    if len(readers) > 1:
        raise UnreadableSourceError(
            _called(spec), kind, f"its files are of several kinds ({', '.join(sorted(readers))})"
        )
    reader = readers.pop()
    escaped = [exact_path(path) for path in paths]
    if reader == "parquet":
        refuse_bombs(connection, paths)
        return connection.sql("SELECT * FROM read_parquet($1, union_by_name = true)", params=[escaped])
    if reader == "csv":
        return _csv(connection, paths, escaped, columns, kind)
    if reader == "lists":
        return user_lists(connection, paths, escaped, _bytes_of)
    if reader == "rows":
        return _numbered(connection, paths, kind)
    form = "newline_delimited" if reader == "jsonl" else "auto"
    return connection.sql(
        f"SELECT * FROM read_json($1, format = '{form}', union_by_name = true, sample_size = -1)", params=[escaped]
    )


def _numbered(connection: "duckdb.DuckDBPyConnection", paths: Sequence[str], kind: str) -> "duckdb.DuckDBPyRelation":
    """As many items or users as a file of vectors has rows, each called by its row."""
    import numpy as np

    if len(paths) > 1:
        raise UnreadableSourceError(", ".join(paths), kind, "rows of several files of vectors have no ids")
    try:
        shape = np.load(paths[0], mmap_mode="r", allow_pickle=False).shape
    except (ValueError, OSError, EOFError) as error:
        raise UnreadableSourceError(paths[0], kind, f"it is no array of numbers ({error})") from error
    n_rows = shape[0] if shape else 0
    # a title nobody knows: prompts that need one find the column, and no text in it
    unknown = ", NULL::VARCHAR AS title" if kind == "items" else ""
    return connection.sql(f"SELECT range::VARCHAR AS {_IDS[kind][-1]}{unknown} FROM range($1)", params=[n_rows])


def _csv(
    connection: "duckdb.DuckDBPyConnection",
    paths: Sequence[str],
    escaped: Sequence[str],
    columns: dict[str, str],
    kind: str,
) -> "duckdb.DuckDBPyRelation":
    import duckdb

    header = _header(paths[0], kind)
    # the commonest separator of the header: left to itself the sniffer reads a ragged file as one wide column
    separator = max(",;\t|", key=header.count)
    names = next(csv.reader([header], delimiter=separator))
    as_text = [name for name in names if name in _theirs(columns, _TEXT_COLUMNS)]
    types = "{" + ", ".join(f"{literal(name)}: 'VARCHAR'" for name in as_text) + "}"
    # said aloud, for the sniffer would rather skip lines or take `#` for a comment than refuse a file
    options = ["header = true", "skip = 0", "comment = ''", "quote = '\"'", "escape = '\"'", "sample_size = -1"]
    options += ["union_by_name = true", f"delim = {literal(separator)}"]
    if as_text:
        options.append(f"types = {types}")
    try:
        return connection.sql(f"SELECT * FROM read_csv($1, {', '.join(options)})", params=[list(escaped)])
    except duckdb.InvalidInputException:
        _find_bad_line(connection, escaped, names, separator)
        raise


def _find_bad_line(
    connection: "duckdb.DuckDBPyConnection", escaped: Sequence[str], names: Sequence[str], separator: str
) -> None:
    # a sniffer that gives up names no line; read as plain text, the same file does
    columns = "{" + ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names) + "}"
    strict = f"auto_detect = false, header = true, delim = {literal(separator)}, quote = '\"', escape = '\"'"
    connection.sql(
        f"SELECT count(*) FROM read_csv($1, {strict}, columns = {columns})", params=[list(escaped)]
    ).fetchall()


def _first_bad_line(spec: SourceSpec, kind: str, directory: Path | None) -> str | None:
    """Where the first bytes are that are no UTF-8, and those; None where a file has no lines we can read."""
    paths = [] if is_query(spec) else _paths(spec, kind, directory)
    for path in paths:
        if path.endswith(".zst") or _reader(path, kind) == "parquet":
            return None
        with _bytes_of(path) as stream:
            for number, line in enumerate(stream, 1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    near = line[max(0, error.start - 40) : error.start + 20].rstrip()
                    where = f"{path}, line" if len(paths) > 1 else "line"
                    return f"{where} {number}, byte {error.start + 1}: {ascii(near)[1:]}"
    return None


def _bytes_of(path: str) -> BufferedIOBase:
    return gzip.GzipFile(path) if path.endswith(".gz") else open(path, "rb")


def _header(path: str, kind: str) -> str:
    try:
        with _bytes_of(path) as stream:
            line = stream.readline(1 << 20)
    except (OSError, EOFError) as error:
        raise UnreadableSourceError(path, kind, str(error)) from error
    if not line.strip():
        raise EmptySourceError(path, kind)
    try:
        return line.decode("utf-8-sig").strip("\r\n")
    except UnicodeDecodeError as error:
        raise NotUtf8Error(path, kind, f"byte {error.start + 1} of the first line") from error


def _selection(relation: "duckdb.DuckDBPyRelation", columns: dict[str, str], kind: str, named: str) -> str:
    """The SELECT list that gives every column our name, ids and text as VARCHAR."""
    known = list(relation.columns)
    types = dict(zip(known, (str(t) for t in relation.types), strict=True))
    for ours in _IDS[kind]:
        columns.setdefault(ours, ours)
    for ours, theirs in columns.items():
        if theirs not in types:
            raise MissingColumnError(theirs, known, named, kind, ours)
    shown = [(ours, theirs) for ours, theirs in columns.items()]
    mapped = set(columns.values())
    shown += [(name, name) for name in known if name not in mapped]
    names = [ours.lower() for ours, _ in shown]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ColumnMapError(shown[place][0], kind)
    return ", ".join(f"{_shown(theirs, types[theirs], ours)} AS {_quoted(ours)}" for ours, theirs in shown)


def _shown(theirs: str, kind: str, ours: str) -> str:
    column = _quoted(theirs)
    if ours not in _TEXT_COLUMNS:
        return column
    if kind == "JSON":
        # a mixed column: the cast would keep the quotes of its strings
        return f"{column} ->> '$'"
    return f"{column}::VARCHAR"


def _plain_types(rows: "pa.Table") -> "pa.Table":
    import pyarrow as pa

    # a JSON column arrives as an extension type, which nothing downstream needs to know
    for place, field in enumerate(rows.schema):
        if isinstance(field.type, pa.ExtensionType):
            rows = rows.set_column(place, field.name, rows.column(place).cast(field.type.storage_type))
    return rows.replace_schema_metadata(None)


def _theirs(columns: Mapping[str, str], ours: frozenset[str]) -> set[str]:
    return {columns.get(name, name) for name in ours}


def _paths(spec: SourceSpec, kind: str, directory: Path | None) -> list[str]:
    patterns = [spec] if isinstance(spec, str | Path) else list(spec)
    paths: list[str] = []
    for pattern in patterns:
        where = str((directory or Path()) / Path(pattern).expanduser())
        found = [where] if os.path.exists(where) else sorted(glob.glob(where, recursive=True))
        if not found:
            raise MissingFileError(where, kind)
        for path in found:
            if os.path.isdir(path):
                raise UnreadableSourceError(path, kind, "it is a directory; name its files, for example with *.parquet")
            if os.path.getsize(path) == 0:
                raise EmptySourceError(path, kind)
        paths += found
    if not paths:
        raise MissingFileError("an empty list of files", kind)
    return paths


def _reader(path: str, kind: str) -> str:
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in (".gz", ".zst"):
        suffixes.pop()
    reader = _READERS.get(suffixes[-1]) if suffixes else None
    if reader is None:
        raise UnreadableSourceError(path, kind, f"expected one of {', '.join(_READERS)}, with .gz after it or not")
    kinds, why = _ONLY.get(reader, ((kind,), ""))
    if kind not in kinds:
        raise UnreadableSourceError(path, kind, why)
    return reader


def _connection(directory: Path | None) -> "duckdb.DuckDBPyConnection":
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "preserve_insertion_order": True,
        # a query names files, never variables of the program that runs it
        "python_enable_replacements": False,
    }
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute("SET TimeZone = 'UTC'")
    if directory is not None:
        connection.execute(f"SET file_search_path = {literal(str(directory))}")
    connection.execute("SET lock_configuration = true")
    return connection


def _raise_named(error: Exception, spec: SourceSpec, kind: str, directory: Path | None) -> NoReturn:
    import duckdb

    named = _called(spec)
    detail = re.sub(r"\s+", " ", str(error)).strip()
    detail = re.split(r" Possible (?:fixes|Solution)", detail)[0]
    if _NOT_UTF8.search(detail):
        # the line DuckDB quotes is the one before
        said = re.sub(r" Original Line: .*(?= Invalid unicode)", "", detail)[:200]
        raise NotUtf8Error(named, kind, _first_bad_line(spec, kind, directory) or said) from error
    misspelt = isinstance(error, duckdb.BinderException | duckdb.ParserException | duckdb.CatalogException)
    if not misspelt and re.search(r"\.(parquet|pq)\b", named.lower()):
        raise CorruptFileError(named, detail[:300], f"write source.{kind} again, or name another file") from error
    raise UnreadableSourceError(named, kind, detail[:400]) from error


def _called(spec: SourceSpec) -> str:
    if is_query(spec):
        return f"the query `{' '.join(str(spec).split())[:80]}`"
    return str(spec) if isinstance(spec, str | Path) else ", ".join(str(path) for path in spec)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
