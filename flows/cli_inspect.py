"""Commands that only look: status, sql, similar. None of them takes the lock or loads a model it does not need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_options import Options, command
from flows.cli_output import emit_json, emit_table, last_word, say
from flows.cli_pipeline import show_differences, show_metrics
from flows.errors import SettingSyntaxError
from flows.query_output import chosen_format, deliver, writable_file

if TYPE_CHECKING:
    from warehouse import Snapshot, Warehouse


def register(app: typer.Typer) -> None:
    """Adds status, sql and similar."""

    @command(app, "status")
    def status(
        options: Options,
        watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
        every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks of --watch.")] = 2.0,
    ) -> int:
        """What is published, how good it is, what it cost, who runs."""
        if watch:
            from flows.watch import watch as keep_watching

            return keep_watching(options, every)
        return show_status(options)

    @command(app, "sql")
    def sql(
        options: Options,
        query: Annotated[
            str | None, typer.Argument(help='One reading statement, e.g. "SELECT * FROM items LIMIT 5".')
        ] = None,
        limit: Annotated[int, typer.Option("--limit", min=1, help="Rows of a table; other formats hold all.")] = 100,
        format_name: Annotated[str | None, typer.Option("--format", help="table, csv, json or parquet.")] = None,
        output: Annotated[Path | None, typer.Option("--output", "-o", help="A file for the rows.")] = None,
        export: Annotated[Path | None, typer.Option("--export", help="Everything as one DuckDB file.")] = None,
        force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    ) -> int:
        """SQL over the published snapshot (DuckDB, read only)."""
        if (query is None) == (export is None):
            raise SettingSyntaxError("semalign sql", "a query, or --export FILE.duckdb, one of them")
        if export is not None:
            return export_database(options, writable_file(export, force))
        assert query is not None
        chosen = chosen_format(format_name, output, options.json)
        return run_sql(options, query, limit, chosen, writable_file(output, force) if output else None)

    @command(app, "similar")
    def similar(
        options: Options,
        item: Annotated[str | None, typer.Argument(help="An item id.")] = None,
        text: Annotated[str | None, typer.Option("--text", help="Words to look for instead of an item.")] = None,
        k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    ) -> int:
        """The items nearest to an item, or to a text, in the language space."""
        return show_similar(options, item, text, k)


def published(options: Options) -> tuple[Warehouse, Snapshot]:
    """The warehouse and what is published in it.

    Raises:
        NothingPublishedError: nothing is.
    """
    from flows.errors import NothingPublishedError
    from warehouse import Warehouse

    warehouse = Warehouse(options.settings().warehouse.root)
    snapshot = warehouse.current()
    if snapshot is None:
        raise NothingPublishedError(str(warehouse.root))
    return warehouse, snapshot


def show_status(options: Options) -> int:
    """The published snapshot in a page."""
    warehouse, snapshot = published(options)
    document = status_document(warehouse, snapshot)
    if options.json:
        emit_json(document)
    else:
        say(
            f"snapshot {snapshot.id} of {snapshot.created_at}, settings {document['settings_hash'][:12]}, "
            f"in {warehouse.root}"
        )
        emit_table("stages", ("stage", "what"), list(document["stages"].items()))
        emit_table("tables", ("table", "rows"), list(document["tables"].items()))
        if document["metrics"]:
            words = f"test metrics ({document['protocol']}, {document['split']}, profiles: {document['source']})"
            show_metrics(document["metrics"], words)
            show_differences(document["differences"])
    calls = document["calls"]
    cost = f"{calls['usd']:.4f} USD" + (
        f" and {calls['unpriced']:,} without a known price" if calls["unpriced"] else ""
    )
    held = f"; `{document['running']['command']}` is running" if document["running"] else ""
    uncertain = f", {uncertain_words(calls)}" if calls["uncertain"] else ""
    last_word(
        f"snapshot {snapshot.id} is published, {document['quarantined']:,} rows in quarantine, "
        f"{calls['calls']:,} calls so far ({cost}){uncertain}{held}",
        ["report", *options.flags()],
    )
    return 0


def status_document(warehouse: Warehouse, snapshot: Snapshot) -> dict[str, Any]:
    """Everything `status` knows."""
    from flows.run_summary import comparison_of
    from flows.steps.report import report_path
    from flows.workspace import STAGES, describe

    stages = {name: describe(snapshot.stages[name]["summary"]) for name in STAGES if name in snapshot.stages}
    path = report_path(warehouse, snapshot.id)
    return {
        "snapshot": snapshot.id,
        "created_at": snapshot.created_at,
        "root": str(warehouse.root),
        "settings_hash": snapshot.manifest["settings_hash"],
        "code_version": snapshot.manifest["code_version"],
        "stages": stages,
        "tables": {name: snapshot.rows(name) for name in sorted(snapshot.tables)},
        "metrics": {},
        "differences": [],
        **comparison_of(snapshot.stages),
        "calls": calls_so_far(warehouse),
        "quarantined": snapshot.rows("quarantine"),
        "running": warehouse.holder(),
        "report": str(path) if path.is_file() else None,
    }


def calls_so_far(warehouse: Warehouse) -> dict[str, Any]:
    """What was asked of language models in this warehouse, and what nobody knows the outcome of."""
    from dataclasses import asdict

    if not (warehouse.root / "ledger.sqlite").exists():
        nothing = {"calls": 0, "tokens_in": 0, "tokens_out": 0, "usd": 0.0, "unpriced": 0}
        return {**nothing, "uncertain": 0, "uncertain_usd": 0.0, "uncertain_unpriced": 0}
    with warehouse.ledger(read_only=True) as ledger:
        worst = ledger.uncertain_cost()
        doubt = {"uncertain": worst.attempts, "uncertain_usd": worst.usd, "uncertain_unpriced": worst.unpriced}
        return {**asdict(ledger.spent()), **doubt}


def uncertain_words(calls: Mapping[str, Any]) -> str:
    """How many calls may have been paid without a reply, and the most that they can have cost."""
    unpriced = f" and {calls['uncertain_unpriced']:,} without a known price" if calls["uncertain_unpriced"] else ""
    return f"{calls['uncertain']:,} uncertain attempts (at most {calls['uncertain_usd']:.4f} USD{unpriced})"


def run_sql(options: Options, query: str, limit: int, format_name: str, output: Path | None) -> int:
    """The rows of a query, on the screen or in a file."""
    warehouse, snapshot = published(options)
    with warehouse.catalogue(snapshot) as catalogue:
        rows = catalogue.query(query)
    more = f", in {output}" if output else ""
    if format_name != "table":
        deliver(rows, format_name, output, snapshot.id)
        if output is not None:
            warehouse.note_export(output)
    else:
        shown = [list(row.values()) for row in rows.slice(0, limit).to_pylist()]
        emit_table("", rows.column_names, [[_short(value) for value in row] for row in shown])
        more = f", {limit:,} shown" if rows.num_rows > limit else ""
    last_word(f"{rows.num_rows:,} rows of snapshot {snapshot.id}{more}")
    return 0


def export_database(options: Options, path: Path) -> int:
    """The published snapshot as a file that DuckDB opens without this program."""
    warehouse, snapshot = published(options)
    with warehouse.catalogue(snapshot) as catalogue:
        catalogue.export(path)
    warehouse.note_export(path)
    size = path.stat().st_size
    if options.json:
        emit_json({"snapshot": snapshot.id, "path": str(path), "bytes": size})
    last_word(f"snapshot {snapshot.id} is in {path}, {size / 1e6:,.1f} MB; open it with: duckdb -readonly {path}")
    return 0


def _short(value: object, most: int = 300) -> object:
    if isinstance(value, list) and len(value) > 12:
        return f"[{', '.join(map(str, value[:4]))}, … {len(value)} values]"
    return value[:most] + "…" if isinstance(value, str) and len(value) > most else value


def show_similar(options: Options, item: str | None, text: str | None, k: int) -> int:
    """Neighbours with their titles, nearest first."""
    from flows.errors import UnknownIdError

    if (item is None) == (text is None):
        given = "semalign similar" if item is None else f"semalign similar {item} --text {text}"
        raise SettingSyntaxError(given, "an item id or --text WORDS, one of them")
    warehouse, snapshot = published(options)
    if text is not None:
        rows = similar_to_text(options, snapshot, text, k)
    else:
        with warehouse.catalogue(snapshot) as catalogue:
            rows = catalogue.query("SELECT * FROM similar_items(?, ?)", [item, k]).to_pylist()
        if not rows:
            raise UnknownIdError("item", str(item), f"snapshot {snapshot.id}")
    if options.json:
        emit_json({"snapshot": snapshot.id, "item": item, "text": text, "similar": rows})
    else:
        emit_table(
            f"nearest to {item or text!r}",
            list(rows[0]) if rows else ("item_id",),
            [list(row.values()) for row in rows],
        )
    last_word(f"{len(rows)} items nearest to {item or text!r} in snapshot {snapshot.id}")
    return 0


def similar_to_text(options: Options, snapshot: Snapshot, text: str, k: int) -> list[dict[str, Any]]:
    """The items nearest to a text, embedded now by the snapshot's encoder."""
    import numpy as np

    from flows.embedding_sets import default_set
    from flows.errors import SettingValueError
    from flows.steps.encoders import text_vector
    from flows.steps.rows import strings, vectors
    from flows.vector_sources import VECTORS
    from providers import parse_encoder
    from warehouse import Warehouse

    default = default_set(options.settings())
    if default.from_files:
        problem = "vectors from files come without an encoder, and a text needs one; name an item instead"
        raise SettingValueError("embeddings.name", VECTORS, problem)
    settings = default.encoder
    encoder = parse_encoder(settings)
    made_by = snapshot.stages.get("embed", {}).get("summary", {})
    if encoder.identity() != made_by.get("encoder_key"):
        problem = (
            f"the published vectors were made by {made_by.get('encoder', 'no encoder')}; a text needs the same one"
        )
        raise SettingValueError("embeddings", settings.get("model"), problem)
    rows = snapshot.read(
        f"embeddings_{made_by['short_name']}", columns=["entity_id", "embedding"], filter_equal={"kind": "item"}
    )
    titles = snapshot.read("items", columns=["item_id", "title"])
    named = dict(zip(strings(titles, "item_id"), titles.column("title").to_pylist(), strict=True))
    matrix = vectors(rows)
    closeness = matrix @ text_vector(Warehouse(options.settings().warehouse.root), encoder, text, matrix.shape[1])
    ids = strings(rows, "entity_id")
    nearest = np.argsort(-closeness, kind="stable")[:k]
    return [
        {"item_id": ids[place], "title": named.get(ids[place]), "similarity": float(closeness[place])}
        for place in nearest
    ]
