"""Every decision about which model serves: promoted, refused with reasons, rolled back; `n` orders them, not the time.

`model` is the one that was judged, or put back; `champion` the one that served until then, null where none did.
`verdict` is FIRST, BLESSED, NOT_BLESSED, BY_HAND or ROLLED_BACK; `snapshot` the version that was judged.
"""

import pyarrow as pa

from warehouse.table import Table

PROMOTIONS = Table(
    "promotions",
    pa.schema(
        [
            pa.field("n", pa.int64(), nullable=False),
            pa.field("decided_at", pa.timestamp("us", "UTC"), nullable=False),
            pa.field("run_id", pa.string()),
            pa.field("verdict", pa.string(), nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("model_ids", pa.list_(pa.string()), nullable=False),
            pa.field("champion", pa.string()),
            pa.field("champion_ids", pa.list_(pa.string()), nullable=False),
            pa.field("snapshot", pa.string(), nullable=False),
            # the primary metric over the users that both could be tested on; null where there was no champion
            pa.field("metric", pa.string()),
            pa.field("value", pa.float64()),
            pa.field("champion_value", pa.float64()),
            pa.field("difference", pa.float64()),
            pa.field("low", pa.float64()),
            pa.field("high", pa.float64()),
            pa.field("n_users", pa.int64()),
            pa.field("reasons", pa.list_(pa.string()), nullable=False),
            pa.field("facts", pa.string()),
        ]
    ),
    history=True,
)
