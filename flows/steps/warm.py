"""The earlier model that a training may begin from: same settings, same seed, and nothing seen that is now asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.steps.rows import records
from flows.steps.verified import verified_metrics
from flows.workspace import Workspace

if TYPE_CHECKING:
    from rec_models import InteractionMatrix

ASKED = ("valid", "test")


def earlier_model(
    workspace: Workspace,
    model_id: str,
    alike: Mapping[str, Any],
    ids: Mapping[str, Sequence[str]],
    parts: Mapping[str, InteractionMatrix],
) -> Path | None:
    """The folder of the newest one that may be begun from, or None; why not is said.

    Args:
        alike: what its registered settings must hold, such as its configuration and seed.
        parts: today's; a model that was trained on any pair of their validation or test has learnt the answers by
            heart, as happens where a random split deals the rows anew. Splits by time or by a column do not.
    """
    from rec_models import Bundle

    current = workspace.warehouse.current()
    if current is None:
        return None
    rows = records(current.read("model_registry", columns=["model_id", "created_at", "settings"]))
    for row in sorted(rows, key=lambda row: row["created_at"], reverse=True):
        settings = json.loads(row["settings"] or "{}")
        folder = workspace.warehouse.inside("models", row["model_id"])
        same = all(settings.get(name) == value for name, value in alike.items()) and row["model_id"] != model_id
        if not same or not (folder / "checkpoint" / "sha256.json").is_file():
            continue
        verified_metrics(folder, row["model_id"])
        if n_seen := seen_of(Bundle.open(folder).part("train"), _ids_of(folder), parts, ids):
            told = f"model {row['model_id']} was trained on {n_seen:,} pairs of today's validation or test"
            workspace.progress.note(f'train: a fresh start, for {told}; split.kind = "time" or "given" avoids it')
            continue
        return folder
    return None


def seen_of(
    trained: InteractionMatrix,
    trained_ids: Mapping[str, Sequence[str]],
    parts: Mapping[str, InteractionMatrix],
    ids: Mapping[str, Sequence[str]],
) -> int:
    """How many pairs of today's validation and test an earlier training had, compared by id."""
    places = {kind: {name: place for place, name in enumerate(ids[kind])} for kind in ("users", "items")}
    users, items = (
        np.array([places[kind].get(name, -1) for name in trained_ids[kind]], np.int64) for kind in ("users", "items")
    )
    rows, columns = users[np.repeat(np.arange(trained.n_users), trained.lengths())], items[trained.indices]
    known = (rows >= 0) & (columns >= 0)
    before = rows[known] * len(ids["items"]) + columns[known]
    asked = [
        np.repeat(np.arange(part.n_users), part.lengths()) * part.n_items + part.indices
        for part in (parts[name] for name in ASKED)
    ]
    return int(np.isin(np.concatenate(asked), before).sum())


def _ids_of(folder: Path) -> dict[str, list[str]]:
    return {f"{kind}s": json.loads((folder / f"{kind}_ids.json").read_text("utf-8")) for kind in ("user", "item")}
