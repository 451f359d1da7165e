"""Who met what: one row a pair, with what is known of the meeting."""

import pyarrow as pa

from warehouse.table import Table

INTERACTIONS = Table(
    "interactions",
    pa.schema(
        [
            pa.field("user_id", pa.string(), nullable=False),
            pa.field("item_id", pa.string(), nullable=False),
            pa.field("rating", pa.float64()),
            pa.field("timestamp", pa.timestamp("us", "UTC")),
            pa.field("text", pa.string()),
        ]
    ),
    keys=("user_id", "item_id"),
)
