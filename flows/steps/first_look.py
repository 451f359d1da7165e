"""Settings of other packages looked at before a run begins: an error found after the profiles were paid for is dear."""

from __future__ import annotations

from flows.settings import PlainMapping, ProfileSettings
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


def check_encoder(workspace: Workspace, settings: PlainMapping) -> None:
    """Nothing, when the encoder's files are there and may be read, or it has the cap, price and key it asks for.

    No model is loaded and nothing is asked. An encoder that has made vectors here is not asked for its key again.

    Raises:
        What providers refuses.
    """
    from providers import OpenAIEmbeddingsConfig, parse_encoder

    encoder = parse_encoder(settings)
    identity = encoder.describe()
    used = {
        snapshot.stages.get("embed", {}).get("summary", {}).get("encoder_key")
        for snapshot in workspace.warehouse.snapshots()
    }
    if isinstance(encoder, OpenAIEmbeddingsConfig) and identity.key not in used:
        encoder.checked_key()
