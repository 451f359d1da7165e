"""Settings of other packages looked at before a run begins: an error found after the profiles were paid for is dear."""

from __future__ import annotations

from collections.abc import Sequence

from flows.embedding_sets import EmbeddingSet, described, refuse_unknown_texts
from flows.settings import ProfileSettings
from flows.steps.evidence import load_prompts
from flows.workspace import Workspace


def check_engine(workspace: Workspace, settings: ProfileSettings) -> None:
    """Nothing, when prompts and engine are there and the engine has the cap, price and key it asks for.

    An engine that has answered for a snapshot here is not asked for its key again: its answers may be all there are.

    Raises:
        SettingValueError, and what prompts and providers refuse.
    """
    from providers import parse_engine

    load_prompts(settings)
    engine = parse_engine(settings.engine)
    used = {
        snapshot.stages.get("profile", {}).get("summary", {}).get("source")
        for snapshot in workspace.warehouse.snapshots()
    }
    if engine.source not in used:
        with engine.open():
            pass


def check_encoders(workspace: Workspace, sets: Sequence[EmbeddingSet]) -> None:
    """Nothing, when every encoder's files are there and may be read, or it has the cap, price and key it asks for.

    No model is loaded and nothing is asked. An encoder that has made vectors here is not asked for its key again.

    Raises:
        SettingValueError, and what providers refuses.
    """
    from providers import OpenAIEmbeddingsConfig

    used = {
        said.get("encoder_key")
        for snapshot in workspace.warehouse.snapshots()
        for said in snapshot.stages.get("embed", {}).get("summary", {}).get("sets", ())
    }
    for one in described(sets):
        if isinstance(one.config, OpenAIEmbeddingsConfig) and one.identity.key not in used:
            one.config.checked_key()


def check_texts(workspace: Workspace, snapshot_id: str, sets: Sequence[EmbeddingSet]) -> None:
    """Nothing, when every text that is to be embedded is a profile or a column of the snapshot.

    Raises:
        SettingValueError: names the columns there are.
    """
    summary = workspace.warehouse.snapshot(snapshot_id).stages["ingest"]["summary"]
    refuse_unknown_texts(sets, {kind: summary[f"{kind}_columns"] for kind in ("item", "user")})
