"""The list each user gets: the run's model, everything the user already has left out, with a reason in words."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.settings import RecommendSettings, digest
from flows.steps.bundle import entity_ids, semantic_matrix
from flows.steps.ingest import stamp
from flows.steps.rows import positions, strings
from flows.steps.split import KNOWN
from flows.steps.train import PlannedModel
from flows.steps.training_process import place_of_work, run_rec_models
from flows.steps.verified import verified_metrics
from flows.workspace import Workspace

if TYPE_CHECKING:
    from warehouse import Snapshot, Warehouse

VERSION = 1
MAX_TITLE = 80


def recommend_items(workspace: Workspace, snapshot_id: str, model: PlannedModel, settings: RecommendSettings) -> str:
    """Id of a snapshot with the best unseen items of every user."""
    from warehouse import arrow_table, make_directory

    upstream = workspace.warehouse.snapshot(snapshot_id)
    asked = [settings.k, settings.cold_items]
    key = digest("recommend", VERSION, upstream.stages["evaluate"]["key"], model.model_id, asked)
    if found := workspace.found("recommend", key):
        return found
    started = time.monotonic()
    workspace.progress.note(f"recommend: {settings.k} items for every user from {model.label}")
    folder = make_directory(workspace.warehouse.inside("staging", f"recommend-{workspace.run_id}"))
    bundle, lists = workspace.warehouse.inside("models", model.model_id), folder / "lists.npz"
    verified_metrics(bundle, model.model_id)
    arguments = ["recommend", str(bundle), "--k", str(settings.k), "--out", str(lists), *place_of_work(workspace)]
    arguments += ["--cold-items", settings.cold_items]
    told: dict[str, Any] = {}
    run_rec_models(model.label, arguments, bundle / "recommend.log", told.update)
    with np.load(lists, allow_pickle=False) as stored:
        items, scores = stored["item_index"], stored["score"]
    rows = recommendation_rows(workspace.warehouse, upstream.doubting(), items, scores)
    n_rows = len(rows["user_id"])
    rows |= {"model": [model.model_id] * n_rows, "snapshot": [upstream.id] * n_rows, "variant": [model.label] * n_rows}
    builder = workspace.warehouse.begin(upstream)
    builder.replace("recommendations", arrow_table("recommendations", rows))
    summary = {
        "model": model.label,
        "model_id": model.model_id,
        "k": settings.k,
        "rows": n_rows,
        "users": len(set(rows["user_id"])),
        **({"has_factors": True} if told.get("has_factors") else {}),
    }
    stamp(builder, "recommend", key, summary)
    return workspace.done("recommend", workspace.commit(builder), started)


def recommendation_rows(
    warehouse: Warehouse, snapshot: Snapshot, items: np.ndarray, scores: np.ndarray
) -> dict[str, Any]:
    """Columns of the recommendations table; -1 pads are left out."""
    ids = entity_ids(snapshot)
    users, ranks = np.nonzero(items >= 0)
    chosen = items[users, ranks]
    return {
        "user_id": [ids["users"][user] for user in users],
        "rank": (ranks + 1).astype(np.int32),
        "item_id": [ids["items"][item] for item in chosen],
        "score": scores[users, ranks].astype(np.float64),
        "reason": reasons(warehouse, snapshot, ids, users, chosen),
    }


def reasons(
    warehouse: Warehouse, snapshot: Snapshot, ids: dict[str, list[str]], users: np.ndarray, chosen: np.ndarray
) -> list[str | None]:
    """For each recommended item the item of the user's history whose text is nearest to it; None without vectors."""
    if "embed" not in snapshot.stages:
        return [None] * len(users)
    matrix, present = semantic_matrix(warehouse, snapshot, "items", ids["items"]).open()
    titles = _titles(snapshot, ids["items"])
    histories = _histories(snapshot, ids, present)
    words: list[str | None] = [None] * len(users)
    starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]]) if len(users) else np.array([], int)
    for start, end in zip(starts, np.r_[starts[1:], len(users)], strict=True):
        history = histories.get(int(users[start]))
        if history is None:
            continue
        nearest = history[(matrix[chosen[start:end]] @ matrix[history].T).argmax(1)]
        for row, item in zip(range(start, end), nearest, strict=True):
            if present[chosen[row]]:
                words[row] = f"near {titles[item]} in their history"
    return words


def _titles(snapshot: Snapshot, order: Sequence[str]) -> list[str]:
    rows = snapshot.read("items", columns=["item_id", "title"])
    known = dict(zip(strings(rows, "item_id"), rows.column("title").to_pylist(), strict=True))
    return [f"“{title[:MAX_TITLE]}”" if (title := known.get(item_id)) else f"item {item_id}" for item_id in order]


def _histories(snapshot: Snapshot, ids: dict[str, list[str]], present: np.ndarray) -> dict[int, np.ndarray]:
    """user index → indices of training or fold-in items that have a vector."""
    splits = snapshot.read("splits")
    users, items = (
        positions(strings(splits, "user_id"), ids["users"]),
        positions(strings(splits, "item_id"), ids["items"]),
    )
    kept = present[items] & np.isin(np.array(strings(splits, "part")), KNOWN)
    order = np.argsort(users[kept], kind="stable")
    users, items = users[kept][order], items[kept][order]
    starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]]) if len(users) else np.array([], int)
    ends = np.r_[starts[1:], len(users)]
    return {int(users[start]): items[start:end] for start, end in zip(starts, ends, strict=True)}
