"""Commands that look behind a comparison: sparsity, convergence, collapse, latent, beta; each a table and a figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_models import FORCE, MODELS, SCREEN, comparison_settings, show_estimate
from flows.cli_options import THREADS, Options, command
from flows.cli_output import emit_json, emit_table, last_word, p_words

if TYPE_CHECKING:
    from flows.compare_models import Compared
    from flows.report.charts import Chart
    from flows.workspace import Workspace

OUTPUT = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write it there: .svg is the figure, .csv its numbers.")
]
SEEDS = Annotated[int | None, typer.Option("--seeds", min=1, help="Seeds 0 … n-1 of every model.")]
BASELINE = Annotated[str | None, typer.Option("--baseline", help="Label of the reference; the first by default.")]
BETAS = "matching.beta=0.0,0.25,0.5,0.75,1.0"


@dataclass(frozen=True)
class Study:
    """What an analysis found: a table for the terminal, flat rows for a file, charts for a figure."""

    title: str
    columns: tuple[str, ...]
    table: Sequence[tuple[object, ...]]
    rows: list[dict[str, Any]]
    charts: list[Chart | None]
    caption: str | None = None


Make = Callable[["Workspace", "Compared", str], Study]


@dataclass(frozen=True)
class Request:
    """What every analysis takes."""

    models: MODELS
    seeds: SEEDS = None
    screen: SCREEN = None
    output: OUTPUT = None
    force: FORCE = False
    threads: THREADS = None


def register(app: typer.Typer) -> None:
    """Adds analyse and its commands."""
    from flows import cli_collaboration

    analyses = typer.Typer(help="Behind a comparison: who gains, how fast, by which latent.", no_args_is_help=True)
    app.add_typer(analyses, name="analyse")

    @command(analyses, "sparsity")
    def sparsity(
        options: Options,
        request: Request,
        groups: Annotated[int, typer.Option("--groups", min=2, help="Groups of equal numbers of interactions.")] = 4,
        bounds: Annotated[
            str | None, typer.Option("--bounds", help="Groups up to each of these instead, e.g. 10,50,100.")
        ] = None,
        baseline: BASELINE = None,
    ) -> int:
        """What each model gains over the reference for users with few and with many training interactions."""

        def make(workspace: Workspace, found: Compared, reference: str) -> Study:
            return _sparsity(workspace, found, reference, _bounds(bounds) if bounds else groups)

        return run_analysis(options, "sparsity", request, make, baseline)

    @command(analyses, "convergence")
    def convergence(options: Options, request: Request, baseline: BASELINE = None) -> int:
        """Validation by epoch and by second of training, and the ratio of the time an epoch takes."""
        return run_analysis(options, "convergence", request, _convergence, baseline)

    @command(analyses, "collapse")
    def collapse(options: Options, request: Request) -> int:
        """Whether predicted ratings keep the distribution of the true ones, by epoch and in the end."""
        return run_analysis(options, "collapse", request, _collapse)

    @command(analyses, "latent")
    def latent(options: Options, request: Request) -> int:
        """How many latent dimensions tell users apart: log variance over users of each posterior mean."""
        return run_analysis(options, "latent", request, _latent)

    @command(analyses, "beta")
    def beta(
        options: Options,
        request: Request,
        grid: Annotated[
            list[str] | None, typer.Option("--grid", help=f"[MODEL:]option=v,v,v; {BETAS} of the first by default.")
        ] = None,
        baseline: BASELINE = None,
    ) -> int:
        """A comparison over the values of one option, as a curve; a model without the option is a level line."""
        return run_analysis(options, "beta", request, _beta, baseline, grid or [BETAS])

    cli_collaboration.register(analyses)


def run_analysis(
    options: Options,
    name: str,
    request: Request,
    make: Make,
    baseline: str | None = None,
    grids: Sequence[str] = (),
) -> int:
    """Trains what is missing after an estimate, as compare does; then the analysis, its table and its file."""
    from flows.compare_models import compare_models
    from flows.errors import SettingSyntaxError
    from flows.model_choices import choices_of
    from flows.outlook import outlook
    from flows.progress import open_progress
    from flows.query_output import writable_file
    from flows.steps.model_checks import needs_language
    from flows.workspace import opened
    from warehouse import Warehouse

    settings = comparison_settings(options, request.seeds, request.screen)
    choices = choices_of(request.models, grids, settings)
    labels = [choice.label for choice in choices]
    reference = baseline or labels[0]
    if reference not in labels:
        raise SettingSyntaxError(reference, f"--baseline: one of {', '.join(labels)}")
    if request.output and request.output.suffix.lower() not in (".svg", ".csv"):
        raise SettingSyntaxError(f"--output {request.output}", "a file that ends in .svg or .csv")
    file = writable_file(request.output, request.force) if request.output else None
    warehouse = Warehouse(settings.warehouse.root)
    show_estimate(options, outlook(settings, warehouse, choices, needs_language(choices, settings)), alone=False)
    progress = open_progress()
    try:
        with opened(settings, f"analyse {name}", progress, request.threads) as workspace:
            found = compare_models(settings, workspace, choices, reference)
            study = make(workspace, found, reference)
    finally:
        progress.close()
    comparison = found.comparison
    facts = {"split": comparison.split, "protocol": comparison.protocol, "source": comparison.source}
    model_ids = {score.label: score.model_ids for score in comparison.scores}
    if options.json:
        emit_json({"rows": study.rows, **facts, "models": model_ids, "snapshot": found.snapshot})
    else:
        words = f"{study.title} ({comparison.protocol}, {comparison.split}, {comparison.seeds} seed(s))"
        emit_table(words, study.columns, study.table, caption=study.caption)
    if file:
        _write(file, study, facts)
    last_word(
        f"{study.title}: {len(study.rows)} rows{f', written to {file}' if file else ''}",
        _next(options, name, request, grids),
    )
    return 0


def _next(options: Options, name: str, request: Request, grids: Sequence[str]) -> list[str] | None:
    if request.output:
        return None
    words = [word for model in request.models for word in ("--models", model)]
    words += [word for grid in grids for word in ("--grid", grid)]
    return ["analyse", name, *words, "--output", f"{name}.svg", *options.flags()]


def _write(path: Path, study: Study, facts: dict[str, str]) -> None:
    from flows.errors import SettingSyntaxError
    from flows.query_output import csv_cell
    from flows.report import figure
    from warehouse import atomic_write

    if path.suffix.lower() == ".svg":
        charts = [chart for chart in study.charts if chart is not None]
        if not charts:
            raise SettingSyntaxError(f"--output {path}", "models of which there is something to draw")
        atomic_write(path, figure(charts).encode())
        return
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([csv_cell(name) for name in (*study.rows[0], *facts)] if study.rows else [])
    writer.writerows([csv_cell(value) for value in (*row.values(), *facts.values())] for row in study.rows)
    atomic_write(path, stream.getvalue().encode())


def _bounds(text: str) -> list[int]:
    from flows.errors import SettingSyntaxError

    words = [word.strip() for word in text.split(",")]
    bounds = [int(word) for word in words if word.isdigit()]
    if len(bounds) != len(words) or bounds != sorted(set(bounds)):
        raise SettingSyntaxError(f"--bounds {text}", "rising whole numbers with commas, e.g. 10,50,100")
    return bounds


def _sparsity(workspace: Workspace, found: Compared, reference: str, groups: int | list[int]) -> Study:
    from flows.report.charts import group_chart
    from flows.steps.analyse import group_gains

    metric = found.comparison.select_by
    snapshot = workspace.warehouse.snapshot(found.upstream)
    gains = group_gains(workspace.warehouse, snapshot, found.plan, reference, metric, groups)
    table = [
        (
            *(gain.model, gain.group, gain.n_users, gain.value, gain.reference_value, f"{gain.difference:+.4f}"),
            *(f"[{gain.low:+.4f}, {gain.high:+.4f}]", p_words(gain.p_holm)),
        )
        for gain in gains
    ]
    columns = ("model", "interactions", "users", metric, reference, "difference", "95 % interval", "p (Holm)")
    title = f"{metric} against {reference} by training interactions"
    return Study(title, columns, table, [asdict(gain) for gain in gains], [group_chart(gains, metric)])


def _convergence(workspace: Workspace, found: Compared, reference: str) -> Study:
    from flows.report.charts import Line, line_chart
    from flows.steps.analyse import convergences

    metric = found.comparison.select_by
    curves = convergences(workspace.warehouse, found.plan, reference, metric)
    table = [
        (
            *(curve.model, f"{curve.best_epoch:.0f}", f"{curve.seconds_to_best:.1f}", max(curve.valid)),
            f"{curve.seconds_per_epoch:.3f}" if curve.seconds_per_epoch is not None else None,
            f"{curve.ratio:.2f}" if curve.ratio is not None else None,
            f"{curve.seconds_to_reference:.1f}" if curve.seconds_to_reference is not None else None,
        )
        for curve in curves
    ]
    rows = [
        {"model": curve.model, "epoch": epoch, "seconds": seconds, "valid": valid}
        | {"seconds_per_epoch": curve.seconds_per_epoch, "ratio": curve.ratio}
        for curve in curves
        for epoch, seconds, valid in zip(curve.epochs, curve.seconds, curve.valid, strict=True)
    ]
    by_epoch = [Line(curve.model, tuple(zip(curve.epochs, curve.valid, strict=True))) for curve in curves]
    by_second = [Line(curve.model, tuple(zip(curve.seconds, curve.valid, strict=True))) for curve in curves]
    charts: list[Chart | None] = [
        line_chart(by_epoch, f"validation {metric} by epoch", "epoch", "at epoch {:.0f}"),
        line_chart(by_second, f"validation {metric} by second", "seconds of training", "after {:.1f} s"),
    ]
    columns = ("model", "best epoch", "s to best", f"valid {metric}", "s/epoch", "ratio", f"s to {reference}'s best")
    caption = f"ratio: of the time an epoch takes to {reference}'s, means over seeds; curves are of seed 0"
    return Study("convergence", columns, table, rows, charts, caption)


def _collapse(workspace: Workspace, found: Compared, reference: str) -> Study:
    from flows.errors import SettingSyntaxError
    from flows.report.charts import collapse_chart
    from flows.steps.collapse import CURVES, SHOWN, collapses

    models = collapses(workspace.warehouse, found.plan)
    if not models:
        raise SettingSyntaxError("analyse collapse", "a model that predicts ratings, such as item_mean or dgrm")
    table = [(model.model, *(model.test.get(name) for name in SHOWN)) for model in models]
    rows: list[dict[str, Any]] = [{"model": model.model, "epoch": None} | dict(model.test) for model in models]
    rows += [{"model": model.model} | dict(epoch) for model in models for epoch in model.epochs]
    names = list(dict.fromkeys(name for row in rows for name in row))
    charts: list[Chart | None] = [collapse_chart(models, curve) for curve in CURVES]
    rows = [{name: row.get(name) for name in names} for row in rows]
    caption = "of the tested ratings, means over seeds; curves are of seed 0; shares of the bins are in the .csv"
    return Study("the distribution of predicted ratings", ("model", *SHOWN.values()), table, rows, charts, caption)


def _latent(workspace: Workspace, found: Compared, reference: str) -> Study:
    from flows.report.charts import latent_chart
    from flows.report.content import ACTIVE
    from flows.steps.analyse import latent_activities, log_activities

    latents, rows = [], []
    for label in found.plan.labels():
        seeds = [log_activities(workspace, model) for model in found.plan.seeds_of(label)]
        latents += latent_activities(label, seeds)
        rows += [
            {"model": label, "seed": seed, "part": part, "dimension": dimension, "log_activity": float(value)}
            for seed, parts in enumerate(seeds)
            for part, values in parts.items()
            for dimension, value in enumerate(values)
        ]
    table = [
        (latent.model, latent.part, *(f"{value:.3f}" for value in latent.quantiles), latent.n_active, latent.n_dims)
        for latent in latents
    ]
    columns = ("model", "part", "least", "quartile", "median", "quartile ", "most", "active", "dimensions")
    caption = f"natural log of the variance over users of posterior means; active from {ACTIVE} before the log"
    return Study("log of latent activity", columns, table, rows, [latent_chart(latents)], caption)


def _beta(workspace: Workspace, found: Compared, reference: str) -> Study:
    from flows.errors import SettingSyntaxError
    from flows.report.charts import sweep_chart
    from flows.steps.analyse import sweeps_of

    comparison, metric = found.comparison, found.comparison.select_by
    sweeps = sweeps_of(
        (score.label, score.valid[metric], score.test[metric], score.intervals[metric]) for score in comparison.scores
    )
    if not sweeps:
        raise SettingSyntaxError("analyse beta", "--grid option=v,v,v with three or more numbers")
    swept = {point.label for sweep in sweeps for point in sweep.points}
    level = next(((score.label, score.test[metric]) for score in comparison.scores if score.label not in swept), None)
    rows = [
        {"model": sweep.model, "option": sweep.option, **asdict(point)} for sweep in sweeps for point in sweep.points
    ]
    table = [
        (row["model"], row["option"], row["value"], row["valid"], row["test"], f"[{row['low']:.4f}, {row['high']:.4f}]")
        for row in rows
    ]
    columns = ("model", "option", "value", f"valid {metric}", f"test {metric}", "95 % interval")
    return Study(f"{metric} by option", columns, table, rows, [sweep_chart(sweep, metric, level) for sweep in sweeps])
