"""The flow `build-profiles`: sources → profiles."""

from __future__ import annotations

from flows.embedding_sets import embedding_sets
from flows.ingest_sources import ingest_sources
from flows.settings import Settings
from flows.stage import Stage, call
from flows.steps import first_look, profile
from flows.workspace import Workspace


def build_profiles(settings: Settings, workspace: Workspace, stage: Stage = call) -> str:
    """Id of a snapshot with a profile for everyone who has something to say."""
    stage(first_look.check_engine, workspace, settings.profiles)
    snapshot = ingest_sources(settings, workspace, stage)
    stage(first_look.check_texts, workspace, snapshot, embedding_sets(settings))
    return stage(profile.build_profiles, workspace, snapshot, settings.profiles)
