"""The flow `compare`: named models side by side, on one split, with several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flows.model_choices import ModelChoice
from flows.model_errors import NothingTrainedError
from flows.settings import Settings
from flows.stage import Stage, call
from flows.steps import scores, train
from flows.steps.evaluate import runs_of
from flows.steps.publish import record_comparison
from flows.steps.scores import Comparison
from flows.train_model import model_inputs, train_all
from flows.workspace import Workspace


def compare_models(
    settings: Settings,
    workspace: Workspace,
    choices: Sequence[ModelChoice],
    reference: str,
    stage: Stage = call,
    only_trained: bool = False,
) -> tuple[str, Comparison]:
    """Id of the published snapshot that remembers the comparison, and the comparison itself.

    Args:
        only_trained: nothing is trained or published; the id is of the snapshot that was read, and models that are not
            trained are named as not run.

    Raises:
        NothingTrainedError: `only_trained`, and none of the models is.
    """
    snapshot = model_inputs(settings, workspace, choices, stage)
    if only_trained:
        asked = stage(train.plan_models, workspace, snapshot, choices, settings)
        there = tuple(model for model in asked.models if train.is_trained(workspace.warehouse, model.model_id))
        if not there:
            raise NothingTrainedError(asked.labels())
        plan = replace(asked, models=there)
    else:
        asked = plan = train_all(settings, workspace, snapshot, choices, stage)
    upstream = workspace.warehouse.snapshot(snapshot)
    pairs = [(label, reference) for label in plan.labels() if label != reference and reference in plan.labels()]
    found = scores.compare_models(workspace.warehouse, upstream, plan, pairs, settings.evaluation.select_by)
    missing = [label for label in asked.labels() if label not in plan.labels()]
    found = replace(found, seeds=settings.evaluation.seeds, not_run=missing)
    if not only_trained:
        snapshot = stage(record_comparison, workspace, snapshot, plan, found, settings)
    return snapshot, replace(found, runs=runs_of(workspace, plan))
