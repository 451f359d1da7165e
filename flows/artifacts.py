"""What a run leaves in Prefect's pages: its counts, cost and metrics as text and tables."""

from __future__ import annotations

from typing import Any

COSTS = (
    "Everything that was asked of language models so far, by day (UTC), engine and model. "
    "Calls without an engine belong to no finished run: previews, pilots, and runs that were stopped."
)


def cost_table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `cost_by_engine()` as an artifact shows them: an unknown price in a word, what was not counted empty."""
    shown = []
    for row in rows:
        usd = "unknown" if row["usd"] is None else round(row["usd"], 6)
        plain = {name: "" if value is None else value for name, value in row.items()}
        shown.append({**plain, "day": row["day"].isoformat(), "usd": usd})
    return shown


def summary_markdown(summary: dict[str, Any]) -> str:
    """A run's counts, cost and test metrics as Markdown."""
    cost = "unknown" if summary["usd"] is None else f"{summary['usd']:.4f}"
    lines = [
        f"Snapshot `{summary['snapshot']}`{'' if summary['new_snapshot'] else ' (nothing changed)'}",
        "",
        "| calls | cached | USD | embedded | trained | quarantined | seconds |",
        "|---:|---:|---:|---:|---:|---:|---:|",
        f"| {summary['calls']} | {summary['cached']} | {cost} | {summary['embedded']} | {summary['trained']} "
        f"| {summary['quarantined']} | {summary['seconds']} |",
    ]
    if summary["metrics"]:
        names = sorted({name for values in summary["metrics"].values() for name in values})
        lines += ["", f"| model | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
        for label, values in summary["metrics"].items():
            lines.append(f"| {label} | {' | '.join(f'{values[name]:.4f}' for name in names)} |")
    if summary["report"]:
        lines += ["", f"Report: `{summary['report']}`"]
    return "\n".join(lines)
