"""The flow `recommend`: an evaluated model → a list for every user → whether the model may serve."""

from __future__ import annotations

from flows.evaluate_model import evaluate_model
from flows.settings import Settings
from flows.stage import Stage, call
from flows.steps.promote import judge
from flows.steps.recommend import recommend_items
from flows.workspace import Workspace


def recommend(settings: Settings, workspace: Workspace, stage: Stage = call) -> str:
    """Id of a snapshot with recommendations of the run's model, judged against the one that serves."""
    snapshot, plan = evaluate_model(settings, workspace, stage)
    snapshot = stage(recommend_items, workspace, snapshot, plan.models[0], settings.recommend)
    return stage(judge, workspace, snapshot, plan, settings)
