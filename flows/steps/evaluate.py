"""Trained models and what was measured of them as rows of the warehouse: registry, metrics, differences."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.settings import EvaluationSettings, canonical, digest
from flows.steps.bundle import entity_ids
from flows.steps.ingest import stamp
from flows.steps.rows import records
from flows.steps.scores import Comparison, compare_models, cutoff, interval, stored_arrays
from flows.steps.train import PlannedModel, TrainingPlan
from flows.steps.verified import verified_metrics
from flows.workspace import Workspace

if TYPE_CHECKING:
    from warehouse import Snapshot, SnapshotBuilder

VERSION = 1
# The seed of rows that speak of all seeds together.
ALL_SEEDS = -1
# Registry states of what tuning trained: tried, and tried and chosen.
TRIAL_STATES = ("trial", "chosen")


def register_models(workspace: Workspace, snapshot_id: str, plan: TrainingPlan) -> str:
    """Id of a snapshot whose registry and metrics hold every model of the plan."""
    if found := workspace.found("train", plan.key):
        return found
    started = time.monotonic() - workspace.tally.training_seconds
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

    known: set[str] = set()
    for snapshot in (upstream, workspace.warehouse.current()):
        rows = records(snapshot.read("model_registry", columns=["model_id", "state"])) if snapshot else []
        # of a trial only its validation was written down
        known.update(row["model_id"] for row in rows if row["state"] not in TRIAL_STATES)
    new = [model for model in plan.models if model.model_id not in known]
    known.update(model.model_id for model in new)
    new += [model for model in plan.earlier if model.model_id not in known]
    users = entity_ids(upstream)["users"]
    for model in new:
        directory = workspace.warehouse.inside("models", model.model_id)
        metrics = verified_metrics(directory, model.model_id)
        arrays = stored_arrays(workspace.warehouse, model)
        rows = {
            "model_registry": _registry_row(workspace, upstream, model, metrics),
            "metrics": _metric_rows(workspace, model, metrics, arrays),
            "metrics_per_user": _per_user_rows(workspace, model, arrays, users),
        }
        for table, columns in rows.items():
            builder.append(table, arrow_table(table, columns))
    return len(new)


def runs_of(workspace: Workspace, plan: TrainingPlan) -> dict[str, str]:
    """Model id → the run that registered it, as what is published now remembers; a model in no registry has none."""
    current = workspace.warehouse.current()
    if current is None:
        return {}
    wanted = {model.model_id for model in plan.models}
    rows = records(current.read("model_registry", columns=["model_id", "run_id"]))
    return {row["model_id"]: row["run_id"] for row in rows if row["model_id"] in wanted}


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
            "k": cutoff(gain.metric),
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
            rows.append((part, metric.partition("@")[0], cutoff(metric), value, low, high))
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
        "k": [cutoff(name) for name in names for _ in tested],
        "value": np.concatenate([arrays[name] for name in names]).astype(np.float64),
    }
