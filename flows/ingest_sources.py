"""The flow `ingest`: sources → items, users, interactions, splits."""

from __future__ import annotations

from flows.settings import Settings
from flows.stage import Stage, call
from flows.steps.ingest import ingest
from flows.workspace import Workspace


def ingest_sources(settings: Settings, workspace: Workspace, stage: Stage = call) -> str:
    """Id of a snapshot of the sources as they are today."""
    return stage(ingest, workspace, settings.source, settings.split)
