"""The gate before publishing: a trained model takes the champion's place, or stays outside with the reasons why."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.promotion_errors import ChampionLostError
from flows.promotion_gate import GateFacts, reasons_against
from flows.settings import Settings, canonical, digest
from flows.steps.bundle import entity_ids
from flows.steps.champions import (
    BLESSED,
    FIRST,
    KEPT,
    NOT_BLESSED,
    RETRAIN,
    Champion,
    champion_of,
    decisions,
    rolled_back,
)
from flows.steps.duel import duel, refuse_lost
from flows.steps.ingest import stamp
from flows.steps.rows import records, strings
from flows.steps.train import TrainingPlan
from flows.steps.variants import arms_of
from flows.workspace import StageNote, Workspace, describe

if TYPE_CHECKING:
    from warehouse import Snapshot, SnapshotBuilder, Warehouse

VERSION = 1


def judge(workspace: Workspace, snapshot_id: str, plan: TrainingPlan, settings: Settings) -> str:
    """Id of a snapshot that says whether its model may serve, and why not; CURRENT where that is this model already.

    The model, its item map, its vectors and its lists are in one manifest, so publishing it switches all of them.

    Raises:
        ChampionLostError: there is a champion and its files cannot be read; `first` promotes without it.
        CheckpointError: the challenger's files are not what training wrote.
    """
    warehouse = workspace.warehouse
    upstream, current = warehouse.snapshot(snapshot_id), warehouse.current()
    if current is not None and _is_served(current, upstream):
        said = current.stages["promote"]["summary"]
        workspace.tally.stages.append(StageNote("promote", False, 0.0, describe(said)))
        return current.id
    label = plan.models[0].label
    challenger, arms = _of_label(plan, label), _other_arms(plan, settings)
    history = decisions(current)
    champion, taken_out = champion_of(current), rolled_back(history)
    out = taken_out.get(challenger.model_ids)
    limits = settings.promotion.model_dump(mode="json")
    serving = champion.model_ids if champion else None
    facts = [upstream.stages["recommend"]["key"], _content(upstream), serving, out, limits, workspace.first]
    # seeds of an arm beyond the one that makes its lists, and what was taken out, are no part of the lists' key
    facts += [{name: [arm.model_ids, taken_out.get(arm.model_ids)] for name, arm in arms.items()}] if arms else []
    key = digest("promote", VERSION, *facts)
    if found := workspace.found("promote", key):
        return found
    started = time.monotonic()
    known = _known_champion(workspace, current, champion)
    seen = _facts(workspace, upstream, challenger, known, settings, out)
    reasons = reasons_against(seen, settings.promotion)
    seen_of_arms = {
        name: _facts_of_arm(workspace, upstream, arm, known, settings, taken_out.get(arm.model_ids))
        for name, arm in arms.items()
    }
    for name, of_arm in seen_of_arms.items():
        about = f"arm {name} ({arms[name].label})"
        reasons += [f"{about}: {reason}" for reason in reasons_against(of_arm, settings.promotion)]
    verdict = NOT_BLESSED if reasons else FIRST if known is None else KEPT if known == challenger else BLESSED
    summary = _summary(upstream, challenger, champion, verdict, reasons, seen)
    if arms:
        summary["facts"]["arms"] = {name: _plain(asdict(of_arm)) for name, of_arm in seen_of_arms.items()}
    builder = warehouse.begin(upstream)
    if verdict != KEPT:
        append_decision(builder, workspace, history, upstream.id, summary)
    stamp(builder, "promote", key, summary)
    return workspace.done("promote", workspace.commit(builder), started)


def _of_label(plan: TrainingPlan, label: str) -> Champion:
    return Champion(label, tuple(model.model_id for model in plan.seeds_of(label)))


def _other_arms(plan: TrainingPlan, settings: Settings) -> dict[str, Champion]:
    """Arm → its model, of the arms of an A/B test that another model than the run's makes lists for."""
    first = plan.models[0]
    arms = {arm.name: arm.model.label for arm in arms_of(first, plan.models, settings.recommend)}
    return {name: _of_label(plan, label) for name, label in arms.items() if label != first.label}


def append_decision(
    builder: SnapshotBuilder,
    workspace: Workspace,
    history: list[dict[str, Any]],
    snapshot_id: str,
    summary: dict[str, Any],
) -> None:
    """The row of `promotions` that says what a summary of this stage says; numbered after those before it."""
    from warehouse import arrow_rows

    duel_of = summary["facts"].get("duel") or {}
    names = ("metric", "value", "champion_value", "difference", "low", "high", "n_users")
    row = {
        "n": 1 + max((one["n"] for one in history), default=0),
        "decided_at": workspace.started_at,
        "run_id": workspace.run_id,
        **{name: summary[name] for name in ("verdict", "model", "model_ids", "champion", "champion_ids", "reasons")},
        "snapshot": snapshot_id,
        **{name: duel_of.get(name) for name in names},
        "facts": canonical(summary["facts"]),
    }
    builder.append("promotions", arrow_rows("promotions", [row]))


def _is_served(current: Snapshot, upstream: Snapshot) -> bool:
    """Whether CURRENT has these very lists, of these very tables, behind the gate already."""
    keys = [one.stages.get("recommend", {}).get("key") for one in (current, upstream)]
    return "promote" in current.stages and keys[0] == keys[1] and _content(current) == _content(upstream)


def _content(snapshot: Snapshot) -> dict[str, list[str]]:
    """table → hashes of its files, of the tables that are not history."""
    from warehouse import TABLES

    history = {table.name for table in TABLES if table.history} | {"llm_calls"}
    tables = snapshot.tables.items()
    return {name: sorted(one.sha256 for one in files) for name, files in tables if name not in history and files}


def _known_champion(workspace: Workspace, current: Snapshot | None, champion: Champion | None) -> Champion | None:
    """The champion to measure against; None where there is none, or it is to be passed over."""
    if champion is None or current is None or workspace.first:
        return None
    try:
        refuse_lost(workspace.warehouse, champion)
    except ChampionLostError:
        if not _was_forgotten(current, champion):
            raise
        workspace.progress.note(f"promote: {champion.label} was deleted with a user it knew; the next model is a first")
        return None
    return champion


def _was_forgotten(current: Snapshot, champion: Champion) -> bool:
    rows = records(current.read("model_registry", columns=["model_id", "state"]))
    return any(row["model_id"] in champion.model_ids and row["state"] == RETRAIN for row in rows)


def _facts(
    workspace: Workspace,
    snapshot: Snapshot,
    challenger: Champion,
    champion: Champion | None,
    settings: Settings,
    out: str | None,
) -> GateFacts:
    measured = champion is not None and champion != challenger and settings.promotion.gate
    lists = snapshot.read("recommendations", columns=["user_id", "score"])
    scores = lists.column("score").to_pylist()
    ids, said = entity_ids(snapshot), snapshot.stages["recommend"]["summary"]
    return GateFacts(
        duel(workspace, challenger, champion, settings.evaluation.select_by) if measured and champion else None,
        served=len(set(strings(lists, "user_id"))) / max(said.get("n_asked", len(ids["users"])), 1),
        n_not_finite=sum(score is None or not math.isfinite(score) for score in scores),
        n_strangers=_strangers(workspace.warehouse, challenger, ids),
        quarantined_share=_quarantined_share(snapshot, len(ids["users"]) + len(ids["items"])),
        drifts=_drifts(workspace.warehouse, snapshot) if settings.promotion.gate else (),
        rolled_back=out,
    )


def _facts_of_arm(
    workspace: Workspace,
    snapshot: Snapshot,
    arm: Champion,
    champion: Champion | None,
    settings: Settings,
    out: str | None,
) -> GateFacts:
    """What is known of an arm's model beyond what was looked at for all lists together."""
    measured = champion is not None and champion != arm and settings.promotion.gate
    return GateFacts(
        duel(workspace, arm, champion, settings.evaluation.select_by) if measured and champion else None,
        served=1.0,
        n_strangers=_strangers(workspace.warehouse, arm, entity_ids(snapshot)),
        rolled_back=out,
    )


def _strangers(warehouse: Warehouse, challenger: Champion, ids: dict[str, list[str]]) -> int:
    count = 0
    for model_id in challenger.model_ids:
        for kind in ("user", "item"):
            path = warehouse.inside("models", model_id) / f"{kind}_ids.json"
            own, here = json.loads(path.read_text(encoding="utf-8")), ids[f"{kind}s"]
            count += sum(a != b for a, b in zip(own, here, strict=False)) + abs(len(own) - len(here))
    return count


def _quarantined_share(snapshot: Snapshot, n_entities: int) -> float:
    rows = records(snapshot.read("quarantine", columns=["kind", "entity_id"]))
    aside = {(row["kind"], row["entity_id"]) for row in rows if row["kind"] in ("item", "user")}
    return len(aside) / max(n_entities, 1)


def _drifts(warehouse: Warehouse, snapshot: Snapshot) -> tuple[tuple[str, float], ...]:
    from warehouse import drift

    if "embed" not in snapshot.stages:
        return ()
    with warehouse.catalogue(snapshot) as catalogue:
        moved = drift(catalogue)
    return tuple((one.measure, one.change) for one in moved if one.same_recipe and one.measure != "neighbours kept")


def _summary(
    snapshot: Snapshot,
    challenger: Champion,
    champion: Champion | None,
    verdict: str,
    reasons: list[str],
    facts: GateFacts,
) -> dict[str, Any]:
    ingest = snapshot.stages["ingest"]["summary"]
    return {
        "verdict": verdict,
        "model": challenger.label,
        "model_id": challenger.model_id,
        "model_ids": list(challenger.model_ids),
        "champion": champion.label if champion else None,
        "champion_ids": list(champion.model_ids) if champion else [],
        "reasons": reasons,
        "facts": _plain(asdict(facts)),
        "items_hash": ingest["items_hash"],
        "users_hash": ingest["users_hash"],
        "embeddings": snapshot.default_embeddings,
    }


def _plain(value: Any) -> Any:
    """The value as JSON has it: what is no number becomes null."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
