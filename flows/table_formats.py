"""A comparison table as Markdown, CSV, LaTeX or HTML; whatever a label holds, it stays text there."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import re
from collections.abc import Iterator
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.caution import clean
from flows.errors import SettingSyntaxError
from flows.query_output import csv_cell

if TYPE_CHECKING:
    from flows.steps.tables import ComparisonTable

FORMATS = ("table", "markdown", "csv", "latex", "html")
_SUFFIXES = {"md": "markdown", "csv": "csv", "tex": "latex", "html": "html"}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&!$])")
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"},
    **{">": r"\textgreater{}", "|": r"\textbar{}", "–": "--", "±": r"$\pm$", '"': r"\textquotedbl{}", "−": "$-$"},
    # an opening bracket after a line break would be read as its option
    **{"[": "{[}", "]": "{]}"},
}
_STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;margin:2rem;color:#1d2328;background:#fff}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "th,td{padding:.3rem .8rem;border-bottom:1px solid #dedbd4;text-align:right;vertical-align:top}"
    "th:first-child,td:last-child,th:last-child{text-align:left}caption{text-align:left}"
    "small,dt,.note{color:#59636b}code{font-size:.85em}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1rem}"
    "dd{margin:0}@media(prefers-color-scheme:dark){body{background:#14181b;color:#e6e8e6}small,dt,.note{color:#a3adb3}}"
)


def table_format(name: str | None, output: Path | None) -> str:
    """The format asked for, else the one of the file's name, else a table on the screen.

    Raises:
        SettingSyntaxError: no such format.
    """
    if name is None:
        name = _SUFFIXES.get(output.suffix.lstrip(".").lower(), "unknown") if output else "table"
    if name not in FORMATS or (output and name == "table"):
        given = f"--format {name}" if output is None or name != "unknown" else f"--output {output}"
        raise SettingSyntaxError(given, "markdown (.md), csv, latex (.tex) or html")
    return name


def written(table: ComparisonTable, format_name: str) -> str:
    """The table as the text of a file in a format of FORMATS other than `table`."""
    return {"markdown": _markdown, "csv": _csv, "latex": _latex, "html": _html}[format_name](table)


def _words(value: Any) -> str:
    from flows.steps.tables import in_words

    return " ".join(clean(in_words(value)).split())


def _markdown(table: ComparisonTable) -> str:
    def safe(text: str) -> str:
        return _MARKDOWN.sub(r"\\\1", text)

    def line(cells: Iterator[str]) -> str:
        return f"| {' | '.join(cells)} |"

    columns = [*table.columns, "trained as"]
    lines = [f"**{safe(_words(table.title))}**", ""]
    lines += [f"* {safe(_words(name))}: {safe(_words(value))}" for name, value in table.facts]
    lines += ["", line(safe(_words(name)) for name in columns), line("---" for _ in columns)]
    for row in table.rows:
        lines.append(line(safe(_words(value)) for value in (*row.values, row.trace())))
    return "\n".join([*lines, "", *(f"* {safe(_words(note))}" for note in table.notes)]) + "\n"


def _csv(table: ComparisonTable) -> str:
    """One number a column; the facts stand in columns of their own, so that tables can be stacked."""
    from flows.steps.tables import Gain, Measure

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names: list[str] = []
    for name, kind in table.kinds():
        if kind in (Measure, Gain):
            names += [f"{name} {part.name}" for part in fields(kind)]
        else:
            names.append(name)
    ends = ("model ids", "runs", *(f"table: {name}" for name, _ in table.facts))
    writer.writerow([csv_cell(name) for name in (*names, *ends)])
    for row in table.rows:
        cells: list[Any] = []
        for value, (_, kind) in zip(row.values, table.kinds(), strict=True):
            if kind not in (Measure, Gain):
                cells.append(value)
            elif isinstance(value, kind):
                cells += astuple(value)
            else:  # the words that stand for a number that is not there
                cells += [value, *(None for _ in fields(kind)[1:])]
        traces = [" ".join(row.model_ids), " ".join(row.runs), *(value for _, value in table.facts)]
        writer.writerow([csv_cell(value) for value in (*cells, *traces)])
    return stream.getvalue()


def _latex(table: ComparisonTable) -> str:
    r"""A `tabular` with booktabs rules; every row is followed by a comment that names its models."""

    def safe(text: str) -> str:
        return "".join(_LATEX.get(sign, sign) for sign in text)

    def remark(text: str) -> str:
        return f"% {text}"

    lines = [remark(f"{_words(name)}: {_words(value)}") for name, value in (("table", table.title), *table.facts)]
    lines += ["% needs \\usepackage{booktabs}", f"\\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}", "\\toprule"]
    lines += [" & ".join(safe(_words(name)) for name in table.columns) + r" \\", "\\midrule"]
    for row in table.rows:
        lines.append(" & ".join(safe(_words(value)) for value in row.values) + r" \\")
        lines.append(remark(_words(row.trace())))
    lines += ["\\bottomrule", "\\end{tabular}"]
    return "\n".join([*lines, *(remark(_words(note)) for note in table.notes)]) + "\n"


def _html(table: ComparisonTable) -> str:
    """One page that loads and runs nothing; every cell's title names the models it was measured on."""

    def safe(text: str) -> str:
        return html.escape(_words(text), quote=True)

    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = "".join(f'<th scope="col">{safe(name)}</th>' for name in (*table.columns, "trained as"))
    facts = "".join(f"<dt>{safe(name)}</dt><dd>{safe(value)}</dd>" for name, value in table.facts)
    lines = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy, quote=True)}">',
        f"<title>{safe(table.title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{safe(table.title)}</h1><dl>{facts}</dl>",
        f"<table><thead><tr>{head}</tr></thead><tbody>",
    ]
    for row in table.rows:
        trace = safe(row.trace())
        label, *values = (safe(in_cell) for in_cell in map(_words, row.values))
        cells = "".join(f'<td title="{trace}">{value}</td>' for value in values)
        ids = ", ".join(f"<code>{safe(model)}</code>" for model in row.model_ids) or trace
        runs = "".join(f"<br><small>run {safe(run)}</small>" for run in row.runs)
        lines.append(f'<tr><th scope="row" title="{trace}">{label}</th>{cells}<td>{ids}{runs}</td></tr>')
    notes = "".join(f'<p class="note">{safe(note)}</p>' for note in table.notes)
    return "\n".join([*lines, f"</tbody></table>{notes}</body></html>"]) + "\n"
