"""The flow `evaluate-model`: trained models → how much better the run's model is than its baselines."""

from __future__ import annotations

from flows.settings import Settings
from flows.stage import Stage, call
from flows.steps import evaluate
from flows.steps.train import TrainingPlan
from flows.train_model import train_model
from flows.workspace import Workspace


def evaluate_model(settings: Settings, workspace: Workspace, stage: Stage = call) -> tuple[str, TrainingPlan]:
    """Id of a snapshot with the comparison, and the plan of what was compared."""
    snapshot, plan = train_model(settings, workspace, stage)
    return stage(evaluate.evaluate_models, workspace, snapshot, plan, settings.evaluation), plan
