"""The flows under Prefect: the functions the command line runs, every step a task. Nothing else imports prefect.

Prefect schedules, shows and retries. The warehouse's lock and ledger decide what is written and paid for: two runs at
once end as one that ran and one that was skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from flows.progress import LoggedProgress
from flows.refresh import refresh_until
from flows.run_summary import run_summary
from flows.settings import Settings
from flows.settings_layers import load_settings
from flows.steps.costs import cost_rows
from flows.workspace import opened

P = ParamSpec("P")
R = TypeVar("R")

# Results stay in the warehouse: what Prefect would persist are pickles outside it.
COSTS = (
    "Everything that was asked of language models so far, by day (UTC), engine and model. "
    "Calls without an engine belong to no finished run: previews, pilots, and runs that were stopped."
)

_FLOW: dict[str, Any] = {"persist_result": False, "validate_parameters": True}


@flow(name="refresh", description="Sources to published recommendations and a report.", **_FLOW)
def refresh(settings: Settings | None = None, config: str | None = None, overrides: list[str] | None = None) -> Any:
    """Brings everything up to now; what is done already is kept.

    Args:
        settings: the settings tree, filled in by form; wins over `config`.
        config: path of a semalign.toml on the worker; without both, the one in its working directory.
        overrides: `a.b=value` texts over `config`.
    """
    return run_flow("refresh", "report", settings, config, overrides)


@flow(name="build-profiles", description="Sources to profiles.", **_FLOW)
def build_profiles(
    settings: Settings | None = None, config: str | None = None, overrides: list[str] | None = None
) -> Any:
    """A profile for everyone who has something to say. Arguments as in `refresh`."""
    return run_flow("build-profiles", "profile", settings, config, overrides)


@flow(name="embed-profiles", description="Sources to profiles to vectors.", **_FLOW)
def embed_profiles(
    settings: Settings | None = None, config: str | None = None, overrides: list[str] | None = None
) -> Any:
    """A vector for every profile. Arguments as in `refresh`."""
    return run_flow("embed-profiles", "embed", settings, config, overrides)


@flow(name="train-model", description="The run's model and its baselines, trained and registered.", **_FLOW)
def train_model(settings: Settings | None = None, config: str | None = None, overrides: list[str] | None = None) -> Any:
    """Trained models; earlier stages as far as they need them. Arguments as in `refresh`."""
    return run_flow("train-model", "train", settings, config, overrides)


@flow(name="evaluate-model", description="The run's model against its baselines, paired over users.", **_FLOW)
def evaluate_model(
    settings: Settings | None = None, config: str | None = None, overrides: list[str] | None = None
) -> Any:
    """A comparison with intervals. Arguments as in `refresh`."""
    return run_flow("evaluate-model", "evaluate", settings, config, overrides)


@flow(name="recommend", description="The list each user gets.", **_FLOW)
def recommend(settings: Settings | None = None, config: str | None = None, overrides: list[str] | None = None) -> Any:
    """Recommendations of the run's model. Arguments as in `refresh`."""
    return run_flow("recommend", "recommend", settings, config, overrides)


def run_flow(name: str, until: str, settings: Settings | None, config: str | None, overrides: list[str] | None) -> Any:
    """Id of the published snapshot, or a completed state called Skipped where another run holds the lock."""
    from warehouse import LockHeldError

    logger = get_run_logger()
    chosen = settings or load_settings(Path(config) if config else None, overrides or ())
    try:
        with opened(chosen, name, LoggedProgress(logger.info)) as workspace:
            snapshot = refresh_until(until, chosen, workspace, as_task)
            summary = run_summary(workspace, snapshot)
            costs = cost_rows(workspace.warehouse, workspace.warehouse.snapshot(snapshot))
    except LockHeldError as error:
        return Completed(name="Skipped", message=str(error))
    create_markdown_artifact(key=f"semalign-{name}", markdown=summary_markdown(summary), description=chosen.name)
    if costs:
        create_table_artifact(key="semalign-costs", table=cost_table(costs), description=COSTS)
    return snapshot


def as_task(step: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """The step's result, computed as a task of the running flow; tried once more when it broke for no stated reason."""

    @task(
        name=f"{step.__module__.rpartition('.')[2]}.{step.__name__}",
        persist_result=False,
        cache_policy=NO_CACHE,
        retries=1,
        retry_condition_fn=lambda task, run, state: _worth_another_try(state),
    )
    def run_step() -> R:  # arguments stay out of Prefect's sight: they are handles, not parameters
        return step(*args, **kwargs)

    return run_step()


def _worth_another_try(state: Any) -> bool:
    """Errors with an exit code of 2 to 6 say what is wrong; trying again would only say it twice."""
    try:
        state.result(raise_on_failure=True)
    except Exception as error:
        return getattr(error, "exit_code", 1) == 1
    return False


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
