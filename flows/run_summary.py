"""What a run did and what is published now, as one plain document."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from flows.steps.report import report_path
from flows.workspace import Workspace


def run_summary(workspace: Workspace, snapshot_id: str) -> dict[str, Any]:
    """Counts, costs and metrics of a run that ended with this published snapshot."""
    snapshot = workspace.warehouse.snapshot(snapshot_id)
    tally = asdict(workspace.tally)
    path = report_path(workspace.warehouse, snapshot_id)
    profile = snapshot.stages.get("profile", {}).get("summary", {})
    return {
        "metrics": {},
        "differences": [],
        **comparison_of(snapshot.stages),
        "snapshot": snapshot_id,
        "new_snapshot": snapshot_id != workspace.published_before,
        "seconds": round(time.monotonic() - workspace.started, 3),
        **workspace.tally.totals(),
        **{name: tally[name] for name in ("embedded", "embeddings_reused", "trained", "stages")},
        "quarantined": snapshot.rows("quarantine"),
        "left_out": snapshot.stages.get("ingest", {}).get("summary", {}).get("left_out", {}),
        "profiles_failed": profile.get("quarantined", 0),
        "profiles_without_reply": profile.get("without_reply", 0),
        "profiles_by_other_models": profile.get("by_other_models", 0),
        "report": str(path) if path.is_file() else None,
    }


def comparison_of(stages: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """metrics, differences, source, split and protocol of a snapshot that was evaluated; nothing for another."""
    if "evaluate" not in stages:
        return {}
    said = stages["evaluate"]["summary"]
    return {name: said[name] for name in ("metrics", "differences", "source", "split", "protocol")}
