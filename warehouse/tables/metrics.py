"""Means over users, one row per model, seed, part and metric, with the interval where there is one."""

import pyarrow as pa

from warehouse.table import Table

METRICS = Table(
    "metrics",
    pa.schema(
        [
            pa.field("run_id", pa.string(), nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("seed", pa.int64(), nullable=False),
            pa.field("protocol", pa.string(), nullable=False),
            pa.field("part", pa.string(), nullable=False),
            pa.field("metric", pa.string(), nullable=False),
            pa.field("k", pa.int32()),
            pa.field("value", pa.float64()),
            pa.field("low", pa.float64()),
            pa.field("high", pa.float64()),
            pa.field("label", pa.string()),
            pa.field("model_id", pa.string()),
        ]
    ),
    history=True,
)
