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
            # what the run asked of a language model; null in rows from before these were kept
            pa.field("engine", pa.string()),
            pa.field("model", pa.string()),
            pa.field("calls", pa.int64()),
            pa.field("replies", pa.int64()),
            pa.field("cached", pa.int64()),
            pa.field("reasked", pa.int64()),
            pa.field("quarantined", pa.int64()),
            pa.field("tokens_in", pa.int64()),
            pa.field("tokens_out", pa.int64()),
            pa.field("usd", pa.float64()),
        ]
    ),
    keys=("run_id",),
    history=True,
)
