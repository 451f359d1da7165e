"""The command `tune`: options of models searched on validation, within a budget that is the same for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_models import FORCE, MODELS, SCREEN, comparison_settings, show_estimate
from flows.cli_options import THREADS, Options, command
from flows.cli_output import emit_json, emit_table, last_word

if TYPE_CHECKING:
    from flows.outlook import StageOutlook
    from flows.search_space import SearchSpace
    from flows.settings import Settings
    from flows.steps.search import Budget, Method
    from flows.steps.tune import TunedModel, Tuning

SHOWN_TRIALS = 5


@dataclass(frozen=True)
class _Request:
    spaces: Mapping[str, SearchSpace]
    method: Method
    budget: Budget
    seed: int
    write: Path | None


def register(app: typer.Typer) -> None:
    """Adds tune."""

    @command(app, "tune")
    def tune(
        options: Options,
        models: MODELS,
        space: Annotated[
            list[str],
            typer.Option(
                "--space", help="TOML file, [MODEL:]option=v,v or [MODEL:]option=low..high[:log]; repeatable."
            ),
        ],
        budget: Annotated[int | None, typer.Option("--budget", min=1, help="Trials of each model.")] = None,
        minutes: Annotated[
            float | None, typer.Option("--minutes", min=0.01, help="Minutes of training of each model, instead.")
        ] = None,
        method: Annotated[
            str | None, typer.Option("--method", help="grid, random or tpe; a grid where the budget allows.")
        ] = None,
        seed: Annotated[int, typer.Option("--seed", min=0, help="Of the search.")] = 0,
        seeds: Annotated[int, typer.Option("--seeds", min=1, help="Every trial is trained with seeds 0 … n-1.")] = 1,
        screen: SCREEN = None,
        write: Annotated[Path | None, typer.Option("--write", help="Write the chosen settings there, as TOML.")] = None,
        force: FORCE = False,
        only_estimate: Annotated[
            bool, typer.Option("--only-estimate", help="Say what it would take, and stop.")
        ] = False,
        threads: THREADS = None,
    ) -> int:
        """Searches options of models on validation alone; every model gets the same budget. Trials are kept."""
        from flows.query_output import writable_file

        settings = comparison_settings(options, seeds, screen)
        file = writable_file(write, force) if write else None
        request = _request(settings, models, space, (budget, minutes), method, seed, file)
        return run_tuning(options, settings, request, only_estimate, threads)


def _request(
    settings: Settings,
    specs: Sequence[str],
    spaces: Sequence[str],
    budget: tuple[int | None, float | None],
    method: str | None,
    seed: int,
    write: Path | None,
) -> _Request:
    from flows.errors import SettingSyntaxError
    from flows.model_choices import choices_of
    from flows.search_space import spaces_of
    from flows.steps.search import METHODS, Budget

    if (budget[0] is None) == (budget[1] is None):
        raise SettingSyntaxError(
            "--budget and --minutes" if budget[0] else "tune", "one of --budget N (trials) and --minutes M"
        )
    found = spaces_of(spaces, [choice.label for choice in choices_of(specs, (), settings)])
    allowed = Budget(*budget)
    known: dict[str, Method] = {name: name for name in METHODS}
    if method is not None and method not in known:
        raise SettingSyntaxError(f"--method {method}", ", ".join(METHODS))
    sizes = [space.size() for space in found.values()]
    walks = all(size is not None and size <= (allowed.trials or size) for size in sizes)
    chosen: Method = known[method] if method else "grid" if walks else "random"
    return _Request(found, chosen, allowed, seed, write)


def run_tuning(
    options: Options, settings: Settings, request: _Request, only_estimate: bool, threads: int | None
) -> int:
    """Estimate first, then the search, then its tables and its file."""
    from flows.progress import open_progress
    from flows.run_summary import run_summary
    from flows.steps.search import open_search
    from flows.tune_models import tune_models
    from flows.workspace import opened

    for space in request.spaces.values():  # what cannot be searched is refused before anything is estimated
        open_search(request.method, space, request.budget, request.seed)
    estimate = show_estimate(options, _outlook(settings, request), only_estimate)
    if only_estimate:
        return 0
    progress = open_progress()
    try:
        with opened(settings, "tune", progress, threads) as workspace:
            snapshot, tuning = tune_models(
                settings, workspace, request.spaces, request.method, request.budget, request.seed
            )
            summary = run_summary(workspace, snapshot)
    finally:
        progress.close()
    if request.write:
        _write(settings, tuning, request.write)
    if options.json:
        cost = {name: summary[name] for name in ("snapshot", "seconds", "trained")}
        emit_json({**tuning.plain(), **cost, "estimate": estimate})
    else:
        show_tuning(tuning)
    n_trials = sum(len(tuned.trials) for tuned in tuning.models)
    file = f"; chosen settings in {request.write}" if request.write else ""
    go_on = ["--config", str(request.write)] if request.write else options.flags()
    last_word(
        f"tuned {len(tuning.models)} models in {summary['seconds']:.1f} s: {n_trials} trials, {summary['trained']} "
        f"trainings now; their validation is in the registry of snapshot {snapshot}{file}",
        ["compare", "--models", ",".join(_to_compare(tuning, written=request.write is not None)), *go_on],
    )
    return 0


def show_tuning(tuning: Tuning) -> None:
    """The best trials of each model; the first is what was chosen."""
    from flows.steps.tune import values_in_words

    for tuned in tuning.models:
        ranked = sorted(tuned.trials, key=lambda trial: -1.0 if trial.valid is None else trial.valid, reverse=True)
        rows = [
            (
                values_in_words(trial.values),
                trial.valid,
                f"{trial.best_epoch:.0f}" if trial.best_epoch is not None else None,
                f"{trial.seconds:.1f}",
                trial.state,
                " ".join(model.model_id for model in trial.models),
            )
            for trial in ranked[:SHOWN_TRIALS]
        ]
        more = f"; the other {len(ranked) - SHOWN_TRIALS} in the registry" if len(ranked) > SHOWN_TRIALS else ""
        title = (
            f"{tuned.label}: {len(ranked)} trials ({tuning.method}, {tuning.budget.words()}), {tuning.protocol}, "
            f"{tuning.split}, mean of {tuning.seeds} seed(s)"
        )
        columns = ("tried", f"valid {tuning.select_by}", "best epoch", "seconds", "", "models")
        emit_table(title, columns, rows, caption=f"chosen: the first, on validation alone{more}")


def _outlook(settings: Settings, request: _Request) -> list[StageOutlook]:
    """The stages of a comparison of the trials that are foreseen; minutes bound the last one."""
    from flows.outlook import outlook
    from flows.steps.model_checks import needs_language
    from flows.steps.tune import extremes, foreseen
    from warehouse import Warehouse

    budget = request.budget
    ends = [choice for label, space in request.spaces.items() for choice in extremes(label, space, settings)]
    choices = [
        choice
        for label, space in request.spaces.items()
        for choice in foreseen(label, space, budget, request.method, settings)
    ]
    stages = outlook(settings, Warehouse(settings.warehouse.root), choices, needs_language([*ends, *choices], settings))
    if budget.minutes is None:
        return stages
    words = f"{len(request.spaces)} models × {budget.words()}, less what was trained before"
    seconds = 60 * budget.minutes * len(request.spaces)
    return [*stages[:-1], replace(stages[-1], what=words, seconds=seconds, state="to do")]


def _write(settings: Settings, tuning: Tuning, path: Path) -> None:
    from flows.settings_file import as_toml, tuned_settings
    from warehouse import atomic_write

    lines = [
        f"# Chosen on validation ({tuning.select_by}) by semalign tune: {tuning.method}, {tuning.budget.words()} each;",
        f"# {tuning.protocol}, {tuning.split}, profiles: {tuning.source}.",
        *(f"# {tuned.label}: {tuned.best.valid:.4f} with model {_ids(tuned)}" for tuned in tuning.models),
    ]
    head = "\n".join(" ".join(line.split()) for line in lines)
    atomic_write(path, f"{head}\n{as_toml(tuned_settings(settings, tuning.models))}".encode())


def _ids(tuned: TunedModel) -> str:
    return ", ".join(model.model_id for model in tuned.best.models)


def _to_compare(tuning: Tuning, written: bool) -> list[str]:
    """What to compare next: the names, where a file holds what they stand for, else the chosen labels."""
    return list(dict.fromkeys(tuned.choice.name if written else tuned.choice.label for tuned in tuning.models))
