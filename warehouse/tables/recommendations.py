"""The list each user gets, best first."""

import pyarrow as pa

from warehouse.table import Table

RECOMMENDATIONS = Table(
    "recommendations",
    pa.schema(
        [
            pa.field("user_id", pa.string(), nullable=False),
            pa.field("rank", pa.int32(), nullable=False),
            pa.field("item_id", pa.string(), nullable=False),
            pa.field("score", pa.float64()),
            pa.field("reason", pa.string()),
            pa.field("model", pa.string()),
            pa.field("snapshot", pa.string()),
            pa.field("variant", pa.string()),
        ]
    ),
)
