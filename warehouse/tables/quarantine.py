"""Rows that were put aside: where, which, why; `aspect` names the question where it was not for a profile."""

import pyarrow as pa

from warehouse.table import Table

QUARANTINE = Table(
    "quarantine",
    pa.schema(
        [
            pa.field("stage", pa.string(), nullable=False),
            pa.field("kind", pa.string(), nullable=False),
            pa.field("entity_id", pa.string(), nullable=False),
            pa.field("code", pa.string(), nullable=False),
            pa.field("detail", pa.string()),
            pa.field("run_id", pa.string()),
            pa.field("aspect", pa.string()),
        ]
    ),
)
