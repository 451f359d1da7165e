"""How users share a latent, as rec_models finds it: kept beside each model, and as values for tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.report.analysed import PosteriorSpread
from flows.report.content import CohortMap, MaskDrift, SharingCurve
from flows.settings import digest
from flows.steps.train import PlannedModel, TrainingPlan
from flows.steps.training_process import place_of_work, run_rec_models
from flows.workspace import Workspace

if TYPE_CHECKING:
    from warehouse import Warehouse

# What is asked where a command is given nothing else; of these the report tells.
MASKS, KEEP, COUNTS = 50, 0.5, (5, 50, 350)
DEFAULTS: dict[str, dict[str, object]] = {
    "sharing": {"keep": KEEP},
    "masks": {"masks": MASKS, "keep": KEEP},
    "spread": {},
    "cohorts": {"counts": ",".join(map(str, COUNTS))},
}
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_TENTHS = 10
_PERPLEXITY, _COMPONENTS = 30.0, 50

Arrays = dict[str, np.ndarray]


def looked_at(workspace: Workspace, model: PlannedModel, kind: str, asked: Mapping[str, object]) -> Arrays:
    """What `python -m rec_models KIND` found of a trained model; computed once and kept beside it.

    Raises:
        TrainingFailedError: the model has no latent; exit code 2.
    """
    path = finding_file(workspace.warehouse, model.model_id, kind, asked)
    if not path.is_file():
        words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
        bundle = str(workspace.warehouse.inside("models", model.model_id))
        arguments = [kind, bundle, "--out", str(path), *words, *place_of_work(workspace)]
        run_rec_models(model.label, arguments, path.with_suffix(".log"), lambda event: None)
    return _stored(path)


def finding_file(warehouse: Warehouse, model_id: str, kind: str, asked: Mapping[str, object]) -> Path:
    """Where that lies; under the bare name where nothing but the defaults was asked."""
    name = kind if dict(asked) == DEFAULTS[kind] else f"{kind}-{digest(dict(asked))[:12]}"
    return warehouse.inside("models", model_id) / f"{name}.npz"


def looked_at_before(warehouse: Warehouse, plan: TrainingPlan, kind: str) -> dict[str, list[Arrays]]:
    """Label → what was found of each seed, of the models whose every seed was looked at under the defaults."""
    found = {}
    for label in plan.labels():
        paths = [finding_file(warehouse, model.model_id, kind, DEFAULTS[kind]) for model in plan.seeds_of(label)]
        if all(path.is_file() for path in paths):
            found[label] = [_stored(path) for path in paths]
    return found


def mask_drift(label: str, seeds: Sequence[Arrays], n_masks: int) -> MaskDrift:
    """Quantiles over the users of all seeds, each seed over its own variance between users."""
    parts = [
        np.concatenate([found[name] / max(float(found["between"]), 1e-12) for found in seeds])
        for name in ("variance", "drift")
    ]
    variance, drift = (tuple(map(float, np.quantile(part, _QUANTILES))) for part in parts)
    return MaskDrift(label, n_masks, variance, drift)  # type: ignore[arg-type]


def mask_row(label: str, seed: int, found: Arrays) -> dict[str, Any]:
    """Means over the users of one model."""
    variance, drift, between = (float(found[name].mean()) for name in ("variance", "drift", "between"))
    row = {"model": label, "seed": seed, "users": len(found["users"]), "variance": variance, "drift": drift}
    scale = max(between, 1e-12)
    return row | {"between": between, "variance_share": variance / scale, "drift_share": drift / scale}


def sharing_row(label: str, seed: int, found: Arrays) -> dict[str, Any]:
    """What the pairs of one model come to; `far` is differing in more items than half of the pairs do.

    The decoder's gradient is taken to be no steeper than the steepest that was met. A pair is inside the radius when
    the upper bound of its distance is.
    """
    far_related = far_but_related(found)
    n = len(found["gain"])
    radius = found["gain"] / max(float(found["steepness"].max(initial=0)), 1e-12)
    inside, helping = found["w1_high"][:n] < radius, found["cosine"] > 0
    some = far_related[:n]
    whole = float(found["w1_high"].mean())
    return {
        "model": label,
        "seed": seed,
        "pairs": len(far_related),
        "correlation": _correlation(found["differing"], found["w1_high"]),
        "w1_low": float(found["w1_low"].mean()),
        "w1_high": whole,
        "radius": float(np.median(radius)) if n else None,
        "steepness": float(found["steepness"].max(initial=0)),
        "far_related": float(far_related.mean()),
        "far_related_inside": _share(inside, some),
        "far_related_helped": _share(helping, some),
        "inside": _share(inside, np.ones(n, bool)),
        "helped": _share(helping, np.ones(n, bool)),
        "neighbour_drift": float(found["neighbour_drift"].mean()),
        "neighbour_drift_share": float(found["neighbour_drift"].mean()) / max(whole, 1e-12),
        "neighbour_overlap": float(found["neighbour_overlap"].mean()),
    }


def sharing_curve(label: str, seeds: Sequence[Arrays]) -> SharingCurve:
    """Latent distance by tenths of the pairs in order of what differs, and means over seeds of `sharing_row`."""
    differing, distance = (np.concatenate([found[name] for found in seeds]) for name in ("differing", "w1_high"))
    parts = np.array_split(np.argsort(differing, kind="stable"), _TENTHS)
    points = [(float(differing[part].mean()), float(distance[part].mean())) for part in parts if len(part)]
    rows = [sharing_row(label, seed, found) for seed, found in enumerate(seeds)]
    means = [
        float(np.mean([row[name] for row in rows if row[name] is not None] or [np.nan]))
        for name in ("correlation", "far_related", "far_related_inside", "far_related_helped", "neighbour_overlap")
    ]
    return SharingCurve(label, tuple(points), *means)


def far_but_related(found: Arrays) -> np.ndarray:
    """(pairs,) whether a pair differs in more items than half of all pairs do and yet shares one."""
    return (found["differing"] > np.median(found["differing"])) & (found["shared"] > 0)


def spread_row(label: str, seed: int, found: Arrays) -> dict[str, Any]:
    """The numbers of one model."""
    whole = {"active", "latent_dim"}
    return {"model": label, "seed": seed} | {
        name: int(value) if name in whole else float(value) for name, value in found.items()
    }


def cohort_rows(label: str, seed: int, found: Arrays, counts: Sequence[int]) -> list[dict[str, Any]]:
    """One row a cohort: users, purity of their neighbourhoods, distance of its mean from that of every other."""
    rows = []
    for place, count in enumerate(counts):
        inside = found["cohort"] == place
        apart = {f"from_{other}": _real(found["apart"][place, at]) for at, other in enumerate(counts) if at != place}
        purity = float(found["purity"][inside].mean()) if inside.any() else None
        row = {"model": label, "seed": seed, "items": count, "users": int(inside.sum()), "purity": purity}
        rows.append(row | apart)
    return rows


def cohort_map(label: str, found: Arrays, counts: Sequence[int]) -> CohortMap | None:
    """The users as t-SNE lays them out, the same for the same latent; None with too few for a map.

    Source: van der Maaten & Hinton 2008, by scikit-learn: perplexity 30, begun from principal components.
    Deviations: 50 principal components of means and deviations are what is laid out.
    """
    points = found["points"].astype(np.float64)
    if len(points) < 4 or len(np.unique(points, axis=0)) < 4:
        return None
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    components = min(_COMPONENTS, *points.shape)
    reduced = PCA(components, random_state=0).fit_transform(points)
    perplexity = min(_PERPLEXITY, (len(points) - 1) / 3)
    placed = TSNE(2, perplexity=perplexity, init="pca", random_state=0, n_jobs=1).fit_transform(reduced)
    sizes = [int((found["cohort"] == place).sum()) for place in range(len(counts))]
    names = tuple(f"{count} ({size})" for count, size in zip(counts, sizes, strict=True))
    spots = [(float(x), float(y), int(place)) for (x, y), place in zip(placed, found["cohort"], strict=True)]
    return CohortMap(label, names, tuple(spots), float(found["purity"].mean()))


def posterior_spread(label: str, seeds: Sequence[Arrays]) -> PosteriorSpread:
    """Means over seeds of `spread_row`."""
    rows = [spread_row(label, seed, found) for seed, found in enumerate(seeds)]
    names = ("w1_low", "w1_high", "kl", "information", "kl_aggregate", "active")
    means = {name: float(np.mean([row[name] for row in rows])) for name in names}
    return PosteriorSpread(label, **means, latent_dim=rows[0]["latent_dim"])


def reported(
    warehouse: Warehouse, plan: TrainingPlan
) -> tuple[tuple[MaskDrift, ...], tuple[SharingCurve, ...], tuple[CohortMap, ...], tuple[PosteriorSpread, ...]]:
    """What the report tells of the models that were looked at; a map of the first seed alone."""
    masks = [mask_drift(label, seeds, MASKS) for label, seeds in looked_at_before(warehouse, plan, "masks").items()]
    curves = [sharing_curve(label, seeds) for label, seeds in looked_at_before(warehouse, plan, "sharing").items()]
    maps = [
        cohort_map(label, seeds[0], COUNTS) for label, seeds in looked_at_before(warehouse, plan, "cohorts").items()
    ]
    spreads = [posterior_spread(label, seeds) for label, seeds in looked_at_before(warehouse, plan, "spread").items()]
    return tuple(masks), tuple(curves), tuple(found for found in maps if found is not None), tuple(spreads)


def reported_labels(warehouse: Warehouse, plan: TrainingPlan) -> list[list[str]]:
    """The models that `reported` speaks of, kind by kind."""
    return [list(looked_at_before(warehouse, plan, kind)) for kind in ("masks", "sharing", "cohorts", "spread")]


def _stored(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _share(which: np.ndarray, among: np.ndarray) -> float | None:
    return float(which[among].mean()) if among.any() else None


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """0 where either does not vary."""
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else 0.0


def _real(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
