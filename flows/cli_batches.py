"""Commands about batches at a paid server: list, cancel. Neither takes the lock, so both work while a run waits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_options import Options, command
from flows.cli_output import emit_json, emit_table, last_word

if TYPE_CHECKING:
    from providers import OpenAIBatchConfig
    from warehouse import Batch

_OPEN_STATES = ("creating", "submitted")
_COLUMNS = ("batch_id", "shard", "state", "status", "requests", "completed", "failed", "model", "created_at")


def register(app: typer.Typer) -> None:
    """Adds batches list and batches cancel."""
    batches = typer.Typer(help="Batches at the server of the engine openai-batch.", no_args_is_help=True)
    app.add_typer(batches, name="batches")

    @command(batches, "list")
    def list_(
        options: Options,
        live: Annotated[bool, typer.Option("--live", help="Ask the server now; else what a run saw last.")] = False,
    ) -> int:
        """Every batch of this warehouse: its state here, the server's word, how many of its requests are done."""
        return show_batches(options, live)

    @command(batches, "cancel")
    def cancel(
        options: Options,
        ids: Annotated[list[str] | None, typer.Argument(help="Batch ids, or starts of shard names.")] = None,
        all_: Annotated[bool, typer.Option("--all", help="Every batch that is still at the server.")] = False,
    ) -> int:
        """Asks the server to end batches; what they answered is charged, and the next run collects it."""
        return cancel_batches(options, ids or [], all_)


def show_batches(options: Options, live: bool) -> int:
    """The batches as JSON or as a table."""
    rows = _rows(options)
    documents = [_document(row) for row in rows]
    if live:
        with _config(options).server() as server:
            for document, row in zip(documents, rows, strict=True):
                if row.state in _OPEN_STATES and row.batch_id:
                    document |= _seen(server, row.batch_id)
    n_open = sum(row.state in _OPEN_STATES for row in rows)
    n_requests = sum(row.n_requests for row in rows if row.state in _OPEN_STATES)
    if options.json:
        emit_json({"batches": documents, "open": n_open, "open_requests": n_requests})
    else:
        emit_table("batches", _COLUMNS, [[_shown(name, document[name]) for name in _COLUMNS] for document in documents])
    last_word(
        f"{len(rows):,} batches, {n_open:,} of them open with {n_requests:,} requests",
        ["profile", *options.flags()] if n_open else None,
    )
    return 0


def cancel_batches(options: Options, ids: Sequence[str], every: bool) -> int:
    """Cancels at the server; the ledger learns of it when the next run collects."""
    from flows.errors import SettingSyntaxError

    if bool(ids) == every:
        raise SettingSyntaxError("semalign batches cancel", "batch ids or --all, one of them")
    open_rows = [row for row in _rows(options) if row.state in _OPEN_STATES]
    chosen = open_rows if every else _chosen(open_rows, ids)
    cancelled = []
    if chosen:
        with _config(options).server() as server:
            for row in chosen:
                batch_id = row.batch_id
                if batch_id is None:  # a run died while it was created: it may be there all the same
                    found = server.find(row.shard_hash, row.file_id, row.announced_at_s or row.created_at_s)
                    batch_id = found.batch_id if found else None
                if batch_id is not None:
                    cancelled.append({"batch_id": batch_id, "status": server.cancel(batch_id).status})
    if options.json:
        emit_json({"cancelled": cancelled})
    else:
        emit_table("cancelled", ("batch_id", "status"), [list(row.values()) for row in cancelled])
    words = f"{len(cancelled):,} batches were asked to end; what they answered is charged and collected by the next run"
    last_word(words if cancelled else "no open batch to cancel", ["profile", *options.flags()] if cancelled else None)
    return 0


def _rows(options: Options) -> list[Batch]:
    from warehouse import Warehouse

    warehouse = Warehouse(options.settings().warehouse.root)
    if not (warehouse.root / "ledger.sqlite").exists():
        return []
    with warehouse.ledger(read_only=True) as ledger:
        return ledger.batches.rows()


def _config(options: Options) -> OpenAIBatchConfig:
    from flows.errors import SettingValueError
    from providers import OpenAIBatchConfig, parse_engine

    engine = parse_engine(options.settings().profiles.engine)
    if not isinstance(engine, OpenAIBatchConfig):
        raise SettingValueError("profiles.engine.name", engine.name, 'only the engine "openai-batch" has a Batch API')
    return engine


def _chosen(rows: Sequence[Batch], ids: Sequence[str]) -> list[Batch]:
    from flows.errors import UnknownBatchError

    chosen = {}
    for name in ids:
        matches = [row for row in rows if row.batch_id == name or (len(name) >= 6 and row.shard_hash.startswith(name))]
        if not matches:
            raise UnknownBatchError(name, tuple(row.batch_id or row.shard_hash[:12] for row in rows))
        chosen |= {row.shard_hash: row for row in matches}
    return list(chosen.values())


def _document(row: Batch) -> dict[str, Any]:
    return {
        "batch_id": row.batch_id,
        "shard": row.shard_hash,
        "state": row.state,
        "status": row.status,
        "requests": row.n_requests,
        "completed": row.completed,
        "failed": row.failed,
        "model": row.model,
        "server": row.server,
        "created_at": datetime.fromtimestamp(row.created_at_s, UTC).isoformat(timespec="seconds"),
    }


def _seen(server: Any, batch_id: str) -> dict[str, Any]:
    try:
        found = server.retrieve(batch_id)
    except LookupError:
        return {"status": "unknown to the server"}
    return {"status": found.status, "completed": found.completed, "failed": found.failed}


def _shown(name: str, value: object) -> object:
    return str(value)[:12] if name == "shard" else value
