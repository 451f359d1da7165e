"""What is said of each item and user, by whom, from which evidence."""

import pyarrow as pa

from warehouse.table import Table

PROFILES = Table(
    "profiles",
    pa.schema(
        [
            pa.field("kind", pa.string(), nullable=False),
            pa.field("entity_id", pa.string(), nullable=False),
            pa.field("profile", pa.string()),
            pa.field("reasoning", pa.string()),
            pa.field("source", pa.string(), nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("prompt_id", pa.string(), nullable=False),
            pa.field("prompt_version", pa.int32(), nullable=False),
            pa.field("evidence_hash", pa.string(), nullable=False),
            pa.field("evidence", pa.list_(pa.string()), nullable=False),
            pa.field("request_key", pa.string()),
            pa.field("snapshot", pa.string()),
        ]
    ),
    keys=("kind", "entity_id"),
)
