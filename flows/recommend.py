"""The flow `recommend`: an evaluated model → a list for every user."""

from __future__ import annotations

from flows.evaluate_model import evaluate_model
from flows.settings import Settings
from flows.stage import Stage, call
from flows.steps.recommend import recommend_items
from flows.workspace import Workspace


def recommend(settings: Settings, workspace: Workspace, stage: Stage = call) -> str:
    """Id of a snapshot with recommendations of the run's model."""
    snapshot, plan = evaluate_model(settings, workspace, stage)
    return stage(recommend_items, workspace, snapshot, plan.models[0], settings.recommend)
