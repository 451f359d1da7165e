"""One unit vector per item and user; stored once per encoder as `embeddings_<encoder>`."""

import pyarrow as pa

from warehouse.table import Table

# a member's `embedding` is fixed_size_list<float32>[d]: each encoder has its own d
EMBEDDINGS = Table(
    "embeddings",
    pa.schema(
        [
            pa.field("kind", pa.string(), nullable=False),
            pa.field("entity_id", pa.string(), nullable=False),
            pa.field("text_hash", pa.string(), nullable=False),
            pa.field("embedding", pa.list_(pa.float32()), nullable=False),
        ]
    ),
    keys=("kind", "entity_id"),
    family=True,
)
