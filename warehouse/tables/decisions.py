"""Replies a person accepted although they were put aside: which text, of which request, and when.

`profile` is the text; of a choice among candidates their numbers, as JSON. `aspect` names the question, null a profile.
"""

import pyarrow as pa

from warehouse.table import Table

DECISIONS = Table(
    "decisions",
    pa.schema(
        [
            pa.field("kind", pa.string(), nullable=False),
            pa.field("entity_id", pa.string(), nullable=False),
            pa.field("request_key", pa.string(), nullable=False),
            pa.field("code", pa.string(), nullable=False),
            pa.field("profile", pa.string(), nullable=False),
            pa.field("decided_at", pa.timestamp("us", "UTC"), nullable=False),
            pa.field("run_id", pa.string()),
            pa.field("aspect", pa.string()),
        ]
    ),
    history=True,
)
