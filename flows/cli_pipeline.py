"""Commands that bring the warehouse up to date: run and its stages, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from flows.cli_options import THREADS, Options, command
from flows.cli_output import emit_json, emit_table, last_word, metric_columns, p_words, say

REPAY = Annotated[bool, typer.Option("--repay", help="Pay again for batches whose results the server no longer has.")]
_STAGE_HELP = {
    "ingest": "Read the sources, check them at the door, split them.",
    "profile": "Put items and users into words; earlier stages as needed.",
    "embed": "Embed the profiles; earlier stages as needed.",
    "train": "Train the model and its baselines; earlier stages as far as they need them.",
    "evaluate": "Compare the model with its baselines, paired over users.",
    "recommend": "Write the list each user gets, if the model may serve.",
}


def register(app: typer.Typer) -> None:
    """Adds run, the stage commands and report."""

    @command(app, "run")
    def run(
        options: Options,
        until: Annotated[str, typer.Option("--until", help="The last stage to run.")] = "report",
        threads: THREADS = None,
        retry: Annotated[bool, typer.Option("--retry", help="Ask again for the profiles that got no reply.")] = False,
        repay: REPAY = False,
        first: Annotated[bool, typer.Option("--first", help="Promote the model as if none served.")] = False,
    ) -> int:
        """The whole refresh: ingest, profile, embed, train, evaluate, recommend, promote, publish, report."""
        words = ["run"] if until == "report" else ["run", "--until", until]
        return run_stages(options, until, words, threads, retry, repay, first)

    for name, words in _STAGE_HELP.items():
        _register_stage(app, name, words)

    @command(app, "report")
    def report(
        options: Options,
        open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    ) -> int:
        """The HTML report of what is published."""
        return write_report(options, open_)


def _register_stage(app: typer.Typer, name: str, words: str) -> None:
    def stage(options: Options, threads: THREADS = None, repay: REPAY = False) -> int:
        return run_stages(options, name, [name], threads, repay=repay)

    stage.__doc__ = words
    command(app, name)(stage)


def run_stages(
    options: Options,
    until: str,
    words: Sequence[str],
    threads: int | None = None,
    retry: bool = False,
    repay: bool = False,
    first: bool = False,
) -> int:
    """Runs the flow up to a stage and says what came of it."""
    from flows.progress import open_progress
    from flows.refresh import refresh_until
    from flows.run_summary import run_summary
    from flows.workspace import opened

    settings = options.settings()
    progress = open_progress()
    try:
        with opened(settings, " ".join(words), progress, threads, retry, repay, first) as workspace:
            snapshot = refresh_until(until, settings, workspace)
            summary = run_summary(workspace, snapshot)
    finally:
        progress.close()
    show_run(options, summary)
    return finish(options, words, summary)


def write_report(options: Options, open_: bool) -> int:
    """Writes the report of CURRENT where it is missing, says where it lies, shows it on demand."""
    from flows.errors import NothingPublishedError
    from flows.progress import open_progress
    from flows.steps.report import write_report as write
    from flows.workspace import opened

    settings = options.settings()
    started = time.monotonic()
    with opened(settings, "report", open_progress()) as workspace:
        snapshot = workspace.warehouse.current()
        if snapshot is None:
            raise NothingPublishedError(str(workspace.warehouse.root))
        path = write(workspace, snapshot.id, settings)
    if options.json:
        emit_json({"report": str(path), "snapshot": snapshot.id, "seconds": time.monotonic() - started})
    else:
        say(str(path))
    if open_:
        typer.launch(path.as_uri())
    last_word(f"report of snapshot {snapshot.id}: {path}")
    return 0


def show_run(options: Options, summary: dict[str, Any]) -> None:
    """What a run did, as JSON or as tables."""
    if options.json:
        emit_json(summary)
        return
    rows = [
        (stage["name"], "computed" if stage["computed"] else "kept", stage["seconds"], stage["summary"])
        for stage in summary["stages"]
    ]
    emit_table("stages", ("stage", "", "seconds", "what"), rows)
    if summary.get("metrics"):
        show_metrics(
            summary["metrics"],
            f"test metrics ({summary['protocol']}, {summary['split']}, profiles: {summary['source']})",
        )
        show_differences(summary["differences"])


def show_metrics(metrics: dict[str, dict[str, float]], title: str) -> None:
    """Means over seeds, one row a model."""
    names = metric_columns(metrics)
    emit_table(
        title, ("model", *names), [(label, *(values.get(name) for name in names)) for label, values in metrics.items()]
    )


def show_differences(differences: Sequence[dict[str, Any]]) -> None:
    """Paired differences with their intervals."""
    if not differences:
        return
    several = len(differences) > 1
    rows = [
        (
            f"{gain['model']} − {gain['reference']}",
            f"{gain['difference']:+.4f}",
            f"{gain['relative']:+.1%}" if gain["relative"] is not None else None,
            f"[{gain['low']:+.4f}, {gain['high']:+.4f}]",
            p_words(gain["p_holm"] if several else gain["p_value"]),
            gain["n_users"],
        )
        for gain in differences
    ]
    columns = ("difference", "mean", "relative", "95 % interval", "p (Holm)" if several else "p", "users")
    emit_table(f"{differences[0]['metric']}, paired over users, mean over seeds first", columns, rows)


def finish(options: Options, words: Sequence[str], summary: dict[str, Any]) -> int:
    """The exit code of a run, after its last word."""
    cost = "price unknown" if summary["usd"] is None else f"{summary['usd']:.4f} USD"
    done = (
        f"{' '.join(words)} done in {summary['seconds']:.1f} s: snapshot {summary['snapshot']}"
        f"{'' if summary['new_snapshot'] else ' (nothing changed)'}, {summary['calls']:,} calls ({cost}), "
        f"{summary['embedded']:,} texts embedded, {summary['trained']} models trained"
    )
    if summary.get("report"):
        done += f", report {summary['report']}"
    if summary["quarantined"]:
        done += f"; {summary['quarantined']:,} rows are in quarantine"
        if n_silent := summary["profiles_without_reply"]:
            done += f" (semalign quarantine list); ask again for {n_silent:,} without a reply"
            last_word(done, ["run", "--retry", *options.flags()])
        else:
            last_word(done, ["quarantine", "list", *options.flags()])
        return 3
    last_word(done, ["status", *options.flags()])
    return 0
