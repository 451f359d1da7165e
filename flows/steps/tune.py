"""Search on validation: which settings to try next, what each was worth, and the record of it in the registry."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flows.errors import TrainingFailedError
from flows.model_choices import ModelChoice, expand
from flows.model_errors import AllTrialsFailedError
from flows.search_space import SearchSpace
from flows.settings import PlainMapping, Settings, canonical
from flows.steps.evaluate import TRIAL_STATES
from flows.steps.publish import append_run
from flows.steps.rows import records
from flows.steps.search import Budget, Method, Search, drawn
from flows.steps.train import PlannedModel, is_trained, planned, train_model
from flows.steps.verified import verified_metrics
from flows.workspace import Workspace

if TYPE_CHECKING:
    from warehouse import Snapshot

# The exit code of a training that diverged.
_DIVERGED = 4
AS_IT_STANDS = "as it stands"


@dataclass(frozen=True)
class Trial:
    """One combination that was tried.

    Attributes:
        valid: mean of the selecting metric on validation over seeds; None where training failed.
        seconds: of training, all seeds together, whenever it happened.
        state: `trained` now, `found` trained before, `failed`.
    """

    label: str
    values: dict[str, object]
    valid: float | None
    seconds: float
    best_epoch: float | None
    state: Literal["trained", "found", "failed"]
    models: tuple[PlannedModel, ...] = field(repr=False, default=())


@dataclass(frozen=True)
class TunedModel:
    """What the search found for one model: every trial in its order, and the choice to make."""

    label: str
    choice: ModelChoice
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The trial that was chosen."""
        return best_of(self.trials)


@dataclass(frozen=True)
class Tuning:
    """One call's searches, and the facts under which their numbers compare."""

    models: tuple[TunedModel, ...]
    method: str
    budget: Budget
    spaces: dict[str, SearchSpace]
    select_by: str
    seeds: int
    source: str
    split: str
    protocol: str

    def plain(self) -> dict[str, Any]:
        """JSON of all trials and of what was chosen."""
        shown = ("method", "select_by", "seeds", "source", "split", "protocol")
        models = {
            tuned.label: {
                "chosen": _plain_trial(tuned.best),
                "settings": tuned.choice.mapping,
                "training": tuned.choice.training,
                "trials": [_plain_trial(trial) for trial in tuned.trials],
            }
            for tuned in self.models
        }
        spaces = {label: space.plain() for label, space in self.spaces.items()}
        return {name: getattr(self, name) for name in shown} | {
            "budget": asdict(self.budget),
            "spaces": spaces,
            "models": models,
        }


def best_of(trials: Sequence[Trial]) -> Trial:
    """The trial with the best validation, of equals the first."""
    return max(trials, key=lambda trial: -math.inf if trial.valid is None else trial.valid)


def choice_of(label: str, values: Mapping[str, object], settings: Settings) -> ModelChoice:
    """The model of `--models` with a combination laid over it."""
    [choice] = expand(label, settings, [(option, [value]) for option, value in values.items()])
    return choice


def foreseen(label: str, space: SearchSpace, budget: Budget, method: Method, settings: Settings) -> list[ModelChoice]:
    """The trials as far as they are known before the first; as many random ones stand for those of `tpe`."""
    source = space.combinations() if method == "grid" else itertools.chain([{}], drawn(space, 0))
    return [choice_of(label, values, settings) for values in itertools.islice(source, budget.trials or 1)]


def extremes(label: str, space: SearchSpace, settings: Settings) -> list[ModelChoice]:
    """Models that take each end of each option once: what is wrong with a space shows here, before it costs."""
    return [choice_of(label, {axis.option: value}, settings) for axis in space.axes for value in axis.ends()]


def search_model(
    workspace: Workspace, snapshot: Snapshot, label: str, search: Search, budget: Budget, settings: Settings
) -> TunedModel:
    """Trials until the budget is spent or nothing is left to try.

    A trial whose training diverges is a failed trial; anything else that goes wrong ends the search, resumable.

    Raises:
        AllTrialsFailedError: none of the trials could be trained.
    """
    trials: list[Trial] = []
    while budget.allows(len(trials), sum(trial.seconds for trial in trials)):
        values = search.propose()
        if values is None:
            break
        trial = _tried(workspace, snapshot, choice_of(label, values, settings), values, settings)
        search.learn(trial.valid)
        trials.append(trial)
        worth = "failed" if trial.valid is None else f"{settings.evaluation.select_by} {trial.valid:.4f}"
        best = best_of(trials).valid
        shown = "none yet" if best is None else f"{best:.4f}"
        workspace.progress.note(f"tune {label}, {len(trials)}: {values_in_words(values)}: valid {worth}, best {shown}")
    if all(trial.valid is None for trial in trials):
        raise AllTrialsFailedError(label, len(trials))
    return TunedModel(label, choice_of(label, best_of(trials).values, settings), tuple(trials))


def record_tuning(workspace: Workspace, snapshot_id: str, tuning: Tuning, settings: Settings) -> str:
    """Id of the published snapshot whose registry holds every trial; of a trial only validation is written down."""
    from warehouse import arrow_rows

    warehouse, current = workspace.warehouse, workspace.warehouse.current()
    upstream = warehouse.snapshot(snapshot_id)
    rows = list(_registry_rows(workspace, upstream, tuning))
    if current is not None:
        columns = ["model_id", "state"]
        known = {(row["model_id"], row["state"]) for row in records(current.read("model_registry", columns=columns))}
        rows = [row for row in rows if (row["model_id"], row["state"]) not in known]
        if not rows and workspace.tally.committed == 0:
            return current.id
    builder = warehouse.begin(current or (None if settings.source.screen else upstream))
    if rows:
        builder.append("model_registry", arrow_rows("model_registry", rows))
    mark = append_run(workspace, builder, settings, 0)
    return warehouse.publish(workspace.commit(builder, mark)).id


def _tried(
    workspace: Workspace, snapshot: Snapshot, choice: ModelChoice, values: dict[str, object], settings: Settings
) -> Trial:
    plan = planned(snapshot, [choice], settings)
    models = plan.models
    there = all(is_trained(workspace.warehouse, model.model_id) for model in models)
    started = time.monotonic()
    try:
        for model in plan.everything():
            train_model(workspace, snapshot.id, model, settings.profiles, tells_test=False)
    except TrainingFailedError as error:
        if error.exit_code != _DIVERGED:
            raise
        return Trial(choice.label, values, None, time.monotonic() - started, None, "failed", models)
    found = [verified_metrics(workspace.warehouse.inside("models", m.model_id), m.model_id) for m in models]
    valid = float(np.mean([metrics["valid"][settings.evaluation.select_by] for metrics in found]))
    epoch = float(np.mean([metrics["best_epoch"] for metrics in found])) if found[0]["epochs"] else None
    seconds = sum(metrics["seconds"] for metrics in found)
    return Trial(choice.label, values, valid, seconds, epoch, "found" if there else "trained", models)


def _registry_rows(workspace: Workspace, upstream: Snapshot, tuning: Tuning) -> Iterator[dict[str, Any]]:
    for tuned in tuning.models:
        for number, trial in enumerate(tuned.trials):
            if trial.valid is None:
                continue
            about = {
                "trial": number,
                "values": trial.values,
                "method": tuning.method,
                "budget": tuning.budget.words(),
                "space": tuning.spaces[tuned.label].plain(),
                "select_by": tuning.select_by,
            }
            for model in trial.models:
                yield _registry_row(workspace, upstream, model, about, TRIAL_STATES[trial is tuned.best])


def _registry_row(
    workspace: Workspace, upstream: Snapshot, model: PlannedModel, about: PlainMapping, state: str
) -> dict[str, Any]:
    metrics = verified_metrics(workspace.warehouse.inside("models", model.model_id), model.model_id)
    kept = ("valid", "best_epoch", "epochs", "seconds", "seconds_per_epoch", "device")
    names = ("config", "training", "evaluation", "seed", "label")
    settings = {"model" if name == "config" else name: getattr(model, name) for name in names}
    return {
        "model_id": model.model_id,
        "run_id": workspace.run_id,
        "name": model.name,
        "snapshot": upstream.id,
        "state": state,
        "created_at": workspace.started_at,
        "settings": canonical(settings | {"tuning": about}),
        "metrics": canonical({name: metrics[name] for name in kept}),
    }


def _plain_trial(trial: Trial) -> dict[str, Any]:
    shown = ("label", "values", "valid", "seconds", "best_epoch", "state")
    return {name: getattr(trial, name) for name in shown} | {"model_ids": [model.model_id for model in trial.models]}


def values_in_words(values: Mapping[str, object]) -> str:
    """What a trial changed."""
    return ", ".join(f"{option}={value}" for option, value in values.items()) or AS_IT_STANDS
