"""The flow `compare`: named models side by side, on one split, with several seeds."""

from __future__ import annotations

from collections.abc import Sequence

from flows.model_choices import ModelChoice
from flows.settings import Settings
from flows.stage import Stage, call
from flows.steps import evaluate
from flows.steps.evaluate import Comparison
from flows.steps.publish import record_comparison
from flows.train_model import model_inputs, train_all
from flows.workspace import Workspace


def compare_models(
    settings: Settings, workspace: Workspace, choices: Sequence[ModelChoice], reference: str, stage: Stage = call
) -> tuple[str, Comparison]:
    """Id of the published snapshot that remembers the comparison, and the comparison itself."""
    snapshot = model_inputs(settings, workspace, choices, stage)
    plan = train_all(settings, workspace, snapshot, choices, stage)
    upstream = workspace.warehouse.snapshot(snapshot)
    pairs = [(label, reference) for label in plan.labels() if label != reference]
    comparison = evaluate.compare_models(workspace.warehouse, upstream, plan, pairs, settings.evaluation.select_by)
    return stage(record_comparison, workspace, snapshot, plan, comparison, settings), comparison
