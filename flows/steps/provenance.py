"""Where a profile comes from: its prompt, the evidence it was shown, its calls, and what it said before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.steps.rows import records

if TYPE_CHECKING:
    from warehouse import Snapshot, Warehouse

_CALL_COLUMNS = ("request_key", "attempt", "state", "status", "model", "tokens_in", "tokens_out", "usd", "started_at")


def profiles_of(warehouse: Warehouse, snapshot: Snapshot, entity_id: str) -> list[dict[str, Any]]:
    """Everything known of the profiles of an id, items before users; empty where there are none."""
    return [found for kind in ("item", "user") if (found := _profile_of(warehouse, snapshot, kind, entity_id))]


def _profile_of(warehouse: Warehouse, snapshot: Snapshot, kind: str, entity_id: str) -> dict[str, Any] | None:
    same = {"kind": kind, "entity_id": entity_id}
    rows = records(snapshot.read("profiles", filter_equal=same))
    aside = records(snapshot.read("quarantine", filter_equal=same | {"stage": "profile"}))
    if not rows and not aside:
        return None
    row = rows[0] if rows else {"kind": kind, "entity_id": entity_id, "profile": None, "evidence": []}
    with warehouse.catalogue(snapshot) as catalogue:
        history = catalogue.query("SELECT * FROM profile_history(?) WHERE kind = ?", [entity_id, kind]).to_pylist()
    calls = _calls(snapshot, kind, entity_id, row.get("request_key"))
    known = [call["usd"] for call in calls if call["usd"] is not None]
    return {
        **row,
        "quarantine": [{"code": fault["code"], "detail": fault["detail"]} for fault in aside],
        "decisions": [row for row in records(snapshot.read("decisions", filter_equal=same)) if row["aspect"] is None],
        "evidence": _evidence(snapshot, kind, row["evidence"]),
        "history": history,
        "calls": calls,
        "usd": sum(known) if known else None,
    }


def _calls(snapshot: Snapshot, kind: str, entity_id: str, key: str | None) -> list[dict[str, Any]]:
    """The calls made for this entity, and those of an equal request that another one paid for."""
    own = records(snapshot.read("llm_calls", filter_equal={"kind": kind, "entity_id": entity_id}))
    same = records(snapshot.read("llm_calls", filter_equal={"request_key": key})) if key else []
    distinct = {(call["request_key"], call["attempt"]): call for call in [*own, *same]}
    return [{name: call[name] for name in _CALL_COLUMNS} for call in distinct.values()]


def _evidence(snapshot: Snapshot, kind: str, ids: list[str]) -> list[dict[str, Any]]:
    """A user's training items with their titles; the reviewers of an item by their ids alone."""
    if kind == "item" or not ids:
        return [{"user_id": entity_id} for entity_id in ids]
    items = snapshot.read("items", columns=["item_id", "title"])
    titles = dict(zip(items.column("item_id").to_pylist(), items.column("title").to_pylist(), strict=True))
    return [{"item_id": entity_id, "title": titles.get(entity_id)} for entity_id in ids]
