"""SQL over one snapshot: DuckDB in memory, views over exactly the pinned files, nothing else within reach."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from warehouse.errors import SqlError
from warehouse.fragments import Fragment
from warehouse.pins import pinned
from warehouse.quality import quality_checks
from warehouse.queries import exact_path, literal, refusal
from warehouse.snapshot import Snapshot, sql_columns_of
from warehouse.storage import fsync_file, replacing, sql_identifier
from warehouse.table import sql_columns
from warehouse.tables import EMBEDDINGS, PROFILES, TABLES

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MACROS = (
    "similar_items",
    "similar_users",
    "users_like",
    "profile_history",
    "changed_profiles",
    "coverage",
    "drift",
    "cost_by_day",
    "cost_by_engine",
)

_LOCKDOWN = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


class Catalogue:
    """Read-only SQL over a snapshot's tables, as a context manager.

    Every declared table is a view, empty where nothing was written; `embeddings` is the default encoder's. Files of
    the snapshot are proved before the first query, no other file, extension or setting can be reached from SQL.
    """

    def __init__(
        self, snapshot: Snapshot | None, lineage: Callable[[], Sequence[Snapshot]], root: Path, memory: str = "4GB"
    ) -> None:
        self._snapshot = snapshot
        self._find_lineage = lineage
        self._lineage: Sequence[Snapshot] = ()
        self._root = root
        self._memory = memory
        self._pins = ExitStack()
        self._connection: duckdb.DuckDBPyConnection | None = None

    def __enter__(self) -> Self:
        named = [snapshot.id for snapshot in self._find_lineage()]
        self._pins.enter_context(pinned(self._root, named))
        try:
            # what went before it was pinned is not there; what is there now stays
            self._lineage = [snapshot for snapshot in self._find_lineage() if snapshot.id in named]
            self._prove(trust_notes=True)
            with self._rot_named():
                self._connection = _connect(self._snapshot, self._lineage, self._memory)
        except BaseException:
            self._pins.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._pins.close()

    @property
    def tables(self) -> list[str]:
        """The names a query may read."""
        return sorted(name for name, _ in _views(self._snapshot, self._lineage))

    def query(self, sql: str, params: Sequence[object] = ()) -> "pa.Table":
        """The rows of one reading statement; `?` or `$1` stand for `params`.

        Raises:
            SqlError: it does not parse or run, is more than one statement, or would write; names the tables.
            CorruptFileError: it does not run because a file rotted since it was last hashed.
        """
        import duckdb

        connection = self._connection
        if connection is None:
            raise RuntimeError("the catalogue is closed: use it in a `with` block")
        try:
            if why := refusal(connection, sql, [*MACROS, *(check.macro for check in quality_checks())]):
                raise SqlError(why, self.tables)
            with self._rot_named():
                result = connection.sql(sql, params=list(params))
                if result is None:
                    raise SqlError("the statement gives no rows; only reading statements are run", self.tables)
                return result.to_arrow_table()
        except duckdb.Error as error:
            raise SqlError(str(error).strip().replace("\n", " "), self.tables) from error

    def export(self, path: Path) -> None:
        """Writes a DuckDB file that holds every table and macro; whole or not at all, and read only to its owner.

        A file of that name is replaced.
        """
        import duckdb

        with replacing(path) as partial:
            with duckdb.connect(str(partial), config=_settings(self._memory)) as connection:
                for name, query in _views(self._snapshot, self._lineage):
                    connection.execute(f"CREATE TABLE {sql_identifier(name)} AS {query}")
                for macro in _macros():
                    connection.execute(macro)
            partial.chmod(0o400)
            fsync_file(partial)

    def _prove(self, *, trust_notes: bool) -> None:
        for age, snapshot in enumerate(self._lineage):
            snapshot.verify(_remembered(self._snapshot) if age else None, trust_notes=trust_notes)

    @contextmanager
    def _rot_named(self) -> Iterator[None]:
        """A file that DuckDB cannot read, though the notes say it was whole, is hashed and named."""
        import duckdb

        said_of_the_query = (
            duckdb.ProgrammingError,
            duckdb.DataError,
            duckdb.NotSupportedError,
            duckdb.PermissionException,
        )
        try:
            yield
        except duckdb.Error as error:
            # which class a broken footer gets is up to the Parquet reader: only what the query says is ruled out
            if not isinstance(error, said_of_the_query) or isinstance(error, duckdb.InvalidInputException):
                self._prove(trust_notes=False)
            raise


def _connect(snapshot: Snapshot | None, lineage: Sequence[Snapshot], memory: str) -> "duckdb.DuckDBPyConnection":
    import duckdb

    connection = duckdb.connect(":memory:", config=_settings(memory))
    try:
        for statement in [*statements(snapshot, lineage), _allow(_pinned(snapshot, lineage)), *_LOCKDOWN]:
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def _settings(memory: str) -> dict[str, Any]:
    # a query names tables, never variables of the program that runs it
    return {"memory_limit": memory, "threads": min(4, os.cpu_count() or 1), "python_enable_replacements": False}


def _macros() -> Iterator[str]:
    for name in MACROS:
        yield files("warehouse").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8").strip().rstrip(";")
    for check in quality_checks():
        yield f"CREATE OR REPLACE MACRO {check.macro}() AS TABLE {check.sql}"


def statements(snapshot: Snapshot | None, lineage: Sequence[Snapshot]) -> list[str]:
    """The SQL that makes a snapshot's views and macros, one statement each, in order."""
    views = [f"CREATE OR REPLACE VIEW {sql_identifier(name)} AS {query}" for name, query in _views(snapshot, lineage)]
    return ["SET TimeZone = 'UTC'", *views, *_macros()]


def init_sql(snapshot: Snapshot, lineage: Sequence[Snapshot]) -> str:
    """What `duckdb -init` runs: the same views over the same pinned files, then the same locks."""
    head = f"-- views of snapshot {snapshot.id}; written when it was published: duckdb -init init.sql"
    body = [*statements(snapshot, lineage), _allow(_pinned(snapshot, lineage)), *_LOCKDOWN]
    return "\n".join([head, *(f"{statement};" for statement in body)]) + "\n"


def _views(snapshot: Snapshot | None, lineage: Sequence[Snapshot]) -> Iterator[tuple[str, str]]:
    stored = snapshot.tables if snapshot else {}
    for table in TABLES:
        if not table.family:
            yield table.name, _select(stored.get(table.name, []), sql_columns(table.schema))
            continue
        default = snapshot.default_embeddings if snapshot else None
        for name in sorted(stored):
            if name.startswith(f"{table.name}_"):
                yield name, _select(stored[name], dict(stored[name][-1].columns))
        chosen = stored.get(default or "", [])
        yield table.name, _select(chosen, dict(chosen[-1].columns) if chosen else sql_columns_of(table))
    yield "profile_versions", _versions("profiles", sql_columns(PROFILES.schema), lineage)
    vectors = snapshot.default_embeddings if snapshot else None
    columns = sql_columns_of(EMBEDDINGS) if vectors not in stored else dict(stored[vectors][-1].columns)
    yield "embedding_versions", _versions(vectors, columns, lineage)


def _select(fragments: Sequence[Fragment], columns: dict[str, str], extra: str = "") -> str:
    """Reads explicit files; a column younger than all of them is null, a vector gets its length back."""
    present = {name for fragment in fragments for name in fragment.columns}
    if not fragments:
        nulls = ", ".join(f"NULL::{kind} AS {sql_identifier(name)}" for name, kind in columns.items())
        return f"SELECT {nulls}{extra} WHERE false"
    shown = ", ".join(
        f"{sql_identifier(name)}::{kind} AS {name}" if name in present else f"NULL::{kind} AS {name}"
        for name, kind in columns.items()
    )
    return f"SELECT {shown}{extra} FROM read_parquet([{_file_list(fragments)}], union_by_name = true)"


def _versions(name: str | None, columns: dict[str, str], lineage: Sequence[Snapshot]) -> str:
    # only where the table changed: a snapshot with the files of its parent says nothing new
    parts, seen = [], None
    for snapshot in reversed(lineage):
        fragments = snapshot.tables.get(name or "", [])
        names = [fragment.sha256 for fragment in fragments]
        # vectors of another width are no earlier version of these
        if not fragments or names == seen or not _fit(fragments, columns):
            continue
        seen = names
        when = f"{literal(snapshot.created_at)}::TIMESTAMPTZ"
        extra = f", {snapshot.counter} AS counter, {literal(snapshot.id)} AS in_snapshot, {when} AS created_at"
        parts.append(_select(fragments, columns, extra))
    if not parts:
        return _select([], {**columns, "counter": "BIGINT", "in_snapshot": "VARCHAR", "created_at": "TIMESTAMPTZ"})
    return " UNION ALL ".join(parts)


def _fit(fragments: Sequence[Fragment], columns: dict[str, str]) -> bool:
    return all(fragment.columns.get("embedding") == columns.get("embedding") for fragment in fragments)


def _remembered(snapshot: Snapshot | None) -> list[str]:
    """The tables whose earlier versions a query may read."""
    vectors = snapshot.default_embeddings if snapshot else None
    return ["profiles", *([vectors] if vectors else [])]


def _pinned(snapshot: Snapshot | None, lineage: Sequence[Snapshot]) -> list[Fragment]:
    own = [fragment for fragments in (snapshot.tables if snapshot else {}).values() for fragment in fragments]
    past = [fragment for older in lineage for name in _remembered(snapshot) for fragment in older.tables.get(name, [])]
    return list({fragment.path: fragment for fragment in (*own, *past)}.values())


def _allow(fragments: Sequence[Fragment]) -> str:
    # both spellings: what a view asks for, and the file it finds
    names = dict.fromkeys(name for fragment in fragments for name in (str(fragment.path), exact_path(fragment.path)))
    return f"SET allowed_paths = [{', '.join(literal(name) for name in names)}]"


def _file_list(fragments: Sequence[Fragment]) -> str:
    return ", ".join(literal(exact_path(fragment.path)) for fragment in fragments)
