"""Commands that carry things in and out by id: import and export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli_inspect import published
from flows.cli_options import Options, command
from flows.cli_output import emit_json, last_word
from flows.errors import SettingSyntaxError
from flows.query_output import deliver, writable_file
from flows.transfer_errors import NoVectorsError
from flows.vector_sources import ROWS

if TYPE_CHECKING:
    import pyarrow as pa

    from warehouse import Snapshot

KINDS = ("item", "user")
_FORMS = (".parquet", ".npy", ".csv", ".json", ".jsonl")


def register(app: typer.Typer) -> None:
    """Adds import and export."""

    @command(app, "import")
    def import_(
        options: Options,
        file: Annotated[Path, typer.Argument(help=".npy with --ids, .parquet, or a .pkl of an array.")],
        kind: Annotated[str, typer.Option("--kind", help="item or user: whose vectors they are.")],
        name: Annotated[str | None, typer.Option("--as", help="They become the table embeddings_NAME.")] = None,
        ids: Annotated[
            Path | None, typer.Option("--ids", help="The id of each row: .txt, .json, .csv, .npy; or rows.")
        ] = None,
        id_column: Annotated[str | None, typer.Option("--id-column", help="Of a Parquet file.")] = None,
        vector_column: Annotated[str | None, typer.Option("--vector-column", help="Of a Parquet file.")] = None,
        max_unknown: Annotated[
            float, typer.Option("--max-unknown", min=0, max=1, help="Share of ids that may be unknown here.")
        ] = 0.01,
        to: Annotated[Path | None, typer.Option("--to", help="Only convert a .pkl, into this .parquet.")] = None,
        force: Annotated[bool, typer.Option("--force", help="Replace the file of --to.")] = False,
    ) -> int:
        """Vectors that were made elsewhere, joined by id; or a pickle of vectors or profiles as Parquet."""
        if kind not in KINDS:
            raise SettingSyntaxError(f"--kind {kind}", "item or user")
        if (name is None) == (to is None):
            raise SettingSyntaxError("semalign import", "--as NAME, or --to FILE.parquet, one of them")
        whose = "rows" if str(ids) == ROWS else ids
        if to is not None:
            return convert(options, file, whose, kind, writable_file(to, force))
        assert name is not None
        return take_in(options, file, whose, name, kind, (id_column, vector_column), max_unknown)

    @command(app, "export")
    def export(
        options: Options,
        table: Annotated[str, typer.Argument(help="A table, such as embeddings, profiles, recommendations.")],
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="A .parquet, .npy, .csv, .json or .jsonl file.")
        ] = None,
        kind: Annotated[str | None, typer.Option("--kind", help="Only rows of an item, or of a user.")] = None,
        force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
        database: Annotated[
            str | None, typer.Option("--database", help="Environment variable with a SQLAlchemy URL to write to.")
        ] = None,
        name: Annotated[str | None, typer.Option("--as", help="The database's table; the table's own name.")] = None,
    ) -> int:
        """A published table as a file, or as a table of a database; .npy for vectors, with their ids beside it."""
        if kind not in (None, *KINDS):
            raise SettingSyntaxError(f"--kind {kind}", "item or user")
        if (output is None) == (database is None):
            raise SettingSyntaxError("semalign export", "--output FILE, or --database VARIABLE, one of them")
        if output is not None:
            return write_table(options, table, kind, writable_file(output, force))
        assert database is not None
        return write_to_database(options, table, kind, database, name or table)


def take_in(
    options: Options,
    file: Path,
    ids: Path | Literal["rows"] | None,
    name: str,
    kind: str,
    columns: tuple[str | None, str | None],
    max_unknown: float,
) -> int:
    """Imports the vectors of a file and publishes them."""
    from flows.progress import open_progress
    from flows.steps.import_vectors import import_vectors
    from flows.workspace import opened
    from warehouse import read_vectors

    # the lock and the records of runs name commands: files outside are none of their business
    named = read_vectors(file, ids, id_column=columns[0], vector_column=columns[1])
    settings = options.settings()
    with opened(settings, "import", open_progress()) as workspace:
        taken = import_vectors(workspace, named, name, kind, settings, file.name, max_unknown)
    if options.json:
        emit_json(asdict(taken))
    change = "" if taken.changed else " (nothing changed)"
    last_word(
        f"{taken.rows:,} {kind} vectors of {taken.dim:,} numbers are in {taken.table} of snapshot {taken.snapshot}"
        f"{change}; {taken.unknown:,} of unknown ids were left out, {taken.missing:,} {kind}s have none, "
        f"{taken.scaled:,} were brought to length one",
        ["sql", f"FROM {taken.table} LIMIT 5", *options.flags()],
    )
    return 0


def convert(options: Options, file: Path, ids: Path | Literal["rows"] | None, kind: str, to: Path) -> int:
    """A pickle of profiles or vectors as Parquet; nothing of it is run, and the warehouse is not touched."""
    from warehouse import arrow_table, pickled_profiles, read_vectors, replacing, write_parquet

    if to.suffix != ".parquet":
        raise SettingSyntaxError(f"--to {to}", "a .parquet file")
    profiles = pickled_profiles(file) if file.suffix.lower() in (".pkl", ".pickle") and file.is_file() else None
    if profiles is None:
        named = read_vectors(file, ids)
        rows = arrow_table(None, {f"{kind}_id": named.ids, "embedding": named.values})
    else:
        rows = profiles.rename_columns([f"{kind}_id", *profiles.column_names[1:]])
    with replacing(to) as partial:
        write_parquet(partial, rows)
    if options.json:
        emit_json({"file": str(to), "rows": rows.num_rows, "columns": rows.column_names})
    last_word(f"{rows.num_rows:,} rows with {', '.join(rows.column_names)} are in {to}")
    return 0


def write_table(options: Options, table: str, kind: str | None, output: Path) -> int:
    """Writes a published table, or the rows of one kind, and remembers where."""
    form = output.suffix.lower()
    if form not in _FORMS:
        raise SettingSyntaxError(f"--output {output}", f"a file that ends in {', '.join(_FORMS)}")
    warehouse, snapshot = published(options)
    if output.resolve().is_relative_to(warehouse.root):
        raise SettingSyntaxError(f"--output {output}", "a file outside the warehouse")
    with warehouse.reading(snapshot):
        rows, vector = _rows(snapshot, table, kind, form)
        written = [output]
        # noted before it is written: whoever is to be forgotten finds half an export too
        warehouse.note_export(output)
        if form == ".npy":
            written.append(_write_vectors(rows, vector, output))
            warehouse.note_export(written[1])
        else:
            deliver(rows, form.lstrip("."), output, snapshot.id)
    if options.json:
        document = {"snapshot": snapshot.id, "table": table, "rows": rows.num_rows, "files": list(map(str, written))}
        emit_json(document)
    last_word(f"{rows.num_rows:,} rows of {table} in snapshot {snapshot.id} are in {' and '.join(map(str, written))}")
    return 0


def write_to_database(options: Options, table: str, kind: str | None, url_env: str, name: str) -> int:
    """Writes a published table into a database, in one transaction, and remembers where."""
    from warehouse import Database, sql_identifier

    warehouse, snapshot = published(options)
    database = Database(url_env)
    with warehouse.reading(snapshot):
        rows, _ = _rows(snapshot, table, kind, "a database")
        place = f"{database.place} table {sql_identifier(name)}"
        warehouse.note_export(place)
        try:
            database.replace(name, rows)
        finally:
            database.close()
    if options.json:
        emit_json({"snapshot": snapshot.id, "table": table, "rows": rows.num_rows, "database": place})
    last_word(f"{rows.num_rows:,} rows of {table} in snapshot {snapshot.id} are in {place}")
    return 0


def _rows(snapshot: Snapshot, table: str, kind: str | None, form: str) -> tuple[pa.Table, str | None]:
    """The rows asked for, each file hashed, and the name of their column of vectors if they have one."""
    columns = snapshot.columns(table)
    vector = next((name for name, sql in columns.items() if sql.startswith("FLOAT[")), None)
    if form == ".npy" and (vector is None or kind is None):
        problem = "it has no vectors" if vector is None else "its items and users are told apart by --kind alone"
        raise NoVectorsError(
            table, form, problem, ".parquet, .csv or .json" if vector is None else "--kind item or user"
        )
    if form in (".csv", "a database") and vector is not None:
        raise NoVectorsError(table, form, "its vectors have no place in a cell", ".parquet or .npy")
    if kind is not None and "kind" not in columns:
        raise NoVectorsError(table, f"--kind {kind}", "its rows are of one kind", "the command without --kind")
    return snapshot.doubting().read(table, filter_equal={"kind": kind} if kind else None), vector


def _write_vectors(rows: pa.Table, vector: str | None, output: Path) -> Path:
    from flows.steps.rows import strings, vectors
    from warehouse import write_vectors

    return write_vectors(output, strings(rows, "entity_id"), vectors(rows, vector or "embedding"))
