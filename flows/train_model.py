"""The flow `train-model`: whatever the models need → trained models, registered."""

from __future__ import annotations

from collections.abc import Sequence

from flows.embed_profiles import embed_profiles
from flows.ingest_sources import ingest_sources
from flows.model_choices import ModelChoice, run_choices
from flows.settings import Settings
from flows.stage import Stage, call
from flows.steps import augment, evaluate, model_checks, quality, train
from flows.steps.aspects import aspects_to_ask
from flows.steps.modalities import others_of, with_imports
from flows.steps.train import TrainingPlan
from flows.workspace import Workspace


def train_model(settings: Settings, workspace: Workspace, stage: Stage = call) -> tuple[str, TrainingPlan]:
    """Id of a snapshot that registers the run's model and its baselines, and the plan they came from."""
    choices = run_choices(settings)
    snapshot = model_inputs(settings, workspace, choices, stage)
    plan = train_all(settings, workspace, snapshot, choices, stage)
    return stage(evaluate.register_models, workspace, snapshot, plan), plan


def model_inputs(settings: Settings, workspace: Workspace, choices: Sequence[ModelChoice], stage: Stage = call) -> str:
    """Id of a snapshot with what the models read: profiles and vectors only where one of them reads language."""
    if stage(model_checks.check_models, workspace, choices, settings):
        return answers_for(choices, settings, workspace, embed_profiles(settings, workspace, stage), stage)
    return ingest_sources(settings, workspace, stage)


def answers_for(
    choices: Sequence[ModelChoice], settings: Settings, workspace: Workspace, snapshot: str, stage: Stage = call
) -> str:
    """Id of a snapshot that also holds what the models ask a language model for, and what they read of imports."""
    if aspects := aspects_to_ask(choices, settings):
        snapshot = stage(augment.augment, workspace, snapshot, settings, aspects)
    names = sorted({name for choice in choices for name in others_of(choice.mapping)} - settings.encoders.keys())
    return stage(with_imports, workspace, snapshot, names) if names else snapshot


def train_all(
    settings: Settings, workspace: Workspace, snapshot: str, choices: Sequence[ModelChoice], stage: Stage = call
) -> TrainingPlan:
    """The plan of every choice and seed, each of them trained."""
    plan = stage(train.plan_models, workspace, snapshot, choices, settings)
    if not all(train.is_trained(workspace.warehouse, model.model_id) for model in plan.everything()):
        stage(quality.refuse_bad_data, workspace, snapshot, settings.quality)
    for model in plan.everything():
        stage(train.train_model, workspace, snapshot, model, settings.profiles)
    return plan
