"""Every trained model and the state it is in; the newest row of a model is the one that counts."""

import pyarrow as pa

from warehouse.table import Table

MODEL_REGISTRY = Table(
    "model_registry",
    pa.schema(
        [
            pa.field("model_id", pa.string(), nullable=False),
            pa.field("run_id", pa.string(), nullable=False),
            pa.field("name", pa.string(), nullable=False),
            pa.field("snapshot", pa.string()),
            pa.field("state", pa.string(), nullable=False),
            pa.field("created_at", pa.timestamp("us", "UTC"), nullable=False),
            pa.field("settings", pa.string()),
            pa.field("metrics", pa.string()),
        ]
    ),
    history=True,
)
