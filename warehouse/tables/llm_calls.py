"""Every attempt to ask a language model, without the bodies; written from the ledger."""

import pyarrow as pa

from warehouse.table import Table

LLM_CALLS = Table(
    "llm_calls",
    pa.schema(
        [
            pa.field("request_key", pa.string(), nullable=False),
            pa.field("attempt", pa.int32(), nullable=False),
            pa.field("state", pa.string(), nullable=False),
            pa.field("status", pa.int32()),
            pa.field("model", pa.string()),
            pa.field("tokens_in", pa.int64()),
            pa.field("tokens_out", pa.int64()),
            pa.field("usd", pa.float64()),
            pa.field("started_at", pa.timestamp("us", "UTC"), nullable=False),
            pa.field("latency_ms", pa.float64()),
            pa.field("kind", pa.string()),
            pa.field("entity_id", pa.string()),
            pa.field("error", pa.string()),
            # the most the attempt could cost, written down before it was sent
            pa.field("worst_tokens", pa.int64()),
            pa.field("worst_usd", pa.float64()),
        ]
    ),
    keys=("request_key", "attempt"),
    history=True,
)
