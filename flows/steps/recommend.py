"""The list each user gets: everything the user already has left out, with a reason in words and the arm they are in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.errors import SettingValueError
from flows.settings import RecommendSettings, digest
from flows.steps.bundle import entity_ids, semantic_matrix
from flows.steps.ingest import stamp
from flows.steps.reasons import reasons
from flows.steps.rows import positions, strings
from flows.steps.train import PlannedModel, stored_plan
from flows.steps.training_process import place_of_work, run_rec_models
from flows.steps.variants import Arm, arm_of_each, arms_of
from flows.steps.verified import verified_metrics
from flows.workspace import Workspace

if TYPE_CHECKING:
    from warehouse import Snapshot, Warehouse

VERSION = 2
# Settings that say what is asked; the others speak of rows, and those are part of the key themselves.
_ASKED = {"k", "cold_items", "diversity", "candidates", "variants", "salt"}


def recommend_items(workspace: Workspace, snapshot_id: str, model: PlannedModel, settings: RecommendSettings) -> str:
    """Id of a snapshot with the best unseen items of every user.

    Raises:
        SettingValueError: a filter that gives no id or an unknown one, or an arm whose model is none of the run's.
    """
    from warehouse import arrow_table

    upstream = workspace.warehouse.snapshot(snapshot_id)
    arms = arms_of(model, stored_plan(upstream).models, settings)
    chosen = {kind: _filtered(workspace.warehouse, upstream, kind, settings) for kind in ("users", "items")}
    asked = settings.model_dump(mode="json", include=_ASKED)
    inside = {kind: sha256(places.tobytes()).hexdigest() for kind, places in chosen.items() if places is not None}
    made_from = [upstream.stages["evaluate"]["key"], [arm.model.model_id for arm in arms], model.label]
    key = digest("recommend", VERSION, *made_from, asked, inside)
    if found := workspace.found("recommend", key):
        return found
    started = time.monotonic()
    snapshot = upstream.doubting()
    ids = entity_ids(snapshot)
    users = np.arange(len(ids["users"])) if chosen["users"] is None else chosen["users"]
    shares = {name: arm.share for name, arm in settings.variants.items()}
    dealt = arm_of_each([ids["users"][user] for user in users], shares, settings.salt)
    told: dict[str, Any] = {}  # by the process of the first arm, the model that serves
    items = np.full((len(users), settings.k), -1, np.int32)
    scores = np.full((len(users), settings.k), np.nan, np.float32)
    for place, arm in enumerate(arms):
        theirs = np.flatnonzero(dealt == place)
        workspace.progress.note(f"recommend: {settings.k} items for {len(theirs):,} users from {arm.model.label}")
        ranked = _ranked(workspace, arm, users[theirs], chosen["items"], settings, {} if place else told)
        best = _diverse(workspace.warehouse, snapshot, ids, ranked, arm, settings.k)
        block = np.ix_(theirs, np.arange(best[0].shape[1]))
        items[block], scores[block] = best
    whose = np.nonzero(items >= 0)[0]
    rows = recommendation_rows(workspace.warehouse, snapshot, ids, users, items, scores) | {
        "variant": np.array([arm.name for arm in arms], object)[dealt][whose],
        "model": np.array([arm.model.model_id for arm in arms], object)[dealt][whose],
        "snapshot": np.full(len(whose), upstream.id, object),
    }
    builder = workspace.warehouse.begin(upstream)
    builder.replace("recommendations", arrow_table("recommendations", rows))
    summary = {
        "model": model.label,
        "model_id": model.model_id,
        "k": settings.k,
        "rows": len(whose),
        "users": len(np.unique(whose)),
        "n_asked": len(users),
        **({"variants": {arm.name: int((dealt == place).sum()) for place, arm in enumerate(arms)}} if shares else {}),
        **({"has_factors": True} if told.get("has_factors") else {}),
    }
    stamp(builder, "recommend", key, summary)
    return workspace.done("recommend", workspace.commit(builder), started)


def recommendation_rows(
    warehouse: Warehouse,
    snapshot: Snapshot,
    ids: Mapping[str, list[str]],
    users: np.ndarray,
    items: np.ndarray,
    scores: np.ndarray,
) -> dict[str, Any]:
    """Columns of the recommendations table; -1 pads are left out.

    Args:
        users: (rows,) indices of the users.
        items, scores: (rows, k).
    """
    places, ranks = np.nonzero(items >= 0)
    return {
        "user_id": np.array(ids["users"], object)[users[places]],
        "rank": (ranks + 1).astype(np.int32),
        "item_id": np.array(ids["items"], object)[items[places, ranks]],
        "score": scores[places, ranks].astype(np.float64),
        "reason": reasons(warehouse, snapshot, ids, users, items)[places, ranks],
    }


def _ranked(
    workspace: Workspace,
    arm: Arm,
    users: np.ndarray,
    allowed: np.ndarray | None,
    settings: RecommendSettings,
    told: dict[str, Any],
) -> tuple[np.ndarray, np.ndarray]:
    """The best items of these users and their scores, as the arm's model finds them; `told` takes its events."""
    from warehouse import make_directory

    folder = make_directory(workspace.warehouse.inside("staging", f"recommend-{workspace.run_id}"))
    bundle, lists, only = (
        workspace.warehouse.inside("models", arm.model.model_id),
        folder / "lists.npz",
        folder / "only.npz",
    )
    verified_metrics(bundle, arm.model.model_id)
    if allowed is None:
        np.savez(only, users=users)
    else:
        np.savez(only, users=users, items=allowed)
    arguments = ["recommend", str(bundle), "--k", str(settings.depth if arm.diversity else settings.k)]
    arguments += ["--out", str(lists), "--only", str(only), "--cold-items", settings.cold_items]
    run_rec_models(arm.model.label, [*arguments, *place_of_work(workspace)], bundle / "recommend.log", told.update)
    with np.load(lists, allow_pickle=False) as stored:
        return stored["item_index"], stored["score"]


def _diverse(
    warehouse: Warehouse,
    snapshot: Snapshot,
    ids: Mapping[str, list[str]],
    ranked: tuple[np.ndarray, np.ndarray],
    arm: Arm,
    k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The first k of each list, or k of them chosen to be unlike each other."""
    from rec_models import diversified

    items, scores = ranked
    if not arm.diversity:
        return items[:, :k], scores[:, :k]
    if "embed" not in snapshot.stages:
        problem = (
            f"the lists of {arm.name} need vectors of the items, which no stage of this run makes; semalign run does"
        )
        raise SettingValueError("recommend.diversity", arm.diversity, problem)
    matrix, present = semantic_matrix(warehouse, snapshot, "items", ids["items"]).open()
    return diversified(items, scores, matrix, present, arm.diversity, k)


def _filtered(warehouse: Warehouse, snapshot: Snapshot, kind: str, settings: RecommendSettings) -> np.ndarray | None:
    """Ascending indices of the `users` or `items` that a filter lets through; None without a filter.

    Raises:
        SettingValueError: the query gives no such column, nobody, or somebody unknown.
        SqlError: it does not run, or does more than read.
    """
    query, column = getattr(settings, kind), f"{kind.removesuffix('s')}_id"
    if query is None:
        return None
    with warehouse.catalogue(snapshot) as catalogue:
        rows = catalogue.query(query)
    if column not in rows.column_names:
        problem = f"expected a column {column}, it gives {', '.join(rows.column_names)}"
        raise SettingValueError(f"recommend.{kind}", query, problem)
    given, order = set(strings(rows, column)), entity_ids(snapshot)[kind]
    if strangers := given - set(order):
        raise SettingValueError(f"recommend.{kind}", query, f"it gives {min(map(str, strangers))!r}, no id of {kind}")
    if not given:
        raise SettingValueError(f"recommend.{kind}", query, "it gives no rows, so nothing would be recommended")
    return np.sort(positions(list(given), order))
