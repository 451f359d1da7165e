"""Trained models measured side by side: means over seeds, paired differences over users."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.errors import IncomparableModelsError
from flows.settings import EvaluationSettings, canonical, digest
from flows.steps.bundle import entity_ids
from flows.steps.ingest import stamp
from flows.steps.rows import strings
from flows.steps.train import PlannedModel, TrainingPlan
from flows.steps.verified import verified_metrics
from flows.workspace import Workspace

if TYPE_CHECKING:
    from warehouse import Snapshot, SnapshotBuilder, Warehouse

VERSION = 1
# The seed of rows that speak of all seeds together.
ALL_SEEDS = -1


@dataclass(frozen=True)
class ModelScore:
    """One model over its seeds: means of its metrics, how it was trained, and what stood in for texts it asks for."""

    label: str
    role: str
    name: str
    model_ids: list[str]
    reads_language: bool
    valid: dict[str, float]
    test: dict[str, float]
    seconds: float
    seconds_per_epoch: float | None
    best_epoch: float
    epochs: float
    provenance: dict[str, str]


@dataclass(frozen=True)
class Difference:
    """One model minus a reference, paired over the users both were tested on; `p_holm` is corrected for all pairs."""

    model: str
    reference: str
    metric: str
    difference: float
    relative: float | None
    low: float
    high: float
    p_value: float
    p_holm: float
    n_users: int


@dataclass(frozen=True)
class Comparison:
    """What a table of models says."""

    scores: list[ModelScore]
    differences: list[Difference]
    source: str
    split: str
    protocol: str
    select_by: str
    seeds: int

    def metrics(self) -> dict[str, dict[str, float]]:
        """label → test metric → mean over seeds."""
        return {score.label: score.test for score in self.scores}

    def plain(self) -> dict[str, Any]:
        """JSON of the whole table."""
        return {"metrics": self.metrics(), **asdict(self)}


def compare_models(
    warehouse: Warehouse, snapshot: Snapshot, plan: TrainingPlan, pairs: Sequence[tuple[str, str]], select_by: str
) -> Comparison:
    """Scores of every model of the plan, and the paired difference of each (model, reference) pair.

    A user's value is the mean over seeds, so more seeds make no more users.

    Raises:
        IncomparableModelsError: two models were not tested on the same users.
        CheckpointError: a model's files are not what training wrote.
    """
    scores = [_score(warehouse, plan.seeds_of(label)) for label in plan.labels()]
    per_user = {
        label: per_user_values(warehouse, plan.seeds_of(label), select_by)
        for label in {l for pair in pairs for l in pair}
    }
    differences = [_difference(model, reference, per_user, select_by) for model, reference in pairs]
    ingest = snapshot.stages["ingest"]["summary"]
    profile = snapshot.stages.get("profile", {}).get("summary", {})
    return Comparison(
        scores=scores,
        differences=holm(differences),
        source=profile.get("source", "none"),
        split=ingest["split"],
        protocol=str(plan.models[0].evaluation["protocol"]),
        select_by=select_by,
        seeds=len(plan.seeds_of(plan.models[0].label)),
    )


def register_models(workspace: Workspace, snapshot_id: str, plan: TrainingPlan) -> str:
    """Id of a snapshot whose registry and metrics hold every model of the plan."""
    if found := workspace.found("train", plan.key):
        return found
    started = time.monotonic()
    upstream = workspace.warehouse.snapshot(snapshot_id)
    builder = workspace.warehouse.begin(upstream)
    n_new = append_models(workspace, builder, upstream, plan)
    summary = {
        "trained": workspace.tally.trained,
        "registered": n_new,
        "settings_key": plan.settings_key,
        "models": [asdict(model) for model in plan.models],
        "earlier": [asdict(model) for model in plan.earlier],
    }
    stamp(builder, "train", plan.key, summary)
    return workspace.done("train", workspace.commit(builder), started)


def evaluate_models(workspace: Workspace, snapshot_id: str, plan: TrainingPlan, settings: EvaluationSettings) -> str:
    """Id of a snapshot that says how much better the run's model is than each of its baselines, and how surely."""
    key = digest("evaluate", VERSION, plan.key)
    if found := workspace.found("evaluate", key):
        return found
    started = time.monotonic()
    upstream = workspace.warehouse.snapshot(snapshot_id)
    comparison = compare_models(workspace.warehouse, upstream, plan, pairs_of(plan), settings.select_by)
    builder = workspace.warehouse.begin(upstream)
    append_differences(workspace, builder, comparison, plan)
    stamp(builder, "evaluate", key, comparison.plain())
    return workspace.done("evaluate", workspace.commit(builder), started)


def pairs_of(plan: TrainingPlan) -> list[tuple[str, str]]:
    """(model, reference) of a run: its model against every other, and every control against the base."""
    first, *others = plan.labels()
    roles = {model.label: model.role for model in plan.models}
    base = next((label for label in others if roles[label] == "base"), None)
    controls = [(label, base) for label in others if base and roles[label] == "control"]
    return [(first, other) for other in others] + controls


def append_models(workspace: Workspace, builder: SnapshotBuilder, upstream: Snapshot, plan: TrainingPlan) -> int:
    """How many models were new to the registry; their registry, metric and per-user rows go into the builder."""
    from warehouse import arrow_table

    known = set()
    for snapshot in (upstream, workspace.warehouse.current()):
        if snapshot is not None:
            known.update(strings(snapshot.read("model_registry", columns=["model_id"]), "model_id"))
    new = [model for model in plan.models if model.model_id not in known]
    known.update(model.model_id for model in new)
    new += [model for model in plan.earlier if model.model_id not in known]
    users = entity_ids(upstream)["users"]
    for model in new:
        directory = workspace.warehouse.inside("models", model.model_id)
        metrics = verified_metrics(directory, model.model_id)
        arrays = _arrays(workspace.warehouse, model)
        rows = {
            "model_registry": _registry_row(workspace, upstream, model, metrics),
            "metrics": _metric_rows(workspace, model, metrics, arrays),
            "metrics_per_user": _per_user_rows(workspace, model, arrays, users),
        }
        for table, columns in rows.items():
            builder.append(table, arrow_table(table, columns))
    return len(new)


def append_differences(
    workspace: Workspace, builder: SnapshotBuilder, comparison: Comparison, plan: TrainingPlan
) -> None:
    """Rows that say what the model gains over each reference; their seed is -1: they speak of all seeds."""
    from warehouse import arrow_rows

    ids = {model.label: model for model in reversed(plan.models)}
    rows = [
        {
            "run_id": workspace.run_id,
            "model": ids[gain.model].name,
            "seed": ALL_SEEDS,
            "protocol": comparison.protocol,
            "part": "test",
            "metric": f"{gain.metric.partition('@')[0]} gain over {gain.reference}",
            "k": _cutoff(gain.metric),
            "value": gain.difference,
            "low": gain.low,
            "high": gain.high,
            "label": gain.model,
            "model_id": ids[gain.model].model_id,
        }
        for gain in comparison.differences
    ]
    if rows:
        builder.append("metrics", arrow_rows("metrics", rows))


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """The differences with p-values corrected for testing several pairs (Holm's step-down)."""
    order = sorted(range(len(differences)), key=lambda position: differences[position].p_value)
    corrected, running = list(differences), 0.0
    for rank, position in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * differences[position].p_value))
        corrected[position] = replace(differences[position], p_holm=running)
    return corrected


def interval(values: np.ndarray, seed: int = 0, n_resamples: int = 500) -> tuple[float, float]:
    """95 % bootstrap interval of a mean over users."""
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(n_resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _score(warehouse: Warehouse, seeds: Sequence[PlannedModel]) -> ModelScore:
    found = [verified_metrics(warehouse.inside("models", model.model_id), model.model_id) for model in seeds]
    first = seeds[0]
    per_epoch = [metrics["seconds_per_epoch"] for metrics in found if metrics["seconds_per_epoch"]]
    return ModelScore(
        label=first.label,
        role=first.role,
        name=first.name,
        model_ids=[model.model_id for model in seeds],
        reads_language=first.reads_language,
        valid=_means([metrics["valid"] for metrics in found]),
        test=_means([metrics["test"] for metrics in found]),
        seconds=sum(metrics["seconds"] for metrics in found) / len(found),
        seconds_per_epoch=sum(per_epoch) / len(per_epoch) if per_epoch else None,
        best_epoch=sum(metrics["best_epoch"] for metrics in found) / len(found),
        epochs=sum(metrics["epochs"] for metrics in found) / len(found),
        provenance=found[0].get("provenance", {}),
    )


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: math.fsum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _arrays(warehouse: Warehouse, model: PlannedModel) -> dict[str, np.ndarray]:
    path = warehouse.inside("models", model.model_id) / "checkpoint" / "per_user.npz"
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def per_user_values(warehouse: Warehouse, seeds: Sequence[PlannedModel], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Test users and their values, averaged over seeds."""
    arrays = [_arrays(warehouse, model) for model in seeds]
    users = arrays[0]["test_user_index"]
    for model, other in zip(seeds, arrays, strict=True):
        if not np.array_equal(other["test_user_index"], users):
            raise IncomparableModelsError(model.label, seeds[0].label, f"seed {model.seed} was tested on other users")
    values = np.stack([array[f"test/{metric}"] for array in arrays]).astype(np.float64)
    return users, values.mean(axis=0)


def _difference(
    model: str, reference: str, per_user: dict[str, tuple[np.ndarray, np.ndarray]], metric: str
) -> Difference:
    from rec_models import paired_comparison

    (users, ours), (other_users, theirs) = per_user[model], per_user[reference]
    if not np.array_equal(users, other_users):
        raise IncomparableModelsError(model, reference, f"{len(users)} and {len(other_users)} users, not the same ones")
    found = paired_comparison(ours, theirs)
    relative = found.relative if math.isfinite(found.relative) else None
    return Difference(
        model,
        reference,
        metric,
        found.difference,
        relative,
        found.low,
        found.high,
        found.p_value,
        found.p_value,
        found.n_users,
    )


def _registry_row(
    workspace: Workspace, upstream: Snapshot, model: PlannedModel, metrics: dict[str, Any]
) -> dict[str, list[Any]]:
    settings = {
        "model": model.config,
        "training": model.training,
        "evaluation": model.evaluation,
        "seed": model.seed,
        "label": model.label,
    }
    kept = {
        name: metrics[name]
        for name in ("valid", "test", "best_epoch", "epochs", "seconds", "seconds_per_epoch", "device")
    }
    return {
        "model_id": [model.model_id],
        "run_id": [workspace.run_id],
        "name": [model.name],
        "snapshot": [upstream.id],
        "state": ["trained"],
        "created_at": [workspace.started_at],
        "settings": [canonical(settings)],
        "metrics": [canonical(kept)],
    }


def _metric_rows(
    workspace: Workspace, model: PlannedModel, metrics: dict[str, Any], arrays: dict[str, np.ndarray]
) -> dict[str, list[Any]]:
    rows = []
    for part in ("valid", "test"):
        for metric, value in metrics[part].items():
            values = arrays.get(f"{part}/{metric}")
            low, high = interval(values.astype(np.float64)) if values is not None and len(values) else (None, None)
            rows.append((part, metric.partition("@")[0], _cutoff(metric), value, low, high))
    columns = ("part", "metric", "k", "value", "low", "high")
    shared = {
        "run_id": workspace.run_id,
        "model": model.name,
        "seed": model.seed,
        "protocol": metrics["protocol"],
        "label": model.label,
        "model_id": model.model_id,
    }
    return {name: [value] * len(rows) for name, value in shared.items()} | {
        name: [row[place] for row in rows] for place, name in enumerate(columns)
    }


def _per_user_rows(
    workspace: Workspace, model: PlannedModel, arrays: dict[str, np.ndarray], users: Sequence[str]
) -> dict[str, Any]:
    names = [name for name in arrays if name.startswith("test/")]
    tested = [users[index] for index in arrays["test_user_index"]]
    n_rows = len(names) * len(tested)
    return {
        "run_id": [workspace.run_id] * n_rows,
        "model": [model.name] * n_rows,
        "model_id": [model.model_id] * n_rows,
        "seed": [model.seed] * n_rows,
        "part": ["test"] * n_rows,
        "user_id": tested * len(names),
        "metric": [name.removeprefix("test/").partition("@")[0] for name in names for _ in tested],
        "k": [_cutoff(name) for name in names for _ in tested],
        "value": np.concatenate([arrays[name] for name in names]).astype(np.float64),
    }


def _cutoff(metric: str) -> int | None:
    cutoff = metric.partition("@")[2]
    return int(cutoff) if cutoff else None
