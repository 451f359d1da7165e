"""The end of a command: its row in `runs`, its calls, and the one switch of CURRENT."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.promotion_errors import NotBlessedError
from flows.settings import Settings, canonical
from flows.steps.champions import NOT_BLESSED, decisions
from flows.steps.evaluate import append_differences, append_models
from flows.steps.scores import Comparison
from flows.steps.train import TrainingPlan
from flows.workspace import Workspace, code_version, versions

if TYPE_CHECKING:
    from warehouse import Snapshot, SnapshotBuilder

QUARANTINED = 3


def publish(workspace: Workspace, snapshot_id: str, settings: Settings) -> str:
    """Id of the published snapshot; a run that changes nothing and goes back to nothing older writes nothing.

    Raises:
        NotBlessedError: the gate keeps the snapshot's model out. What is published keeps its tables and only remembers
            that, and what was measured.
    """
    warehouse = workspace.warehouse
    snapshot = warehouse.snapshot(snapshot_id)
    said = snapshot.stages.get("promote", {}).get("summary", {})
    if said.get("verdict") == NOT_BLESSED:
        _remember(workspace, snapshot, settings)
        raise NotBlessedError(said["model"], said["champion"], said["reasons"], snapshot.id)
    if workspace.tally.committed or snapshot.id != workspace.published_before:
        builder = warehouse.begin(snapshot)
        builder.stage("publish", key=workspace.run_id, summary=run_facts(workspace))
        n_quarantined = snapshot.rows("quarantine")
        mark = append_run(workspace, builder, settings, QUARANTINED if n_quarantined else 0)
        snapshot = workspace.commit(builder, mark)
    return warehouse.publish(snapshot).id


def _remember(workspace: Workspace, refused: Snapshot, settings: Settings) -> None:
    """CURRENT with the history of a snapshot that was refused; nothing where it has that already."""
    warehouse = workspace.warehouse
    current = warehouse.current()
    if current is None:
        return
    known = {row["n"] for row in decisions(current)}
    if not workspace.tally.committed and known.issuperset(row["n"] for row in decisions(refused)):
        return
    builder = warehouse.begin(current)
    builder.remember(refused)
    mark = append_run(workspace, builder, settings, NotBlessedError.exit_code)
    warehouse.publish(workspace.commit(builder, mark))


def record_comparison(
    workspace: Workspace, snapshot_id: str, plan: TrainingPlan, comparison: Comparison, settings: Settings
) -> str:
    """Id of the published snapshot, with the comparison's models and metrics added to its history.

    What is published keeps its items, profiles and recommendations: a comparison only adds rows to the tables that
    remember. Where nothing is published yet, what it worked on becomes the first snapshot, unless it was a screen.
    """
    warehouse = workspace.warehouse
    upstream = warehouse.snapshot(snapshot_id)
    current = warehouse.current()
    builder = warehouse.begin(current or (None if settings.source.screen else upstream))
    n_new = append_models(workspace, builder, upstream, plan)
    if current is not None and n_new == 0 and workspace.tally.committed == 0:
        return current.id
    append_differences(workspace, builder, comparison, plan)
    mark = append_run(workspace, builder, settings, 0)
    return warehouse.publish(workspace.commit(builder, mark)).id


def run_facts(workspace: Workspace) -> dict[str, Any]:
    """What this run did and what it cost, as the report shows it."""
    return {"run_id": workspace.run_id, **asdict(workspace.tally), **workspace.tally.totals()}


def asked_facts(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """What the run asked of a language model, as its row in `runs` keeps it."""
    from providers import parse_engine

    tally, engine = workspace.tally, parse_engine(settings.profiles.engine)
    names = ("calls", "replies", "cached", "reasked", "quarantined", "tokens_in", "tokens_out", "usd")
    return {"engine": engine.name, "model": engine.source, **{name: getattr(tally, name) for name in names}}


def append_run(workspace: Workspace, builder: SnapshotBuilder, settings: Settings, exit_code: int) -> int | None:
    """The ledger's mark; the run's own row and the ledger's calls go into the builder, a run that paid backs it up."""
    from warehouse import arrow_rows

    row = {
        "run_id": workspace.run_id,
        "command": workspace.command,
        "started_at": workspace.started_at,
        "seconds": time.monotonic() - workspace.started,
        "settings": canonical(settings.model_dump(mode="json")),
        "settings_hash": workspace.settings_hash,
        "code_version": code_version(),
        "versions": canonical(versions()),
        "exit_code": exit_code,
        **asked_facts(workspace, settings),
    }
    builder.append("runs", arrow_rows("runs", [row]))
    if not (workspace.warehouse.root / "ledger.sqlite").exists():
        return None
    with workspace.warehouse.ledger(read_only=not workspace.tally.has_paid) as ledger:
        calls = ledger.calls()
        if calls.num_rows:
            builder.replace("llm_calls", calls)
        if workspace.tally.has_paid:
            ledger.backup()
        return ledger.mark()
