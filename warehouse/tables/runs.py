"""Every command that changed something: when, with which settings and versions, how it ended."""

import pyarrow as pa

from warehouse.table import Table

RUNS = Table(
    "runs",
    pa.schema(
        [
            pa.field("run_id", pa.string(), nullable=False),
            pa.field("command", pa.string(), nullable=False),
            pa.field("started_at", pa.timestamp("us", "UTC"), nullable=False),
            pa.field("seconds", pa.float64()),
            pa.field("settings", pa.string(), nullable=False),
            pa.field("settings_hash", pa.string(), nullable=False),
            pa.field("code_version", pa.string()),
            pa.field("versions", pa.string()),
            pa.field("exit_code", pa.int32()),
        ]
    ),
    keys=("run_id",),
    history=True,
)
