"""What goes on in a warehouse, again and again: who runs, how far it is, what it asked and paid."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flows.cli_inspect import calls_so_far, uncertain_words
from flows.cli_options import Options
from flows.cli_output import cell, last_word, say
from flows.errors import InterruptedRunError
from flows.progress import duration
from flows.workspace import STAGES

if TYPE_CHECKING:
    from rich.console import Group

    from warehouse import Warehouse


def watch(options: Options, every_s: float) -> int:
    """Looks every so many seconds until it is interrupted: a page that redraws itself on a terminal, lines elsewhere.

    Being stopped is how watching ends, so it ends well. Nothing is taken, no lock either.
    """
    from warehouse import Warehouse

    root = options.settings().warehouse.root
    seen: dict[str, Any] = {}
    try:
        if options.json or not sys.stdout.isatty():
            write = _write_json if options.json else _write_line
            while True:
                seen = standing(Warehouse(root))
                write(seen)
                time.sleep(every_s)
        _redraw(lambda: standing(Warehouse(root)), every_s, seen)
    except (InterruptedRunError, KeyboardInterrupt):
        last_word(line_of(seen) if seen else "nothing was looked at", ["status", *options.flags()])
    return 0


def standing(warehouse: Warehouse) -> dict[str, Any]:
    """What can be told from outside while a run works; `stage` is the last one that the newest version has behind it.

    Before a first version everything is None or 0.
    """
    newest = next(iter(warehouse.snapshots()), None)
    current = warehouse.current()
    stages = [name for name in STAGES if newest and name in newest.stages]
    models = warehouse.root / "models"
    folders = [path.name for path in models.iterdir()] if models.is_dir() else []
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "running": warehouse.holder(),
        "published": current.id if current else None,
        "newest": newest.id if newest else None,
        "stage": stages[-1] if stages else None,
        "quarantined": newest.rows("quarantine") if newest else 0,
        "models": sum(not name.endswith(".partial") for name in folders),
        "training": sorted(name.removesuffix(".partial") for name in folders if name.endswith(".partial")),
        "calls": calls_so_far(warehouse),
    }


def line_of(seen: Mapping[str, Any]) -> str:
    """A look at a warehouse in one line."""
    told = dict(rows_of(seen))
    return "; ".join(f"{name} {words}" for name, words in told.items() if words)


def rows_of(seen: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, in words) of a look at a warehouse."""
    running, calls = seen["running"], seen["calls"]
    who = "nobody"
    if running is not None:
        command, since = running.get("command", "a run that has not said its name"), running.get("since")
        ran = f" for {duration(_seconds_since(str(since), seen['at']))}" if since else ""
        who = f"`{command}`{ran} (process {running.get('pid', 'unknown')})"
    usd = f"{calls['usd']:.4f} USD" + (f" and {calls['unpriced']:,} without a price" if calls["unpriced"] else "")
    uncertain = f", {uncertain_words(calls)}" if calls["uncertain"] else ""
    training = f", {', '.join(seen['training'])} in training" if seen["training"] else ""
    behind = f"{seen['stage']} is done in {seen['newest']}" if seen["newest"] else "nothing is there yet"
    return [
        ("runs", who),
        ("stage", behind),
        ("published", seen["published"] or "nothing"),
        ("asked", f"{calls['calls']:,} calls, {calls['tokens_in'] + calls['tokens_out']:,} tokens, {usd}{uncertain}"),
        ("models", f"{seen['models']:,} trained{training}"),
        ("aside", f"{seen['quarantined']:,} rows in quarantine"),
    ]


def _seconds_since(since: str, now: str) -> float:
    """0 where a clock was set back."""
    return max((datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds(), 0.0)


def _write_json(seen: Mapping[str, Any]) -> None:
    print(json.dumps(seen, ensure_ascii=False, default=str), flush=True)


def _write_line(seen: Mapping[str, Any]) -> None:
    say(f"{seen['at']} {line_of(seen)}")
    sys.stdout.flush()


def _redraw(look: Callable[[], dict[str, Any]], every_s: float, seen: dict[str, Any]) -> None:
    """Draws the page in place; what was seen last is left in `seen`."""
    from rich.live import Live

    with Live(auto_refresh=False, transient=True) as live:
        while True:
            seen.update(look())
            live.update(_page(seen, every_s), refresh=True)
            time.sleep(every_s)


def _page(seen: Mapping[str, Any], every_s: float) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, words in rows_of(seen):
        table.add_row(Text(name, style="bold"), Text(cell(words)))
    return Group(
        table, Text(f"{seen['at']}, every {duration(every_s)}; Ctrl-C ends this and nothing else", style="dim")
    )
