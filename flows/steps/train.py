"""Models trained in processes of their own, each found again by what it was trained on and how."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.embedding_sets import PROFILE, PROFILES
from flows.errors import CheckpointError
from flows.model_choices import ModelChoice, clusters_of, earlier_choice
from flows.progress import duration
from flows.settings import PlainMapping, ProfileSettings, Settings, WordSettings, digest
from flows.steps.bundle import (
    answered_aspects,
    aspect_sources,
    chosen_edges,
    entity_ids,
    inputs_key,
    interaction_parts,
    modality_sources,
)
from flows.steps.clusters import item_clusters_of
from flows.steps.guard import refuse_leaks, refuse_leaks_of_answers, refuse_thin_vectors
from flows.steps.modalities import content_keys, modalities_of, others_of
from flows.steps.model_checks import parsed_settings, refuse_protocol, settings_key, words_of
from flows.steps.split import PARTS
from flows.steps.training_process import OnEvent, place_of_work, run_rec_models, together
from flows.steps.verified import verified_metrics
from flows.steps.warm import earlier_model
from flows.steps.words import word_source
from flows.workspace import Workspace

if TYPE_CHECKING:
    from rec_models import SemanticSource, WordSource
    from warehouse import Snapshot, Warehouse

VERSION = 1


@dataclass(frozen=True)
class PlannedModel:
    """One model to train with one seed; `model_id` names data, settings and seed, so a trained one is found again.

    Attributes:
        built_on: id of the model whose item vectors this one's item clusters are made of, or None.
        needed_by: labels of the models that are built on this one, in words.
        words: [words] as the model's words of items are counted; empty for a model that reads none.
        rated: parts of the interactions whose values are ratings.
    """

    label: str
    role: str
    name: str
    seed: int
    model_id: str
    reads_language: bool
    config: PlainMapping
    training: PlainMapping
    evaluation: PlainMapping
    built_on: str | None = None
    needed_by: str = ""
    words: PlainMapping = field(default_factory=dict)
    rated: Sequence[str] = ()

    @property
    def reads_profiles(self) -> bool:
        """Whether it needs the profile stage: for vectors, or for words."""
        return self.reads_language or PROFILE in self.words.get("texts", ())

    def title(self) -> str:
        """The label, and what it is trained for where that is another model."""
        return (
            f"{self.label}, whose item vectors make the clusters of {self.needed_by}," if self.needed_by else self.label
        )


@dataclass(frozen=True)
class TrainingPlan:
    """The models of one command; `key` names the plan before any model setting was validated.

    Attributes:
        earlier: trained before the models, because some of them are built on these; compared with nothing.
    """

    key: str
    settings_key: str
    models: tuple[PlannedModel, ...]
    earlier: tuple[PlannedModel, ...] = ()

    def everything(self) -> list[PlannedModel]:
        """All that is trained, in that order; what others are built on may also be among the models."""
        return [*self.earlier, *self.models]

    def labels(self) -> list[str]:
        return list(dict.fromkeys(model.label for model in self.models))

    def seeds_of(self, label: str) -> list[PlannedModel]:
        return [model for model in self.models if model.label == label]


def plan_models(
    workspace: Workspace, snapshot_id: str, choices: Sequence[ModelChoice], settings: Settings
) -> TrainingPlan:
    """What is to be trained, every model setting validated before anything is trained.

    A plan that a snapshot has seen through is read from it, which needs no torch.

    Raises:
        UnknownModelError, ModelSettingsError: from rec_models, with the known names and options.
    """
    snapshot = workspace.warehouse.snapshot(snapshot_id)
    key = plan_key(snapshot, choices, settings)
    seen = workspace.warehouse.find_stage("train", key)
    if seen is not None:
        plan = stored_plan(seen)
        if all(is_trained(workspace.warehouse, model.model_id) for model in plan.everything()):
            return plan
    return planned(snapshot, choices, settings)


def plan_key(snapshot: Snapshot, choices: Sequence[ModelChoice], settings: Settings) -> str:
    """The plan by its plain mappings, and by the stage whose tables it is trained on."""
    upstream = snapshot.stages.get("embed", snapshot.stages["ingest"])["key"]
    # a stage under an unchanged key has other answers after a retry
    answers = [answered_aspects(snapshot, name) for name in sorted({choice.name for choice in choices})]
    said: list[Mapping[str, str | None]] = [found for found in answers if found]
    # what was imported is part of no stage's key
    if others := {name for choice in choices for name in others_of(choice.mapping)}:
        said.append(content_keys(snapshot, sorted(others)))
    key = settings_key(choices, settings)
    counted = [settings.words.model_dump(mode="json")] if settings.words != WordSettings() else []
    return digest("train", VERSION, upstream, key, settings.profiles.min_coverage, *([said] if said else []), *counted)


def planned(snapshot: Snapshot, choices: Sequence[ModelChoice], settings: Settings) -> TrainingPlan:
    """Every choice with every seed, validated, under its model id, and what some of them are built on.

    Raises:
        ProtocolError, HeldOutUsersError: from rec_models, where users are held out and that does not fit.
    """
    seeds = range(settings.evaluation.seeds)
    first = earlier_choice(choices, settings)
    refuse_protocol(settings, "n_fold_in" in snapshot.stages["ingest"]["summary"], choices)
    below = [_planned(snapshot, first, seed, settings) for seed in seeds] if first else []
    models = tuple(
        _planned(snapshot, choice, seed, settings, below[seed] if below else None)
        for choice in choices
        for seed in seeds
    )
    needed_by = ", ".join(choice.label for choice in choices if clusters_of(choice.mapping) > 1)
    earlier = tuple(replace(model, needed_by=needed_by) for model in below)
    return TrainingPlan(plan_key(snapshot, choices, settings), settings_key(choices, settings), models, earlier)


def stored_plan(snapshot: Snapshot) -> TrainingPlan:
    """The plan that a snapshot has seen through."""
    stage = snapshot.stages["train"]
    models, earlier = (
        tuple(PlannedModel(**row) for row in stage["summary"].get(name, ())) for name in ("models", "earlier")
    )
    return TrainingPlan(stage["key"], stage["summary"]["settings_key"], models, earlier)


def _planned(
    snapshot: Snapshot,
    choice: ModelChoice,
    seed: int,
    settings: Settings,
    below: PlannedModel | None = None,
) -> PlannedModel:
    from rec_models import parse_config, parse_evaluation

    training, evaluation = parsed_settings(settings, choice.training)
    config = parse_config(choice.mapping)
    mapping = config.model_dump(mode="json")
    built_on = below.model_id if below is not None and clusters_of(mapping) > 1 else None
    words = words_of(choice, settings).model_dump(mode="json") if config.asks_for_words else {}
    answers = answered_aspects(snapshot, choice.name)
    rated = () if not parse_evaluation(evaluation).reads_ratings else ("valid", "test")
    rated = PARTS if config.asks_for_ratings else rated
    inputs = inputs_key(snapshot, config.asks_for_language, answers, modalities_of(mapping), words, bool(rated))
    facts = [inputs, mapping, training, evaluation, seed]
    model_id = digest("model", VERSION, *facts, *([built_on] if built_on else []))[:16]
    named = (choice.label, choice.role, choice.name, seed, model_id, config.asks_for_language)
    return PlannedModel(*named, mapping, training, evaluation, built_on, words=words, rated=rated)


def train_model(
    workspace: Workspace, snapshot_id: str, model: PlannedModel, profiles: ProfileSettings, tells_test: bool = True
) -> str:
    """Id of the trained model; a model that is there is not trained again, one cut short goes on where it stood.

    Args:
        tells_test: False keeps test figures out of the progress, where they could be chosen by.

    Raises:
        LeakedEvidenceError, StaleEvidenceError, CoverageError: the profiles may not be trained on; nothing was trained.
        TrainingFailedError: the process ended badly; its exit code is carried over.
    """
    warehouse = workspace.warehouse
    final = warehouse.inside("models", model.model_id)
    snapshot = warehouse.snapshot(snapshot_id)
    if model.reads_profiles:  # today's limit, for a trained model too
        modalities = modalities_of(model.config) if model.reads_language else (PROFILES,)
        refuse_thin_vectors(snapshot, model.label, modalities, profiles.min_coverage)
    if is_trained(warehouse, model.model_id):
        return model.model_id
    started, snapshot = time.monotonic(), snapshot.doubting()
    if model.reads_profiles:
        _check_language(workspace, snapshot, profiles)
    partial = warehouse.inside("models", f"{model.model_id}.partial")
    _prepare_bundle(workspace, snapshot, model, partial)
    metrics = _finished(partial, model.model_id)
    if metrics is None:
        arguments = ["train", str(partial), *place_of_work(workspace), *together(workspace)]
        trainer = workspace.trainer or run_rec_models
        trainer(model.title(), arguments, partial / "train.log", follow(workspace, model, tells_test=tells_test))
        metrics = verified_metrics(partial, model.model_id)
    _describe(partial, snapshot, model, metrics)
    if final.exists():
        shutil.rmtree(final)
    warehouse.install_directory(partial, final)
    workspace.tally.trained += 1
    workspace.tally.training_seconds += time.monotonic() - started
    return model.model_id


def _finished(partial: Path, model_id: str) -> dict[str, Any] | None:
    """Metrics of a training that came to its end in a run that was cut off before the model had its place."""
    if not (partial / "checkpoint" / "sha256.json").is_file():
        return None
    try:
        return verified_metrics(partial, model_id)
    except CheckpointError:
        return None


def is_trained(warehouse: Warehouse, model_id: str) -> bool:
    """Whether a finished model of that id is there."""
    return (warehouse.inside("models", model_id) / "checkpoint" / "sha256.json").is_file()


def _check_language(workspace: Workspace, snapshot: Snapshot, profiles: ProfileSettings) -> None:
    if snapshot.id not in workspace.guarded:
        workspace.progress.note("train: checking that no profile has seen validation or test interactions")
        refuse_leaks(snapshot, profiles)
        refuse_leaks_of_answers(snapshot, profiles)
        workspace.guarded.add(snapshot.id)


def _prepare_bundle(workspace: Workspace, snapshot: Snapshot, model: PlannedModel, partial: Path) -> None:
    """A whole bundle at `partial`; the one of a run that was cut off is kept, so that its training resumes."""
    from rec_models import Bundle, RecModelsError, write_bundle
    from warehouse import make_directory

    if partial.exists():
        try:
            Bundle.open(partial)
            return
        except (RecModelsError, OSError, ValueError):
            shutil.rmtree(partial)  # cut off while it was written
    make_directory(partial.parent)
    ids = entity_ids(snapshot)
    clusters = None
    if model.built_on:
        clusters = item_clusters_of(workspace, model.built_on, clusters_of(model.config), model.seed, model.label)
    parts, warm = interaction_parts(snapshot, ids, model.rated, _liked(model)), None
    if model.training.get("warm_start"):
        warm = earlier_model(workspace, model.model_id, {"model": model.config, "seed": model.seed}, ids, parts)
    write_bundle(
        partial,
        parts=parts,
        semantic=_semantic(workspace.warehouse, snapshot, ids, model),
        user_ids=ids["users"],
        item_ids=ids["items"],
        model=model.config,
        training=model.training,
        evaluation=model.evaluation,
        seed=model.seed,
        about={
            "model_id": model.model_id,
            "label": model.label,
            "snapshot": snapshot.id,
            **({"item_clusters_from": model.built_on} if model.built_on else {}),
        },
        item_clusters=clusters,
        edges=chosen_edges(snapshot, ids, model.name),
        text=_words(workspace, snapshot, ids, model),
        warm=warm,
    )


def _liked(model: PlannedModel) -> float | None:
    """What a rating must be for a model that reads none to learn from it: what it must be to be found."""
    return None if PARTS[0] in model.rated else model.evaluation.get("relevant_rating")


def _words(
    workspace: Workspace, snapshot: Snapshot, ids: Mapping[str, list[str]], model: PlannedModel
) -> WordSource | None:
    if not model.words:
        return None
    settings, scratch = WordSettings.model_validate(model.words), f"words-{workspace.run_id}"
    return word_source(workspace.warehouse, snapshot, ids["items"], settings, scratch)


def _semantic(
    warehouse: Warehouse, snapshot: Snapshot, ids: Mapping[str, list[str]], model: PlannedModel
) -> dict[str, SemanticSource]:
    """The modalities that the model reads, and what it asked for beside them."""
    if not model.reads_language:
        return {}
    dtype, names = model.training["semantic_dtype"], modalities_of(model.config)
    found = modality_sources(warehouse, snapshot, ids, names, dtype, model.label)
    return found | aspect_sources(warehouse, snapshot, ids, model.name, dtype)


def follow(workspace: Workspace, model: PlannedModel, what: str = "train", tells_test: bool = False) -> OnEvent:
    """Turns the process's events into progress: epochs of an upper bound, the best validation so far, speed."""
    label = f"{what} {model.label} seed {model.seed}"
    select_by = model.evaluation["select_by"]
    best: dict[str, float] = {}

    def on_event(event: Mapping[str, Any]) -> None:
        if event["event"] == "valid" and event.get("best"):
            best.update({"value": event[select_by], "epoch": event["epoch"]})
        elif event["event"] == "resume":
            if "best_epoch" in event:
                best.update({"value": event["best_value"], "epoch": event["best_epoch"]})
            workspace.progress.note(f"{label}: goes on with epoch {event['epoch']}")
        elif event["event"] == "discarded":
            workspace.progress.note(f"{label}: {event['message']}")
        elif event["event"] == "epoch":
            found = f", best {select_by} {best['value']:.4f} at epoch {best['epoch']:.0f}" if best else ""
            detail = f"{duration(event['seconds'])}/epoch{found}, at most {model.training['epochs']} epochs"
            workspace.progress.advance(label, event["epoch"] + 1, None, detail)
        elif event["event"] == "done" and event["epochs"]:
            workspace.progress.advance(label, event["epochs"], event["epochs"], f"best epoch {event['best_epoch']}")
        elif event["event"] == "test" and tells_test:
            figures = ", ".join(
                f"{name} {value:.4f}"
                for name, value in event["metrics"].items()
                if isinstance(value, float) and ("@" in name or name == "rmse")
            )
            workspace.progress.note(f"{label}: test {figures}")

    workspace.progress.note(f"{label}: starting ({model.model_id})")
    return on_event


def _describe(directory: Path, snapshot: Snapshot, model: PlannedModel, metrics: Mapping[str, Any]) -> None:
    """Adds what a reader of the folder needs: which index is which id, and what this is."""
    from warehouse import arrow_table, write_parquet

    ids = entity_ids(snapshot)
    kinds = [kind for kind in ("user", "item") for _ in ids[f"{kind}s"]]
    indices = [index for kind in ("users", "items") for index in range(len(ids[kind]))]
    id_map = arrow_table(None, {"kind": kinds, "index": indices, "id": ids["users"] + ids["items"]})
    (directory / "id_map.parquet").unlink(missing_ok=True)
    write_parquet(directory / "id_map.parquet", id_map)
    figures = "\n".join(
        [f"* test {name}: {value:.4f}" for name, value in metrics["test"].items()]
        + [f"* {what}: {whose}" for what, whose in metrics.get("provenance", {}).items()]
    )
    text = (
        f"# {model.label}, seed {model.seed}\n\nModel `{model.model_id}`, trained on snapshot `{snapshot.id}` "
        f"under protocol `{metrics['protocol']}`.\n\n{figures}\n\n`checkpoint/` holds weights (safetensors), "
        f"settings and metrics; the rest is the bundle it was trained on. `id_map.parquet` maps indices to ids.\n"
        f"Measure it again: `python -m rec_models evaluate {model.model_id}`\n"
    )
    (directory / "README.md").write_text(text, encoding="utf-8")
