"""The flow `embed-profiles`: sources → profiles → vectors."""

from __future__ import annotations

from flows.build_profiles import build_profiles
from flows.embedding_sets import embedding_sets
from flows.settings import Settings
from flows.stage import Stage, call
from flows.steps import embed, first_look
from flows.workspace import Workspace


def embed_profiles(settings: Settings, workspace: Workspace, stage: Stage = call) -> str:
    """Id of a snapshot with the vectors of every set."""
    sets = embedding_sets(settings)
    stage(first_look.check_encoders, workspace, sets)
    snapshot = build_profiles(settings, workspace, stage)
    return stage(embed.embed_profiles, workspace, snapshot, sets)
