"""What was asked of language models, by day, engine and model: the same rows for SQL, the report and Prefect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from warehouse import Snapshot, Warehouse


def cost_rows(warehouse: Warehouse, snapshot: Snapshot) -> list[dict[str, Any]]:
    """The rows of `cost_by_engine()`, oldest day first; none where no model was ever asked.

    `usd` is None while a price in it is unknown; `engine` where calls belong to no finished run.
    """
    if not snapshot.rows("llm_calls"):
        return []
    with warehouse.catalogue(snapshot) as catalogue:
        return catalogue.query("FROM cost_by_engine()").to_pylist()
