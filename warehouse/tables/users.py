"""Who is recommended to: an id and every attribute as one JSON object."""

import pyarrow as pa

from warehouse.table import Table

USERS = Table(
    "users",
    pa.schema(
        [
            pa.field("user_id", pa.string(), nullable=False),
            pa.field("attributes", pa.string(), nullable=False),
        ]
    ),
    keys=("user_id",),
)
