"""Which part of the split each interaction belongs to: train, valid, test or, of a user held out, fold_in."""

import pyarrow as pa

from warehouse.table import Table

SPLITS = Table(
    "splits",
    pa.schema(
        [
            pa.field("user_id", pa.string(), nullable=False),
            pa.field("item_id", pa.string(), nullable=False),
            pa.field("part", pa.string(), nullable=False),
        ]
    ),
    keys=("user_id", "item_id"),
)
