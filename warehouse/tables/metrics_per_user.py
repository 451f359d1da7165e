"""The same metrics user by user, for paired comparisons."""

import pyarrow as pa

from warehouse.table import Table

METRICS_PER_USER = Table(
    "metrics_per_user",
    pa.schema(
        [
            pa.field("run_id", pa.string(), nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("model_id", pa.string()),
            pa.field("user_id", pa.string(), nullable=False),
            pa.field("metric", pa.string(), nullable=False),
            pa.field("k", pa.int32()),
            pa.field("value", pa.float64()),
            pa.field("part", pa.string()),
            pa.field("seed", pa.int64()),
        ]
    ),
    history=True,
)
