"""The prompt files the profiles were built with, text included."""

import pyarrow as pa

from warehouse.table import Table

PROMPTS = Table(
    "prompts",
    pa.schema(
        [
            pa.field("prompt_id", pa.string(), nullable=False),
            pa.field("version", pa.int32(), nullable=False),
            pa.field("fingerprint", pa.string(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
        ]
    ),
    keys=("prompt_id", "version", "fingerprint"),
)
