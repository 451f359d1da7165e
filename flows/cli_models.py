"""Commands about models: the catalogue, and comparisons with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_options import THREADS, Options, command
from flows.cli_output import emit_json, emit_table, last_word, metric_columns, say
from flows.cli_pipeline import show_differences
from flows.cli_promotion import show_history

if TYPE_CHECKING:
    from flows.model_choices import ModelChoice
    from flows.outlook import StageOutlook
    from flows.settings import Settings
    from flows.steps.scores import Comparison, ModelScore

MODELS = Annotated[
    list[str],
    typer.Option("--models", help="NAME[@option=v|v;option=v], comma separated or repeated; | gives alternatives."),
]
_GRID = Annotated[
    list[str] | None,
    typer.Option("--grid", help="[MODEL:]option=v,v of one of the models, the first if none is named."),
]
SCREEN = Annotated[
    float | None,
    typer.Option("--screen", min=0.001, max=1.0, help="Only this share of the users, seeded: a quick look."),
]


FORMAT = Annotated[
    str | None, typer.Option("--format", help="table, markdown, csv, latex or html; what --output's name says.")
]
OUTPUT = Annotated[Path | None, typer.Option("--output", "-o", help="Write the table there: .md, .csv, .tex, .html.")]
FORCE = Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")]


@dataclass(frozen=True)
class TableRequest:
    """How a comparison is to be shown, and whether anything may be trained for it."""

    format: str
    output: Path | None
    only_trained: bool


def register(app: typer.Typer) -> None:
    """Adds models and compare."""

    @command(app, "models")
    def models(
        options: Options,
        history: Annotated[
            bool, typer.Option("--history", help="Which model served when, and who was refused.")
        ] = False,
    ) -> int:
        """Every model: name, paper, whether it reads language, options with their defaults."""
        return show_history(options) if history else list_models(options)

    @command(app, "compare")
    def compare(
        options: Options,
        models: MODELS,
        grid: _GRID = None,
        seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="Seeds 0 … n-1 of every model.")] = None,
        baseline: Annotated[
            str | None, typer.Option("--baseline", help="Label that all are compared with; the first by default.")
        ] = None,
        screen: SCREEN = None,
        only_estimate: Annotated[
            bool, typer.Option("--only-estimate", help="Say what it would take, and stop.")
        ] = False,
        only_trained: Annotated[
            bool, typer.Option("--only-trained", help="Train nothing: a table of what is there, the rest not run.")
        ] = False,
        format_: FORMAT = None,
        output: OUTPUT = None,
        force: FORCE = False,
        threads: THREADS = None,
    ) -> int:
        """Trains models side by side and compares them, paired over users; trained ones are not trained again."""
        from flows.query_output import writable_file
        from flows.table_formats import table_format

        request = TableRequest(
            table_format(format_, output), writable_file(output, force) if output else None, only_trained
        )
        settings = comparison_settings(options, seeds, screen)
        return run_comparison(options, settings, models, grid or [], baseline, only_estimate, threads, request)


def list_models(options: Options) -> int:
    """The catalogue on standard output."""
    from dataclasses import asdict

    from rec_models import catalogue

    cards = catalogue()
    if options.json:
        emit_json([asdict(card) for card in cards])
    else:
        rows = [
            (
                card.name,
                card.paper,
                "yes" if card.reads_language else "no",
                "yes" if card.scores_new_users else "no",
                ", ".join(f"{k}={v}" for k, v in card.options.items()),
            )
            for card in cards
        ]
        emit_table("models", ("name", "paper", "reads language", "scores new users", "options"), rows)
    last_word(f"{len(cards)} models; compare some: semalign compare --models {cards[0].name},…")
    return 0


def comparison_settings(options: Options, seeds: int | None, screen: float | None) -> Settings:
    """The settings of a comparison: its seeds and its screen are settings like any other."""
    from dataclasses import replace

    extra = [f"evaluation.seeds={seeds}"] if seeds is not None else []
    extra += [f"source.screen={screen}"] if screen is not None else []
    return replace(options, overrides=(*options.overrides, *extra)).settings()


def run_comparison(
    options: Options,
    settings: Settings,
    specs: Sequence[str],
    grids: Sequence[str],
    baseline: str | None,
    only_estimate: bool,
    threads: int | None,
    request: TableRequest,
) -> int:
    """Estimate first, then the comparison, then its table."""
    from flows.errors import SettingSyntaxError
    from flows.model_choices import choices_of
    from flows.outlook import outlook
    from flows.steps.model_checks import needs_language
    from warehouse import Warehouse

    choices = choices_of(specs, grids, settings)
    labels = [choice.label for choice in choices]
    reference = baseline or labels[0]
    if reference not in labels:
        raise SettingSyntaxError(reference, f"--baseline: one of {', '.join(labels)}")
    stages = outlook(settings, Warehouse(settings.warehouse.root), choices, needs_language(choices, settings))
    if request.only_trained:
        estimate: dict[str, Any] = {"seconds": 0.0, "stages": []}
    else:
        piped = request.format != "table" and request.output is None
        estimate = show_estimate(options, stages, only_estimate, aside=piped)
    if only_estimate:
        return 0
    return _compared(options, settings, choices, reference, threads, estimate, request)


def _compared(
    options: Options,
    settings: Settings,
    choices: Sequence[ModelChoice],
    reference: str,
    threads: int | None,
    estimate: dict[str, Any],
    request: TableRequest,
) -> int:
    from flows.compare_models import compare_models
    from flows.progress import open_progress
    from flows.run_summary import run_summary
    from flows.workspace import opened

    progress = open_progress()
    try:
        with opened(settings, "compare", progress, threads) as workspace:
            found = compare_models(settings, workspace, choices, reference, only_trained=request.only_trained)
            snapshot, comparison = found.snapshot, found.comparison
            summary = run_summary(workspace, snapshot)
    finally:
        progress.close()
    if request.format != "table" and (request.output or not options.json):
        deliver_table(comparison, reference, snapshot, request)
    if request.format == "table" or request.output or options.json:
        show_comparison(options, comparison, summary, estimate)
    missing = f", {len(comparison.not_run)} not run" if comparison.not_run else ""
    file = f", table in {request.output}" if request.output else ""
    last_word(
        f"compared {len(comparison.scores)} models × {comparison.seeds} seeds in {summary['seconds']:.1f} s, "
        f"{summary['trained']} trained now{missing}; their metrics are in snapshot {snapshot}{file}",
        ["sql", "SELECT label, seed, metric, k, value FROM metrics WHERE part = 'test'", *options.flags()],
    )
    return 0


def deliver_table(comparison: Comparison, reference: str, snapshot: str, request: TableRequest) -> None:
    """The table in the format asked for: into its file, all of it or nothing, else to standard output."""
    import sys

    from flows.steps.tables import comparison_table
    from flows.table_formats import written
    from warehouse import atomic_write

    text = written(comparison_table(comparison, reference, snapshot), request.format)
    if request.output is None:
        sys.stdout.write(text)
    else:
        atomic_write(request.output, text.encode())


def show_estimate(options: Options, stages: Sequence[StageOutlook], alone: bool, aside: bool = False) -> dict[str, Any]:
    """The estimate on standard output, and as a document.

    Args:
        alone: nothing follows; with --json it is the document.
        aside: something else has standard output: one line on standard error.
    """
    from dataclasses import asdict

    from flows.progress import duration

    seconds = sum(stage.seconds for stage in stages)
    document = {"seconds": seconds, "stages": [asdict(stage) for stage in stages]}
    if options.json and alone:
        emit_json({"estimate": document})
    elif not options.json and not aside:
        rows = [(stage.stage, stage.state, stage.what, duration(stage.seconds)) for stage in stages]
        emit_table("estimate", ("stage", "", "what", "about"), rows)
    message = f"estimate: about {duration(seconds)}, {stages[-1].what}"
    if alone or (aside and not options.json):
        last_word(message)
    elif not options.json:
        say(message)
    return document


def show_comparison(
    options: Options, comparison: Comparison, summary: dict[str, Any], estimate: dict[str, Any]
) -> None:
    """Means at the cut-off that selects, speed, differences; a star marks the best of each name by validation."""
    from flows.steps.tables import diagnosed_as

    if options.json:
        cost = {name: summary[name] for name in ("snapshot", "seconds", "trained", "embedded", "calls", "usd")}
        emit_json({**comparison.plain(), **cost, "estimate": estimate})
        return
    best = best_by_validation(comparison)
    select_by = comparison.select_by
    cutoff = select_by.partition("@")[2]
    tested = [name for name in metric_columns(comparison.metrics()) if name.endswith(f"@{cutoff}")]
    rows = [
        (
            f"{score.label}{' *' if score.label in best else ''}",
            score.valid.get(select_by),
            *(score.test.get(name) for name in tested),
            _certainty(score, select_by),
            f"{score.seconds_per_epoch:.2f}" if score.seconds_per_epoch else None,
            f"{score.best_epoch:.0f}" if score.epochs else None,
            comparison.source if score.reads_language else None,
        )
        for score in comparison.scores
    ]
    rows += [(label, *(None for _ in range(4 + len(tested))), "not run") for label in comparison.not_run]
    certain = f"{select_by} 95 %{', ± over seeds' if comparison.seeds > 1 else ''}"
    columns = ("model", f"valid {select_by}", *(f"test {name}" for name in tested), certain)
    columns = (*columns, "s/epoch", "best epoch", "profiles")
    title = f"{comparison.protocol}, {comparison.split}, mean of {comparison.seeds} seed(s)"
    emit_table(title, columns, rows, caption=f"* best {comparison.select_by} on validation of its name")
    for score in comparison.scores:
        for what, whose in score.provenance.items():
            say(f"{score.label}: {what}: {whose}")
        if words := diagnosed_as(score):
            say(f"{score.label}: {words} (first validation pass to the best one)")
    show_differences([vars(gain) for gain in comparison.differences])


def _certainty(score: ModelScore, metric: str) -> str | None:
    if metric not in score.intervals:
        return None
    low, high = score.intervals[metric]
    spread = f" ±{score.spread[metric]:.4f}" if metric in score.spread else ""
    return f"[{low:.4f}, {high:.4f}]{spread}"


def best_by_validation(comparison: Comparison) -> set[str]:
    """The label of each catalogue name that validation would choose, where there is a choice."""
    by_name: dict[str, list[Any]] = {}
    for score in comparison.scores:
        by_name.setdefault(score.name, []).append(score)
    several = [scores for scores in by_name.values() if len(scores) > 1]
    return {max(scores, key=lambda score: score.valid[comparison.select_by]).label for scores in several}
