"""The flow `compare`: named models side by side, on one split, with several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from flows.model_choices import ModelChoice
from flows.model_errors import NothingTrainedError
from flows.settings import Settings
from flows.stage import Stage, call
from flows.steps import scores, train
from flows.steps.evaluate import runs_of
from flows.steps.publish import record_comparison
from flows.steps.scores import Comparison
from flows.steps.train import TrainingPlan
from flows.train_model import model_inputs, train_all
from flows.workspace import Workspace


@dataclass(frozen=True)
class Compared:
    """A comparison, the models it speaks of, the snapshot they were trained on and the one that remembers them."""

    snapshot: str
    upstream: str
    plan: TrainingPlan
    comparison: Comparison


def compare_models(
    settings: Settings,
    workspace: Workspace,
    choices: Sequence[ModelChoice],
    reference: str,
    stage: Stage = call,
    only_trained: bool = False,
) -> Compared:
    """The comparison of every choice and seed, published with the history of the warehouse.

    Args:
        only_trained: nothing is trained or published, `snapshot` is the one that was read, and models that are not
            trained are named as not run.

    Raises:
        NothingTrainedError: `only_trained`, and none of the models is.
    """
    upstream = model_inputs(settings, workspace, choices, stage)
    if only_trained:
        asked = stage(train.plan_models, workspace, upstream, choices, settings)
        there = tuple(model for model in asked.models if train.is_trained(workspace.warehouse, model.model_id))
        if not there:
            raise NothingTrainedError(asked.labels())
        plan = replace(asked, models=there)
    else:
        asked = plan = train_all(settings, workspace, upstream, choices, stage)
    labels = plan.labels()
    pairs = [(label, reference) for label in labels if label != reference and reference in labels]
    trained_on = workspace.warehouse.snapshot(upstream)
    found = scores.compare_models(workspace.warehouse, trained_on, plan, pairs, settings.evaluation.select_by)
    missing = [label for label in asked.labels() if label not in labels]
    found = replace(found, seeds=settings.evaluation.seeds, not_run=missing)
    snapshot = upstream if only_trained else stage(record_comparison, workspace, upstream, plan, found, settings)
    return Compared(snapshot, upstream, plan, replace(found, runs=runs_of(workspace, plan)))
