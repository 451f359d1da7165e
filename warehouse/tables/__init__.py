"""Every table of the warehouse; a new one is a file beside this and a name in `TABLES`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from warehouse.errors import SchemaMismatchError, UnknownTableError
from warehouse.table import Table, declared
from warehouse.tables.augmentations import AUGMENTATIONS
from warehouse.tables.decisions import DECISIONS
from warehouse.tables.embeddings import EMBEDDINGS
from warehouse.tables.interactions import INTERACTIONS
from warehouse.tables.items import ITEMS
from warehouse.tables.llm_calls import LLM_CALLS
from warehouse.tables.metrics import METRICS
from warehouse.tables.metrics_per_user import METRICS_PER_USER
from warehouse.tables.model_registry import MODEL_REGISTRY
from warehouse.tables.profiles import PROFILES
from warehouse.tables.promotions import PROMOTIONS
from warehouse.tables.prompts import PROMPTS
from warehouse.tables.quarantine import QUARANTINE
from warehouse.tables.recommendations import RECOMMENDATIONS
from warehouse.tables.runs import RUNS
from warehouse.tables.splits import SPLITS
from warehouse.tables.users import USERS

TABLES: tuple[Table, ...] = (
    ITEMS,
    USERS,
    INTERACTIONS,
    SPLITS,
    PROMPTS,
    PROFILES,
    AUGMENTATIONS,
    EMBEDDINGS,
    RECOMMENDATIONS,
    METRICS,
    METRICS_PER_USER,
    MODEL_REGISTRY,
    RUNS,
    LLM_CALLS,
    QUARANTINE,
    DECISIONS,
    PROMOTIONS,
)


def arrow_table(table: Table | str | None, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> pa.Table:
    """Columns as Arrow, in a declared table's order and types; with None, in the types the values have.

    Args:
        table: a table, a declared name (`embeddings_<encoder>` included) or None.
        columns: name → values of equal length; a 2-d float array becomes one vector a row.

    Raises:
        UnknownTableError: nothing of that name is declared.
        SchemaMismatchError: the values do not fit; missing nullable columns are null.
    """
    if isinstance(table, str):
        table = _declared(table)
    types = {field.name: field.type for field in table.schema} if table else {}
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = _array(values, types.get(name))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            where = table.name if table else name
            raise SchemaMismatchError(where, f"column `{name}`: {error}", str(types.get(name))) from error
    rows = pa.table(arrays)
    return table.conform(rows) if table else rows


def arrow_rows(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as Arrow, in a declared table's order and types; no rows make the empty table.

    Raises:
        UnknownTableError, SchemaMismatchError: as `arrow_table`.
    """
    table = _declared(name)
    names = dict.fromkeys(column for row in rows for column in row) or table.schema.names
    return arrow_table(table, {column: [row.get(column) for row in rows] for column in names})


def _declared(name: str) -> Table:
    found = declared(TABLES, name)
    if found is None:
        raise UnknownTableError(name, [known.name for known in TABLES])
    return found


def _array(values: Sequence[Any] | np.ndarray, kind: pa.DataType | None) -> pa.Array:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), values.shape[1])
    if isinstance(values, np.ndarray) and kind is not None and pa.types.is_floating(kind):
        # a NaN is a number that was never measured
        return pa.array(values, from_pandas=True).cast(kind)
    return pa.array(values, kind)
