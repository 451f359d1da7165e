"""Commands that take things away: forget-user and gc."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_options import Options, command
from flows.cli_output import emit_json, emit_table, last_word

if TYPE_CHECKING:
    from warehouse import Warehouse


def register(app: typer.Typer) -> None:
    """Adds forget-user and gc."""

    @command(app, "forget-user")
    def forget_user(
        options: Options,
        user: Annotated[str, typer.Argument(help="The user's id, as in the source.")],
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    ) -> int:
        """Takes a user out of every file here: rows, replies, older versions, models that knew them. For good."""
        return forget(options, user, yes)

    @command(app, "gc")
    def gc(
        options: Options,
        keep: Annotated[int, typer.Option("--keep", min=1, help="Versions that stay, the newest.")] = 5,
        days: Annotated[float, typer.Option("--days", min=0, help="Younger ones stay too.")] = 1.0,
    ) -> int:
        """Removes versions nobody needs: not published, not a rollback's, not among the newest, old, read by nobody."""
        return collect(options, keep, days)


def forget(options: Options, user: str, yes: bool) -> int:
    """Forgets one user, after asking on a terminal."""
    from warehouse import forget_user

    if not yes:
        typer.confirm(
            f"Take user {user} out of {options.settings().warehouse.root}? Older versions, copies of the ledger, "
            "reports and the models trained on the user go with it, and nothing brings them back",
            abort=True,
            err=True,
        )
    # the lock and the records of runs name commands: this one is named without the user
    with _writing(options, "forget-user") as warehouse:
        removal = forget_user(warehouse, user)
    document = asdict(removal)
    if options.json:
        emit_json(document)
    else:
        emit_table("rows taken out", ("table", "rows"), list(removal.rows.items()))
        if removal.elsewhere:
            emit_table(
                "exports that may name the user; they were not touched", ("file",), [[f] for f in removal.elsewhere]
            )
    told = f"{len(removal.items):,} item and {len(removal.users):,} user profiles"
    again = f"; {told} were built from their words and are asked for again" if removal.items else ""
    last_word(
        f"{sum(removal.rows.values()):,} rows, {removal.replies:,} stored replies, {removal.snapshots:,} versions and "
        f"{len(removal.models):,} models are gone{again}; {len(removal.elsewhere)} exports outside were left. Make the "
        "tables whole again:",
        ["run", *options.flags()],
    )
    return 0


def collect(options: Options, keep: int, days: float) -> int:
    """Collects what no kept version names."""
    from flows.steps.champions import needed_for_rollback

    with _writing(options, "gc") as warehouse:
        summary = warehouse.gc(keep=keep, min_age_s=days * 86_400, needed=needed_for_rollback(warehouse))
    if options.json:
        emit_json(asdict(summary))
    freed = f"{summary.freed_bytes / 1e6:,.1f} MB are free again"
    warning = ""
    if summary.rotten:
        named = ", ".join(summary.rotten[:3]) + (", …" if len(summary.rotten) > 3 else "")
        warning = (
            f"; warning: {len(summary.rotten):,} semantic matrices had an unreadable sidecar and went too ({named}): "
            "they are built again from the tables when they are needed, but look at the disk"
        )
    last_word(
        f"{summary.snapshots:,} versions and {summary.fragments:,} files removed, {freed}{warning}",
        ["status", *options.flags()],
    )
    return 0


@contextmanager
def _writing(options: Options, name: str) -> Iterator[Warehouse]:
    from warehouse import Warehouse

    warehouse = Warehouse(options.settings().warehouse.root)
    with warehouse.lock(name):
        yield warehouse
