"""Commands about which model serves: promote, rollback, and the history that `models --history` shows."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli_options import Options, command
from flows.cli_output import emit_json, emit_table, last_word


def register(app: typer.Typer) -> None:
    """Adds promote and rollback."""

    @command(app, "promote")
    def promote(
        options: Options,
        to: Annotated[str, typer.Option("--to", help="A model or a snapshot, by its id or how that begins.")],
    ) -> int:
        """Lets another model serve, with the lists, item map and vectors that belong to it; the gate is not asked."""
        return switch(options, to)

    @command(app, "rollback")
    def rollback(options: Options) -> int:
        """Lets the model serve that served before, as it was; the one taken out does not come back by itself."""
        return switch(options, None)


def switch(options: Options, to: str | None) -> int:
    """Publishes the version of a named model, or of the one before."""
    from flows.progress import SilentProgress
    from flows.steps.switch import promote_to, roll_back
    from flows.workspace import opened

    settings = options.settings()
    words = ["promote", "--to", to] if to is not None else ["rollback"]
    with opened(settings, " ".join(words), SilentProgress()) as workspace:
        if to is not None:
            snapshot_id = promote_to(workspace, to, settings)
        else:
            snapshot_id = roll_back(workspace, settings)
        said = workspace.warehouse.snapshot(snapshot_id).stages["promote"]["summary"]
        changed = snapshot_id != workspace.published_before
    if options.json:
        emit_json({"snapshot": snapshot_id, "changed": changed, **said})
    before = f", {said['champion']} no longer" if changed and said["champion"] else ""
    served = "serves now" if changed else "serves already"
    last_word(
        f"{said['model']} ({said['model_id']}) {served}{before}: snapshot {snapshot_id}",
        ["models", "--history", *options.flags()],
    )
    return 0


def show_history(options: Options) -> int:
    """Every decision about which model serves, oldest first."""
    from flows.cli_inspect import published
    from flows.steps.champions import champion_of, decisions

    _, snapshot = published(options)
    rows, champion = decisions(snapshot), champion_of(snapshot)
    if options.json:
        serving = {"model": champion.label, "model_ids": champion.model_ids} if champion else None
        emit_json({"snapshot": snapshot.id, "champion": serving, "decisions": rows})
    else:
        emit_table(
            "which model served",
            ("", "decided at", "verdict", "model", "id", "champion until then", "gain", "why not"),
            [_cells(row) for row in rows],
        )
    serving = f"{champion.label} ({champion.model_id}) serves" if champion else "no model was promoted"
    last_word(f"{len(rows)} decisions, {serving} in snapshot {snapshot.id}", ["rollback", *options.flags()])
    return 0


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    gain = None
    if row["difference"] is not None:
        gain = f"{row['metric']} {row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
    when = row["decided_at"].strftime("%Y-%m-%d %H:%M")
    named = (row["n"], when, row["verdict"], row["model"], row["model_ids"][0], row["champion"])
    return (*named, gain, "; ".join(row["reasons"]) or None)
