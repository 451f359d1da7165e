"""What can be recommended: an id, a title and every attribute as one JSON object."""

import pyarrow as pa

from warehouse.table import Table

ITEMS = Table(
    "items",
    pa.schema(
        [
            pa.field("item_id", pa.string(), nullable=False),
            pa.field("title", pa.string()),
            pa.field("attributes", pa.string(), nullable=False),
        ]
    ),
    keys=("item_id",),
)
