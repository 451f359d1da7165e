"""A small warehouse in which every table has rows and one profile changed between two snapshots."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from warehouse import Warehouse, arrow_rows, arrow_table

LONG_AGO = datetime(2026, 1, 2, 23, 30, tzinfo=UTC)
TITLES = {"0": "Quiet lake", "1": "Loud race", "2": "Long tale", "3": "=cmd|x"}
USERS = ("u", "v", "w")
WIDTH = 6


def vectors(seed: int, moved: dict[str, int] | None = None) -> dict[tuple[str, str], np.ndarray]:
    """(kind, id) → unit vector [WIDTH]; those in `moved` are drawn anew with the seed given there."""
    generator = np.random.default_rng(seed)
    names = [("item", item_id) for item_id in TITLES] + [("user", user_id) for user_id in USERS]
    drawn = {name: generator.normal(size=WIDTH).astype(np.float32) for name in names}
    for item_id, other in (moved or {}).items():
        drawn["item", item_id] = np.random.default_rng(other).normal(size=WIDTH).astype(np.float32)
    return {name: vector / np.linalg.norm(vector) for name, vector in drawn.items()}


BEFORE = vectors(5)
AFTER = vectors(5, {"1": 7})


def publish(root: Path) -> Warehouse:
    """Two snapshots, the first with everything, the second with another profile and vector of item 1."""
    warehouse = Warehouse(root)
    with warehouse.lock():
        builder = warehouse.begin(None)
        for table, rows in TABLES_OF_ROWS.items():
            builder.replace(table, arrow_rows(table, rows))
        said = profiles("A loud and fast puzzle.")
        builder.replace("profiles", arrow_rows("profiles", said))
        builder.replace("embeddings_mini", placed(BEFORE, said))
        first = warehouse.publish(builder.commit())
        builder = warehouse.begin(first)
        said = profiles("A slow puzzle on wheels.")
        builder.replace("profiles", arrow_rows("profiles", said))
        builder.replace("embeddings_mini", placed(AFTER, said))
        warehouse.publish(builder.commit())
    return warehouse


def placed(drawn: dict[tuple[str, str], np.ndarray], said: list[dict[str, Any]]) -> Any:
    """Vectors as rows of a table of embeddings, under the hashes of the profiles they were made of."""
    told = {(row["kind"], row["entity_id"]): row["profile"] or "pooled" for row in said}
    columns = {"kind": [kind for kind, _ in drawn], "entity_id": [entity for _, entity in drawn]}
    hashes = [sha256(told.get(entity, entity[1]).encode()).hexdigest() for entity in drawn]
    return arrow_table("embeddings_mini", {**columns, "text_hash": hashes, "embedding": np.stack(list(drawn.values()))})


def profiles(of_item_1: str) -> list[dict[str, Any]]:
    """A profile of every item, of which the third says what the first says; users are pooled."""
    said = {"0": "A calm game.", "1": of_item_1, "2": "A calm game.", "3": "=a formula"}
    rest = {"source": "tiny", "model": "tiny", "prompt_id": "games/item", "prompt_version": 1, "evidence_hash": "h"}
    items = [
        {"kind": "item", "entity_id": item_id, "profile": text, **rest, "evidence": [f"title of {item_id}"]}
        for item_id, text in said.items()
    ]
    pooled = {"profile": None, **rest, "source": "pooled", "model": "pooled", "prompt_id": "games/user"}
    return items + [{"kind": "user", "entity_id": user_id, **pooled, "evidence": []} for user_id in USERS]


def _call(key: str, attempt: int, state: str, **more: Any) -> dict[str, Any]:
    row = {"request_key": key, "attempt": attempt, "state": state, "model": "tiny", "kind": "item", "entity_id": key}
    return {**row, "started_at": LONG_AGO, "latency_ms": 12.5, "tokens_in": 10, "tokens_out": 5, "usd": 0.25, **more}


def _score(model: str, user: str, value: float) -> dict[str, Any]:
    named = {"run_id": "r", "model": model, "model_id": f"id-{model}", "user_id": user}
    return {**named, "metric": "recall", "k": 20, "value": value, "part": "test", "seed": 0}


def _mean(label: str, value: float) -> dict[str, Any]:
    named = {"run_id": "r", "model": label, "seed": 0, "protocol": "dmrec", "part": "test", "label": label}
    return {**named, "metric": "recall", "k": 20, "value": value}


PAIRS = [("u", "0"), ("u", "1"), ("v", "1"), ("v", "2"), ("w", "0"), ("w", "2")]
TABLES_OF_ROWS: dict[str, list[dict[str, Any]]] = {
    "items": [
        {"item_id": item_id, "title": title, "attributes": '{"developer": "Lake & Co"}'}
        for item_id, title in TITLES.items()
    ],
    "users": [{"user_id": user_id, "attributes": "{}"} for user_id in USERS],
    "interactions": [{"user_id": user, "item_id": item, "text": "=SUM(1)"} for user, item in PAIRS],
    "splits": [{"user_id": user, "item_id": item, "part": "train"} for user, item in PAIRS],
    "prompts": [{"prompt_id": "games/item", "version": 1, "fingerprint": "f", "text": "Say what it is."}],
    "quarantine": [{"stage": "profile", "kind": "user", "entity_id": "w", "code": "refused", "detail": "no"}],
    "decisions": [
        {"kind": "item", "entity_id": "3", "request_key": "3", "code": "echo", "profile": "x", "decided_at": LONG_AGO}
    ],
    "llm_calls": [
        _call("0", 1, "ok"),
        _call("1", 1, "retryable", usd=None, tokens_out=None),
        _call("1", 2, "ok", started_at=LONG_AGO + timedelta(hours=1)),
    ],
    "metrics": [_mean("dmrec", 0.2), _mean("mult_vae", 0.1)],
    "metrics_per_user": [_score(model, user, 0.5) for model in ("dmrec", "mult_vae") for user in USERS],
    "recommendations": [{"user_id": "u", "rank": 1, "item_id": "2", "score": 1.5}],
    "model_registry": [{"model_id": "m", "run_id": "r", "name": "dmrec", "state": "champion", "created_at": LONG_AGO}],
    "promotions": [
        {"n": 1, "decided_at": LONG_AGO, "verdict": "FIRST", "model": "dmrec", "model_ids": ["m"], "champion_ids": []}
        | {"snapshot": "s", "reasons": []}
    ],
    "runs": [{"run_id": "r", "command": "run", "started_at": LONG_AGO, "settings": "{}", "settings_hash": "s"}],
}
