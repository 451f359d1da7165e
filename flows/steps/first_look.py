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


def check_encoder(settings: PlainMapping) -> None:
    """Nothing, when the encoder's files are there and may be read; no model is loaded.

    Raises:
        What providers refuses.
    """
    from providers import parse_encoder

    parse_encoder(settings).describe()
