"""The flow `refresh`: sources → profiles → vectors → models → evaluation → recommendations → published, reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flows.build_profiles import build_profiles
from flows.embed_profiles import embed_profiles
from flows.embedding_sets import embedding_sets
from flows.errors import SettingValueError, UnknownStageError
from flows.evaluate_model import evaluate_model
from flows.ingest_sources import ingest_sources
from flows.model_choices import run_choices
from flows.recommend import recommend
from flows.settings import Settings
from flows.stage import Stage, call
from flows.steps import augment, embed, evaluate, first_look, ingest, model_checks, profile, promote, publish, report
from flows.steps.aspects import has_language_model
from flows.steps.recommend import recommend_items
from flows.train_model import answers_for, train_all, train_model
from flows.workspace import STAGES, Workspace


def refresh(settings: Settings, workspace: Workspace, stage: Stage = call) -> str:
    """Id of the published snapshot, brought up to the sources and settings of now; what is done already is kept."""
    choices, sets = run_choices(settings), embedding_sets(settings)
    stage(model_checks.check_models, workspace, choices, settings)
    stage(first_look.check_engine, workspace, settings.profiles)
    stage(first_look.check_encoders, workspace, sets)
    snapshot = stage(ingest.ingest, workspace, settings.source, settings.split)
    stage(first_look.check_texts, workspace, snapshot, sets)
    snapshot = stage(profile.build_profiles, workspace, snapshot, settings.profiles)
    snapshot = stage(embed.embed_profiles, workspace, snapshot, sets)
    snapshot = answers_for(choices, settings, workspace, snapshot, stage)
    plan = train_all(settings, workspace, snapshot, choices, stage)
    snapshot = stage(evaluate.register_models, workspace, snapshot, plan)
    snapshot = stage(evaluate.evaluate_models, workspace, snapshot, plan, settings.evaluation)
    snapshot = stage(recommend_items, workspace, snapshot, plan.models[0], settings.recommend)
    snapshot = stage(promote.judge, workspace, snapshot, plan, settings)
    published = stage(publish.publish, workspace, snapshot, settings)
    stage(report.write_report, workspace, published, settings)
    return published


def refresh_until(last: str, settings: Settings, workspace: Workspace, stage: Stage = call) -> str:
    """Id of the published snapshot of a run that ends with the stage `last`; earlier stages run as it needs them.

    Raises:
        UnknownStageError: no stage has that name.
    """
    if last == "report":
        return refresh(settings, workspace, stage)
    if last not in _UNTIL:
        raise UnknownStageError(last, STAGES)
    snapshot = _UNTIL[last](settings, workspace, stage)
    return stage(publish.publish, workspace, snapshot, settings)


def answer_again(settings: Settings, workspace: Workspace, aspects: Sequence[str], stage: Stage = call) -> str:
    """Id of the published snapshot of a run that ends with the questions of these aspects.

    Raises:
        SettingValueError: the engine is none that can be asked.
    """
    if not has_language_model(settings):
        problem = f"it asks no language model; name the engine whose answers to {', '.join(aspects)} were put aside"
        raise SettingValueError("profiles.engine.name", "attributes", problem)
    snapshot = embed_profiles(settings, workspace, stage)
    snapshot = stage(augment.augment, workspace, snapshot, settings, aspects)
    return stage(publish.publish, workspace, snapshot, settings)


_UNTIL: dict[str, Callable[[Settings, Workspace, Stage], str]] = {
    "ingest": ingest_sources,
    "profile": build_profiles,
    "embed": embed_profiles,
    "train": lambda settings, workspace, stage: train_model(settings, workspace, stage)[0],
    "evaluate": lambda settings, workspace, stage: evaluate_model(settings, workspace, stage)[0],
    "recommend": recommend,
    "promote": recommend,
}
