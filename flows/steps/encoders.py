"""An encoder opened for a run: one that is paid writes to the ledger, and what it took is counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.steps.rows import records
from flows.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

    from providers import Encoder, EncoderConfig, OpenAIEncoder, Progress
    from warehouse import Snapshot, SnapshotBuilder, Warehouse

# Bytes in the ledger for one number of a vector: base64 of a float32, and as much again in the newest backup.
_LEDGER_BYTES = 2 * 16 / 3
_LIKELY_WIDTH = 1536
SAFETY = 2


@contextmanager
def opened_encoder(
    workspace: Workspace, settings: EncoderConfig, n_texts: int, width: int | None = None
) -> Iterator[Encoder]:
    """The encoder, ready to encode; calls still out are waited for when the block ends, however it ends.

    Args:
        width: of the vectors this encoder made before, where there are any.

    Raises:
        TooLittleRoomError: less free than twice what the ledger may grow by; before any call.
    """
    from providers import OpenAIEmbeddingsConfig

    if not isinstance(settings, OpenAIEmbeddingsConfig):
        with settings.open() as encoder:
            yield encoder
        return

    def hear(progress: Progress) -> None:
        if progress.note is not None:
            workspace.progress.note(progress.note)

    n_bytes = n_texts * (settings.dim or _LIKELY_WIDTH) * _LEDGER_BYTES
    workspace.warehouse.require_room(int(SAFETY * n_bytes), f"the vectors of {n_texts:,} texts")
    with workspace.warehouse.ledger() as ledger, settings.open(ledger, hear, width) as encoder:
        try:
            yield encoder
        finally:
            _count(workspace, encoder)


def text_vector(warehouse: Warehouse, settings: EncoderConfig, text: str, width: int | None = None) -> np.ndarray:
    """float32 [width]: one text embedded now, outside any run; a paid encoder keeps the reply like any other.

    Raises:
        LockHeldError: a run is writing the ledger that a paid encoder needs.
        SettingValueError: the encoder gives no vector for it.
    """
    from flows.errors import SettingValueError
    from providers import OpenAIEmbeddingsConfig

    if not isinstance(settings, OpenAIEmbeddingsConfig):
        with settings.open() as encoder:
            return encoder.encode([text])[0]
    with warehouse.lock("similar"), warehouse.ledger() as ledger, settings.open(ledger, width=width) as encoder:
        vector = encoder.encode([text])[0]
    if text in encoder.set_aside:
        aside = encoder.set_aside[text]
        raise SettingValueError("text", text[:80], f"{settings.model} gives no vector ({aside.code}: {aside.detail})")
    return vector


def keeps_its_replies(settings: EncoderConfig) -> bool:
    """Whether what the encoder makes is in the ledger the moment it comes, and needs no shard."""
    from providers import OpenAIEmbeddingsConfig

    return isinstance(settings, OpenAIEmbeddingsConfig)


def set_aside(encoder: Encoder) -> dict[str, tuple[str, str]]:
    """text → (code, detail) of the texts that got no vector, which only a server refuses."""
    return {text: (aside.code, aside.detail) for text, aside in getattr(encoder, "set_aside", {}).items()}


def may_be_asked_again(workspace: Workspace, key: str) -> bool:
    """Whether `--retry` was said and texts were put aside the last time."""
    before = workspace.warehouse.find_stage("embed", key) if workspace.retry else None
    return before is not None and before.stages["embed"]["summary"].get("set_aside", 0) > 0


def put_aside(
    workspace: Workspace, builder: SnapshotBuilder, upstream: Snapshot, why: Mapping[tuple[str, str], tuple[str, str]]
) -> None:
    """Those without a vector because a text of theirs was refused are rows of `quarantine` now.

    Args:
        why: (kind, id) → (code, detail).
    """
    from warehouse import arrow_rows

    rows = [row for row in records(upstream.read("quarantine")) if row["stage"] != "embed"]
    for (kind, entity_id), (code, detail) in why.items():
        told = {"code": code, "detail": detail, "run_id": workspace.run_id}
        rows.append({"stage": "embed", "kind": kind, "entity_id": entity_id, **told})
    builder.replace("quarantine", arrow_rows("quarantine", rows))


def spent(encoder: Encoder) -> str:
    """What this run has paid for vectors so far, in words; nothing where nobody asks."""
    taken = getattr(encoder, "taken", None)
    if taken is None or not taken.calls:
        return ""
    return f"{taken.calls:,} calls, " + ("price unknown" if taken.usd is None else f"{taken.usd:.4f} USD")


def _count(workspace: Workspace, encoder: OpenAIEncoder) -> None:
    tally, taken = workspace.tally.vectors, encoder.taken
    tally.calls += taken.calls
    tally.replies += taken.replies
    tally.cached += taken.cached
    tally.failed += len(encoder.set_aside)
    tally.tokens_in += taken.tokens_in
    tally.usd = None if tally.usd is None or taken.usd is None else tally.usd + taken.usd
