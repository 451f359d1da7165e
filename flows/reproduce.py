"""The flow `reproduce`: every model of a published snapshot trained once more from its own bundle, and compared."""

from __future__ import annotations

from typing import Any

from flows.errors import NothingPublishedError
from flows.stage import Stage, call
from flows.steps.reproduce import train_again
from flows.steps.train import stored_plan
from flows.workspace import Workspace


def reproduce(workspace: Workspace, snapshot_id: str | None = None, stage: Stage = call) -> list[dict[str, Any]]:
    """label, model id, whether the weights have the same bytes, and the largest difference of a test metric.

    Args:
        snapshot_id: a version whose models were trained; the published one without it.

    Raises:
        NothingPublishedError: no model was trained for that version.
    """
    warehouse = workspace.warehouse
    snapshot = warehouse.snapshot(snapshot_id) if snapshot_id else warehouse.current()
    if snapshot is None or "train" not in snapshot.stages:
        raise NothingPublishedError(str(warehouse.root))
    return [stage(train_again, workspace, model) for model in stored_plan(snapshot).everything()]
