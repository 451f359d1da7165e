"""What a language model was asked of items and users beside their profiles: a text, or a choice, an aspect."""

import pyarrow as pa

from warehouse.table import Table

AUGMENTATIONS = Table(
    "augmentations",
    pa.schema(
        [
            pa.field("kind", pa.string(), nullable=False),
            pa.field("entity_id", pa.string(), nullable=False),
            pa.field("aspect", pa.string(), nullable=False),
            pa.field("text", pa.string()),
            pa.field("liked", pa.string()),
            pa.field("refused", pa.string()),
            pa.field("candidates", pa.list_(pa.string()), nullable=False),
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
    keys=("kind", "entity_id", "aspect"),
)
