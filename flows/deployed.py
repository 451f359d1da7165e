"""The flows under Prefect: the functions the command line runs, every step a task. Nothing else imports prefect.

Prefect schedules, shows and retries. The warehouse's lock and ledger decide what is written and paid for: two runs at
once end as one that ran and one that was skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import date
from inspect import signature
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar
from uuid import UUID

from prefect import flow, get_client, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.blocks.core import Block
from prefect.blocks.system import Secret
from prefect.cache_policies import NO_CACHE
from prefect.deployments import run_deployment
from prefect.states import Cancelling, Completed, Failed
from pydantic import PositiveInt

from flows.artifacts import COSTS, cost_table, summary_markdown
from flows.backfill import moments, settings_as_of
from flows.handoff_errors import AlreadyTrainingError
from flows.progress import LoggedProgress
from flows.promotion_errors import NotBlessedError
from flows.refresh import refresh_until
from flows.reproduce import reproduce as reproduced
from flows.run_summary import run_summary
from flows.settings import Settings
from flows.settings_layers import load_settings
from flows.steps import handoff
from flows.steps.costs import cost_rows
from flows.workspace import Workspace, opened

P = ParamSpec("P")
R = TypeVar("R")

# Names the block that is told when a run fails, such as `slack-webhook/ops`; its address stays with the server.
NOTIFY = "SEMALIGN_NOTIFY_BLOCK"
A_DAY_S = 86_400.0

Until = Literal["ingest", "profile", "embed", "train", "evaluate", "recommend", "report"]
TextsByName = dict[str, str]

# What the form says beside each parameter, of whichever flows have it.
_PARAMETERS = {
    "settings": "the whole settings tree, filled in by form; wins over `config`",
    "config": "a semalign.toml on the worker; without it, the one in its working directory",
    "overrides": "`a.b=value` texts over `config`; a secret among them is refused",
    "until": "the last stage to run; `report` is all of them",
    "train_on": "the deployment that trains, such as train-bundle/gpu; without it the worker itself does",
    "secrets": "environment variable → name of the Secret block it is read from where the worker's environment does "
    "not have it, such as {'OPENAI_API_KEY': 'openai-key'}; names alone are stored",
    "first": "the first day; interactions of that day and later are left out",
    "last": "the last day, at most",
    "every_days": "days from one to the next",
    "snapshot": "a version's id; the published one without it",
    "bundle": "the bundle's folder, where this worker sees it",
    "arguments": "of `python -m rec_models train`, behind the bundle",
}


def tell(flow: Any, flow_run: Any, state: Any) -> None:
    """Sends a failed run's last word to the block that the worker's environment names; nothing without one."""
    if name := os.environ.get(NOTIFY):
        block: Any = Block.load(name)
        block.notify(subject=f"semalign: {flow.name} {state.name.lower()}", body=f"{flow_run.name}: {state.message}")


def deployed(name: str, description: str) -> Callable[[Callable[..., Any]], Any]:
    """Makes a flow of a function, its parameters described in the form.

    Results stay in the warehouse: what Prefect would persist are pickles outside it.
    """

    def made(function: Callable[..., Any]) -> Any:
        # Prefect reads what it says of a parameter from the docstring
        said = "\n".join(f"    {own}: {_PARAMETERS[own]}" for own in signature(function).parameters)
        function.__doc__ = f"{function.__doc__}\n\nArgs:\n{said}\n"
        kept = {"persist_result": False, "validate_parameters": True, "timeout_seconds": A_DAY_S}
        return flow(name=name, description=description, on_failure=[tell], on_crashed=[tell], **kept)(function)

    return made


@deployed("refresh", "Sources to published recommendations and a report.")
def refresh(
    settings: Settings | None = None,
    config: str | None = None,
    overrides: list[str] | None = None,
    until: Until = "report",
    train_on: str | None = None,
    secrets: TextsByName | None = None,
) -> Any:
    """Brings everything up to now; what is done already is kept."""
    return run_flow("refresh", until, chosen_settings(settings, config, overrides, secrets), train_on)


@deployed("build-profiles", "Sources to profiles.")
def build_profiles(
    settings: Settings | None = None,
    config: str | None = None,
    overrides: list[str] | None = None,
    secrets: TextsByName | None = None,
) -> Any:
    """A profile for everyone who has something to say."""
    return run_flow("build-profiles", "profile", chosen_settings(settings, config, overrides, secrets))


@deployed("embed-profiles", "Sources to profiles to vectors.")
def embed_profiles(
    settings: Settings | None = None,
    config: str | None = None,
    overrides: list[str] | None = None,
    secrets: TextsByName | None = None,
) -> Any:
    """A vector for every profile."""
    return run_flow("embed-profiles", "embed", chosen_settings(settings, config, overrides, secrets))


@deployed("train-model", "The run's model and its baselines, trained and registered.")
def train_model(
    settings: Settings | None = None,
    config: str | None = None,
    overrides: list[str] | None = None,
    train_on: str | None = None,
    secrets: TextsByName | None = None,
) -> Any:
    """Trained models, verified and registered; earlier stages as far as they need them."""
    return run_flow("train-model", "train", chosen_settings(settings, config, overrides, secrets), train_on)


@deployed("evaluate-model", "The run's model against its baselines, paired over users.")
def evaluate_model(
    settings: Settings | None = None,
    config: str | None = None,
    overrides: list[str] | None = None,
    secrets: TextsByName | None = None,
) -> Any:
    """A comparison with intervals."""
    return run_flow("evaluate-model", "evaluate", chosen_settings(settings, config, overrides, secrets))


@deployed("retrain", "Models on the interactions of now; the better one serves.")
def retrain(
    settings: Settings | None = None,
    config: str | None = None,
    overrides: list[str] | None = None,
    train_on: str | None = None,
    secrets: TextsByName | None = None,
) -> Any:
    """Trained where `train_on` says, measured against the champion, and published if the gate lets it."""
    return run_flow("retrain", "report", chosen_settings(settings, config, overrides, secrets), train_on)


@deployed("recommend", "The list each user gets.")
def recommend(
    settings: Settings | None = None,
    config: str | None = None,
    overrides: list[str] | None = None,
    train_on: str | None = None,
    secrets: TextsByName | None = None,
) -> Any:
    """Recommendations of the run's model, if it may serve."""
    return run_flow("recommend", "recommend", chosen_settings(settings, config, overrides, secrets), train_on)


@deployed("backfill", "A refresh for each of several days, as the sources were known then.")
def backfill(
    first: date,
    last: date,
    every_days: PositiveInt = 7,
    settings: Settings | None = None,
    config: str | None = None,
    overrides: list[str] | None = None,
    until: Until = "report",
    secrets: TextsByName | None = None,
) -> Any:
    """Day → snapshot, oldest first; a day whose model may not serve is passed over and says so in the logs."""
    chosen, when = chosen_settings(settings, config, overrides, secrets), moments(first, last, every_days)
    done: dict[str, str | None] = {}
    for moment, one in zip(when, settings_as_of(chosen, when), strict=True):
        get_run_logger().info("backfill: as of %s", moment.date())
        ended = run_flow("backfill", until, one)
        done[moment.date().isoformat()] = ended if isinstance(ended, str) else None
    return done


@deployed("reproduce", "Models trained again from their own bundles, compared bit for bit.")
def reproduce(
    snapshot: str | None = None,
    settings: Settings | None = None,
    config: str | None = None,
    overrides: list[str] | None = None,
    train_on: str | None = None,
) -> Any:
    """Fails where a second training gives other weights."""
    chosen = chosen_settings(settings, config, overrides, None)
    with opened(chosen, "reproduce", LoggedProgress(get_run_logger().info)) as workspace:
        workspace.trainer = trainer_of(train_on)
        rows = reproduced(workspace, snapshot, as_task)
    create_table_artifact(key="semalign-reproduced", table=rows, description=chosen.name)
    other = [row["label"] for row in rows if not row["same_weights"]]
    return Failed(message=f"other weights than the first time: {', '.join(other)}") if other else rows


@deployed("train-bundle", "A bundle trained by this worker; one cut off resumes.")
def train_bundle(
    bundle: str,
    arguments: list[str],
) -> Any:
    """The job that `train_on` starts; the process that trains imports nothing of Prefect or DuckDB."""
    try:
        handoff.train_bundle(Path(bundle), arguments)
    except AlreadyTrainingError as error:
        return Completed(name="Skipped", message=str(error))
    return bundle


def chosen_settings(
    settings: Settings | None, config: str | None, overrides: list[str] | None, secrets: dict[str, str] | None
) -> Settings:
    """What the parameters of a flow lead to; secrets it names are in the environment of this process afterwards."""
    for variable, block in (secrets or {}).items():
        if variable not in os.environ:
            found: Any = Secret.load(block)
            os.environ[variable] = found.get()
    return settings or load_settings(Path(config) if config else None, overrides or ())


def run_flow(name: str, until: str, settings: Settings, train_on: str | None = None) -> Any:
    """Id of the published snapshot, or a state: Skipped where another run has the lock, NotBlessed at a closed gate."""
    from warehouse import LockHeldError

    try:
        with opened(settings, name, LoggedProgress(get_run_logger().info)) as workspace:
            workspace.trainer = trainer_of(train_on)
            snapshot = refresh_until(until, settings, workspace, as_task)
            show(name, settings, workspace, snapshot)
    except LockHeldError as error:
        return Completed(name="Skipped", message=str(error))
    except NotBlessedError as error:
        return Failed(name="NotBlessed", message=str(error))
    return snapshot


def show(name: str, settings: Settings, workspace: Workspace, snapshot: str) -> None:
    """The run's artifacts: what it did, and what was asked of language models so far."""
    summary = run_summary(workspace, snapshot)
    create_markdown_artifact(key=f"semalign-{name}", markdown=summary_markdown(summary), description=settings.name)
    if costs := cost_rows(workspace.warehouse, workspace.warehouse.snapshot(snapshot)):
        create_table_artifact(key="semalign-costs", table=cost_table(costs), description=COSTS)


def as_task(step: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """The step's result, computed as a task of the running flow; tried once more when it broke for no stated reason."""

    @task(
        name=f"{step.__module__.rpartition('.')[2]}.{step.__name__}",
        persist_result=False,
        cache_policy=NO_CACHE,
        retries=1,
        retry_delay_seconds=5,
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


def trainer_of(deployment: str | None) -> handoff.HandedOver | None:
    """Trains through a deployment; None trains here."""
    return handoff.HandedOver(PoolJobs(deployment)) if deployment else None


class PoolJobs:
    """Training jobs as runs of a deployment, such as `train-bundle/gpu`; workers of its pool take them."""

    def __init__(self, deployment: str) -> None:
        self.deployment = deployment

    def submit(self, bundle: Path, arguments: Sequence[str]) -> str:
        """Id of a new flow run."""
        parameters = {"bundle": str(bundle), "arguments": list(arguments)}
        run: Any = run_deployment(self.deployment, parameters=parameters, timeout=0)
        get_run_logger().info("handed to %s as %s (%s)", self.deployment, run.name, run.id)
        return str(run.id)

    def standing(self, job: str) -> handoff.Standing:
        """What the server believes; a worker that was killed leaves `running` behind."""
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(job)).state
        if state is None or state.is_scheduled() or state.is_pending():
            return "waiting"
        return "over" if state.is_final() else "running"

    def cancel(self, job: str) -> None:
        """Asks the run's worker, if it is there, to end it."""
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(job), Cancelling(message="nobody waits for it any longer"))
