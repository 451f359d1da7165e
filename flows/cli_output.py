"""How commands speak: JSON or tables on standard output, the last word on standard error."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from flows.caution import clean, masked, without_userinfo

PLAIN_WIDTH = 160
SHORT = 24
FOLDED = 24


def emit_json(document: object) -> None:
    """One JSON document on standard output."""
    json.dump(document, sys.stdout, ensure_ascii=False, indent=2, default=str)
    sys.stdout.write("\n")


def emit_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str | None = None
) -> None:
    """A table on standard output; numbers to the right, only long texts are folded."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = [clean(name) for name in columns]
    heading = Text(clean(title), style="bold") if title else None
    caption = clean(caption) if caption else None
    table = Table(title=heading, caption=caption, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    needed = 2
    for place, name in enumerate(columns):
        longest = max(map(len, [name, *(cell(row[place]) for row in rows)]))
        numeric = bool(rows) and all(_is_number(row[place]) or row[place] is None for row in rows)
        whole = longest <= SHORT or place == 0
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=whole)
        needed += 2 + (longest if whole else FOLDED)
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    plain = Console(file=sys.stdout)
    width = plain.width if sys.stdout.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    # rather wider than the terminal than with a digit cut off
    Console(file=sys.stdout, width=max(width, needed)).print(table)


def say(text: str) -> None:
    """One line on standard output."""
    print(clean(text))


def last_word(text: str, go_on: Sequence[str] | None = None) -> None:
    """The last line on standard error: what happened, and the exact command to go on."""
    sys.stdout.flush()
    ending = f" → {command_line(go_on)}" if go_on else ""
    print(f"semalign: {clean(without_userinfo(' '.join(text.split())) + ending)}", file=sys.stderr, flush=True)


def command_line(words: Sequence[str], hide_values: bool = False) -> str:
    """A command to copy; what is or may be a secret is left out of it, with `hide_values` every --set value."""
    return shlex.join(["semalign", *masked(words, hide_values)])


def cell(value: object) -> str:
    """A value as a table shows it."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return clean(str(value))


def metric_columns(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Every metric that any of the models has: recall first, then NDCG, then the others by name."""
    names = {name for values in metrics.values() for name in values}
    return sorted(names, key=lambda name: (not name.startswith("recall"), not name.startswith("ndcg"), name))


def p_words(p_value: float) -> str:
    """`0.0123`, or `<1e-4` where more digits would pretend."""
    return f"{p_value:.4f}" if p_value >= 1e-4 else "<1e-4"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
