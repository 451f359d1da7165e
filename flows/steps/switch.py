"""The switch by hand: another version's model, item map, vectors and lists served in one step, or those before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.promotion_errors import NothingToRollBackError, UnknownPromotionError
from flows.settings import Settings
from flows.steps.champions import (
    BY_HAND,
    ROLLED_BACK,
    Champion,
    champion_of,
    champions,
    decisions,
    judged_versions,
    version_of,
)
from flows.steps.duel import refuse_lost
from flows.steps.promote import append_decision
from flows.steps.publish import append_run
from flows.workspace import Workspace

if TYPE_CHECKING:
    from warehouse import Snapshot, Warehouse


def promote_to(workspace: Workspace, wanted: str, settings: Settings) -> str:
    """Id of the published snapshot, whose model is the wanted one; CURRENT where that serves already.

    Args:
        wanted: the id of a version with lists for its users, or of a model that made some, or how one of them begins.

    Raises:
        UnknownPromotionError: no kept version is meant.
        ChampionLostError: the model's files are not what training wrote.
    """
    return _switch(workspace, _found(workspace.warehouse, wanted), BY_HAND, settings)


def roll_back(workspace: Workspace, settings: Settings) -> str:
    """Id of the published snapshot: the newest kept version of the model that served before this one.

    The model that served is not promoted again by the gate; `promote_to` brings it back.

    Raises:
        NothingToRollBackError: none served before.
        UnknownPromotionError: no version of that model was kept.
    """
    line = champions(decisions(workspace.warehouse.current()))
    if len(line) < 2:
        raise NothingToRollBackError(line[0].label if line else None)
    target = version_of(workspace.warehouse, line[-2].model_ids)
    if target is None:
        raise UnknownPromotionError(line[-2].model_id, _known(workspace.warehouse))
    return _switch(workspace, target, ROLLED_BACK, settings)


def _switch(workspace: Workspace, target: Snapshot, verdict: str, settings: Settings) -> str:
    warehouse = workspace.warehouse
    current, said = warehouse.current(), target.stages["promote"]["summary"]
    serving, chosen = champion_of(current), Champion(said["model"], tuple(said["model_ids"]))
    if current is not None and serving == chosen and current.counter >= target.counter:
        return current.id
    refuse_lost(warehouse, chosen)
    before = {
        "champion": serving.label if serving else None,
        "champion_ids": list(serving.model_ids) if serving else [],
    }
    summary = {**said, **before, "verdict": verdict, "reasons": []}
    builder = warehouse.begin(target)
    append_decision(builder, workspace, decisions(current), target.id, {**summary, "facts": {}})
    builder.stage("promote", key=target.stages["promote"]["key"], summary=summary)
    mark = append_run(workspace, builder, settings, 0)
    # what was published once is switched to in a moment: only files that changed since are hashed again
    return warehouse.publish(workspace.commit(builder, mark), trust_notes=True).id


def _found(warehouse: Warehouse, wanted: str) -> Snapshot:
    for snapshot in judged_versions(warehouse):
        names = (snapshot.id, *snapshot.stages["promote"]["summary"]["model_ids"])
        if wanted and any(name.startswith(wanted) for name in names):
            return snapshot
    raise UnknownPromotionError(wanted, _known(warehouse))


def _known(warehouse: Warehouse) -> list[str]:
    """`label (model id, snapshot id)` of the newest version of every model."""
    newest: dict[str, str] = {}
    for snapshot in warehouse.snapshots():
        if said := snapshot.stages.get("promote", {}).get("summary"):
            newest.setdefault(said["model_id"], f"{said['model']} ({said['model_id']}, {snapshot.id})")
    return list(newest.values())[:10]
