"""The flow `tune`: for each model the settings that do best on validation, every model within the same budget."""

from __future__ import annotations

from collections.abc import Mapping

from flows.search_space import SearchSpace
from flows.settings import Settings
from flows.stage import Stage, call
from flows.steps import quality, tune
from flows.steps.modalities import source_of_profiles
from flows.steps.search import Budget, Method, open_search
from flows.steps.tune import Tuning
from flows.train_model import model_inputs
from flows.workspace import Workspace


def tune_models(
    settings: Settings,
    workspace: Workspace,
    spaces: Mapping[str, SearchSpace],
    method: Method,
    budget: Budget,
    seed: int = 0,
    stage: Stage = call,
) -> tuple[str, Tuning]:
    """Id of the published snapshot whose registry remembers the trials, and the trials.

    Args:
        spaces: what to try of each model, by the name `--models` gives it.
        seed: of the search, not of the models.
    """
    searches = {label: open_search(method, space, budget, seed) for label, space in spaces.items()}
    choices = [choice for label, space in spaces.items() for choice in tune.extremes(label, space, settings)]
    snapshot = model_inputs(settings, workspace, choices, stage)
    stage(quality.refuse_bad_data, workspace, snapshot, settings.quality)
    upstream = workspace.warehouse.snapshot(snapshot)
    models = tuple(
        stage(tune.search_model, workspace, upstream, label, search, budget, settings)
        for label, search in searches.items()
    )
    said = {name: record["summary"] for name, record in upstream.stages.items()}
    tuning = Tuning(
        models,
        method,
        budget,
        dict(spaces),
        settings.evaluation.select_by,
        settings.evaluation.seeds,
        source_of_profiles(upstream),
        said["ingest"]["split"],
        settings.evaluation.protocol,
    )
    return stage(tune.record_tuning, workspace, snapshot, tuning, settings), tuning
