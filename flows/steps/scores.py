"""Trained models measured side by side: means over seeds with their spread, paired differences over users."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.errors import IncomparableModelsError
from flows.steps.modalities import source_of_profiles
from flows.steps.train import PlannedModel, TrainingPlan
from flows.steps.verified import verified_metrics

if TYPE_CHECKING:
    from warehouse import Snapshot, Warehouse

# What the history of any model has for each epoch; all else of a validation pass is the model's own.
_OF_EPOCHS = {"epoch", "loss", "terms", "seconds"}


@dataclass(frozen=True)
class ModelScore:
    """One model over its seeds: means of its metrics, and how it was trained.

    Attributes:
        provenance: what stood in for texts that the model asks for.
        diagnostics: what a model trained in epochs reports of itself beside each validation, such as how far its texts
            lie from its IDs: at the first pass and at the best one, means over seeds.
        intervals: 95 % of the test means over users, for the metrics at the cut-off that selects.
        spread: standard deviation of the test means over seeds; empty where there is one seed.
    """

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
    provenance: dict[str, str] = field(default_factory=dict)
    diagnostics: dict[str, tuple[float, float]] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)


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
    """What a table of models says.

    Attributes:
        seeds: how many every model should have; one that has fewer says so by its `model_ids`.
        not_run: labels that were asked for and are not trained.
        runs: model id → the run that trained it.
    """

    scores: list[ModelScore]
    differences: list[Difference]
    source: str
    split: str
    protocol: str
    select_by: str
    seeds: int
    not_run: list[str] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)

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
    scores = [_score(warehouse, plan.seeds_of(label), select_by) for label in plan.labels()]
    per_user = {
        label: per_user_values(warehouse, plan.seeds_of(label), select_by)
        for label in {l for pair in pairs for l in pair}
    }
    differences = [_difference(model, reference, per_user, select_by) for model, reference in pairs]
    ingest = snapshot.stages["ingest"]["summary"]
    return Comparison(
        scores=scores,
        differences=holm(differences),
        source=source_of_profiles(snapshot),
        split=ingest["split"],
        protocol=str(plan.models[0].evaluation["protocol"]),
        select_by=select_by,
        seeds=len(plan.seeds_of(plan.models[0].label)),
    )


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """The differences with p-values corrected for testing several pairs."""
    corrected = holm_adjusted([found.p_value for found in differences])
    return [replace(found, p_holm=p_value) for found, p_value in zip(differences, corrected, strict=True)]


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Each p-value corrected for all of them being tested (Holm's step-down), in their order."""
    corrected, running = list(p_values), 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[position]))
        corrected[position] = running
    return corrected


def interval(values: np.ndarray, seed: int = 0, n_resamples: int = 500) -> tuple[float, float]:
    """95 % bootstrap interval of a mean over users."""
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(n_resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _score(warehouse: Warehouse, seeds: Sequence[PlannedModel], select_by: str) -> ModelScore:
    found = [verified_metrics(warehouse.inside("models", model.model_id), model.model_id) for model in seeds]
    first = seeds[0]
    shown = [name for name in per_user_metrics(warehouse, seeds) if cutoff(name) == cutoff(select_by)]
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
        diagnostics=_diagnostics(found, select_by),
        intervals={name: interval(per_user_values(warehouse, seeds, name)[1]) for name in sorted(shown)},
        spread=_spread([metrics["test"] for metrics in found]),
    )


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: math.fsum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _diagnostics(found: Sequence[dict[str, Any]], select_by: str) -> dict[str, tuple[float, float]]:
    """Name → (at the first validation pass, at the best one), of what every pass of every seed has."""
    passes = [[row for row in metrics["history"] if select_by in row] for metrics in found]
    if not all(passes):
        return {}
    named = set.intersection(*(set(row) for rows in passes for row in rows)) - _OF_EPOCHS - {select_by}
    ends = [(rows[0], max(rows, key=lambda row: row[select_by])) for rows in passes]
    return {
        name: (
            math.fsum(first[name] for first, _ in ends) / len(ends),
            math.fsum(best[name] for _, best in ends) / len(ends),
        )
        for name in sorted(named)
    }


def _spread(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Standard deviation of each metric over seeds, of a sample."""
    if len(rows) < 2:
        return {}
    return {name: float(np.std([row[name] for row in rows], ddof=1)) for name in rows[0]}


def stored_arrays(warehouse: Warehouse, model: PlannedModel) -> dict[str, np.ndarray]:
    """What `per_user.npz` of a trained model holds."""
    path = warehouse.inside("models", model.model_id) / "checkpoint" / "per_user.npz"
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def per_user_values(warehouse: Warehouse, seeds: Sequence[PlannedModel], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Test users and their values, averaged over seeds."""
    arrays = [stored_arrays(warehouse, model) for model in seeds]
    users = arrays[0]["test_user_index"]
    for model, other in zip(seeds, arrays, strict=True):
        if not np.array_equal(other["test_user_index"], users):
            raise IncomparableModelsError(model.label, seeds[0].label, f"seed {model.seed} was tested on other users")
    values = np.stack([array[f"test/{metric}"] for array in arrays]).astype(np.float64)
    return users, values.mean(axis=0)


def per_user_metrics(warehouse: Warehouse, seeds: Sequence[PlannedModel]) -> set[str]:
    """The test metrics that have a value a user; the others, such as coverage, speak of all lists together."""
    return {name.removeprefix("test/") for name in stored_arrays(warehouse, seeds[0]) if name.startswith("test/")}


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


def cutoff(metric: str) -> int | None:
    """The k of `recall@k`; None where there is none."""
    k = metric.partition("@")[2]
    return int(k) if k else None
