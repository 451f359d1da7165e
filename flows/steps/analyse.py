"""What lies behind a mean: users by activity, training by the clock, the latent's use, an option's curve."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.report.content import ACTIVE, GroupGain, LatentActivity, Sweep, SweepPoint
from flows.steps.bundle import entity_ids, interaction_parts
from flows.steps.scores import holm_adjusted, per_user_values
from flows.steps.split import KNOWN
from flows.steps.train import PlannedModel, TrainingPlan
from flows.steps.training_process import place_of_work, run_rec_models
from flows.steps.verified import verified_metrics
from flows.workspace import Workspace

if TYPE_CHECKING:
    from warehouse import Snapshot, Warehouse

N_GROUPS = 4


@dataclass(frozen=True)
class Convergence:
    """How one model came to its best, over its seeds.

    Attributes:
        epochs, seconds, valid: of the first seed's validation passes; seconds of training alone.
        seconds_per_epoch: mean over seeds.
        ratio: of it to the reference's; None where either has no epochs.
        best_epoch, seconds_to_best: means over seeds.
        seconds_to_reference: when the first seed first reached the reference's best validation; None if never.
    """

    model: str
    epochs: tuple[int, ...]
    seconds: tuple[float, ...]
    valid: tuple[float, ...]
    seconds_per_epoch: float | None
    ratio: float | None
    best_epoch: float
    seconds_to_best: float
    seconds_to_reference: float | None


def activity_groups(counts: np.ndarray, n_groups: int = N_GROUPS) -> list[tuple[int, int]]:
    """(least, most) interactions of each group: rising, together all users, each with about the same interactions.

    Users are taken by rising activity until a group holds its share of all interactions; users of one activity stay
    together, so a group may hold more, and there may be fewer groups.

    Source: the sparsity groups of DMRec's analyses, after NGCF.
    Deviations: counts training (or fold-in) interactions of tested users alone; the original counts training and test
    together, and takes its share of the interactions of all users, which leaves the last group smaller.
    """
    levels, users = np.unique(counts, return_counts=True)
    mass = levels * users
    groups, held, first = [], 0, 0
    for place in range(len(levels)):
        held += int(mass[place])
        if held * n_groups >= mass.sum() or place == len(levels) - 1:
            groups.append((int(levels[first]), int(levels[place])))
            held, first = 0, place + 1
    return groups


def bounded_groups(counts: np.ndarray, bounds: Sequence[int]) -> list[tuple[int, int]]:
    """(least, most) interactions of each group: up to each of the rising bounds, and beyond the last."""
    edges = [int(counts.min()), *(bound + 1 for bound in bounds)]
    ends = [*bounds, max(int(counts.max()), bounds[-1] + 1)]
    return [(least, most) for least, most in zip(edges, ends, strict=True) if least <= most]


def group_gains(
    warehouse: Warehouse,
    snapshot: Snapshot,
    plan: TrainingPlan,
    reference: str,
    metric: str,
    groups_of: int | Sequence[int] = N_GROUPS,
) -> list[GroupGain]:
    """What every other model of the plan gains over the reference, group by group, paired over the group's users.

    Args:
        groups_of: how many groups of equally many interactions, or the most interactions of each but the last.
    """
    from rec_models import paired_comparison

    parts = interaction_parts(snapshot, entity_ids(snapshot))
    lengths = np.sum([parts[part].lengths() for part in KNOWN if part in parts], axis=0)
    users, theirs = per_user_values(warehouse, plan.seeds_of(reference), metric)
    counts = lengths[users]
    equal = isinstance(groups_of, int)
    groups = activity_groups(counts, groups_of) if equal else bounded_groups(counts, groups_of)
    gains = []
    for label in plan.labels():
        if label == reference:
            continue
        _, ours = per_user_values(warehouse, plan.seeds_of(label), metric)
        for least, most in groups:
            inside = (counts >= least) & (counts <= most)
            if inside.sum() < 2:
                continue
            found = paired_comparison(ours[inside], theirs[inside])
            name = str(least) if least == most else f"{least}–{most}"
            means = float(ours[inside].mean()), float(theirs[inside].mean())
            measured = (*means, found.difference, found.low, found.high, found.p_value)
            gains.append(GroupGain(label, reference, name, found.n_users, *measured))
    corrected = holm_adjusted([gain.p_holm for gain in gains])
    return [replace(gain, p_holm=p) for gain, p in zip(gains, corrected, strict=True)]


def convergences(warehouse: Warehouse, plan: TrainingPlan, reference: str, select_by: str) -> list[Convergence]:
    """How each model trained in epochs came to its best, beside the reference."""
    histories = {
        label: [_metrics(warehouse, model)["history"] for model in plan.seeds_of(label)] for label in plan.labels()
    }
    trained = {label: found for label, found in histories.items() if all(found)}
    pace = {
        label: float(np.mean([row["seconds"] for rows in found for row in rows])) for label, found in trained.items()
    }
    passes = trained[reference][0] if reference in trained else []
    goal = max((row[select_by] for row in passes if select_by in row), default=None)
    return [_convergence(label, found, pace, reference, goal, select_by) for label, found in trained.items()]


def _convergence(
    label: str,
    histories: Sequence[Sequence[Mapping[str, Any]]],
    pace: Mapping[str, float],
    reference: str,
    goal: float | None,
    select_by: str,
) -> Convergence:
    curves = [list(_validated(rows, select_by)) for rows in histories]
    bests = [max(curve, key=lambda point: point[2]) for curve in curves]
    first = curves[0]
    reached = next((seconds for _, seconds, valid in first if goal is not None and valid >= goal), None)
    return Convergence(
        model=label,
        epochs=tuple(epoch for epoch, _, _ in first),
        seconds=tuple(seconds for _, seconds, _ in first),
        valid=tuple(valid for _, _, valid in first),
        seconds_per_epoch=pace[label],
        ratio=pace[label] / pace[reference] if reference in pace else None,
        best_epoch=float(np.mean([epoch for epoch, _, _ in bests])),
        seconds_to_best=float(np.mean([seconds for _, seconds, _ in bests])),
        seconds_to_reference=reached,
    )


def _validated(rows: Sequence[Mapping[str, Any]], select_by: str) -> Iterator[tuple[int, float, float]]:
    """(epoch, seconds of training until its end, validation) of each validation pass."""
    for row, seconds in zip(rows, itertools.accumulate(row["seconds"] for row in rows), strict=True):
        if select_by in row:
            yield row["epoch"], seconds, row[select_by]


def log_activities(workspace: Workspace, model: PlannedModel) -> dict[str, np.ndarray]:
    """Part of the latent → (dimensions,) natural log of the variance over users of the posterior mean.

    The posterior means are computed once and kept beside the model.

    Source: DMRec's analysis of latent activity; Burda et al. 2016, "Importance weighted autoencoders".
    Deviations: at least 1e-12 before the logarithm, so that a dead dimension has a place in a plot.

    Raises:
        TrainingFailedError: the model has no latent; exit code 2.
    """
    path = latent_file(workspace.warehouse, model.model_id)
    if not path.is_file():
        arguments = ["latent", str(path.parent), "--out", str(path), *place_of_work(workspace)]
        run_rec_models(model.label, arguments, path.with_suffix(".log"), lambda event: None)
    return stored_activities(path)


def latent_file(warehouse: Warehouse, model_id: str) -> Path:
    """Where the posterior means of a model lie once they were asked for."""
    return warehouse.inside("models", model_id) / "latent.npz"


def stored_activities(path: Path) -> dict[str, np.ndarray]:
    """The log activities of the posterior means in a file."""
    with np.load(path, allow_pickle=False) as means:
        parts = [part for part in ("decoded", "source", "language") if part in means.files]
        return {part: np.log(np.maximum(means[part].astype(np.float64).var(axis=0), 1e-12)) for part in parts}


def latent_activities(label: str, seeds: Sequence[Mapping[str, np.ndarray]]) -> list[LatentActivity]:
    """Quantiles over the dimensions of all seeds, one row for each part of the latent."""
    rows = []
    for part in seeds[0] if seeds else ():
        logs = np.concatenate([found[part] for found in seeds])
        least, first, median, third, most = map(float, np.quantile(logs, [0, 0.25, 0.5, 0.75, 1]))
        n_active = round(int((logs >= np.log(ACTIVE)).sum()) / len(seeds))
        rows.append(LatentActivity(label, part, (least, first, median, third, most), n_active, len(logs) // len(seeds)))
    return rows


def sweeps_of(measured: Iterable[tuple[str, float, float, tuple[float | None, float | None]]]) -> list[Sweep]:
    """The options that take three or more numbers while all else of a model stays the same.

    Args:
        measured: label, validation, test and its interval of each model.
    """
    found: dict[tuple[str, str], list[SweepPoint]] = {}
    for label, valid, test, (low, high) in measured:
        name, _, words = label.partition("@")
        pairs = (word.partition("=") for word in words.split(";") if word)
        options = {option: text for option, _, text in pairs}
        for option, text in options.items():
            value = _number(text)
            if value is None:
                continue
            rest = ";".join(f"{other}={said}" for other, said in options.items() if other != option)
            point = SweepPoint(value, label, valid, test, low, high)
            found.setdefault((f"{name}@{rest}" if rest else name, option), []).append(point)
    return [
        Sweep(model, option, tuple(sorted(points, key=lambda point: point.value)))
        for (model, option), points in found.items()
        if len(points) >= 3
    ]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _metrics(warehouse: Warehouse, model: PlannedModel) -> dict[str, Any]:
    return verified_metrics(warehouse.inside("models", model.model_id), model.model_id)
