"""What the questions beyond profiles would cost: rehearsed with stored replies, like the profiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from flows.settings import ProfileSettings
from flows.steps.aspects import load_aspects, questioners
from flows.steps.augment import answered
from flows.steps.evidence import PromptPair, TrainingWorld
from flows.steps.rehearse import Rehearsal, playing_through

if TYPE_CHECKING:
    from providers import EngineConfig
    from warehouse import Warehouse


def rehearse_answers(
    warehouse: Warehouse,
    settings: ProfileSettings,
    engine: EngineConfig,
    pair: PromptPair,
    world: TrainingWorld,
    item_profiles: Mapping[str, str],
    aspects: tuple[str, ...],
) -> tuple[Rehearsal, list[str]]:
    """Every question of the stage `augment`, looked up in the ledger, and the texts to embed; nothing is sent.

    Args:
        item_profiles: written ones, or what stands for those to come.
    """
    askers = questioners(load_aspects(aspects, pair, settings), world, settings, engine, item_profiles)
    with playing_through(warehouse, engine) as (workspace, rehearsal, stored, ledger):
        _, kept = answered(workspace, askers, settings, engine, stored, ledger)
    return rehearsal, [row["text"] for row in kept if row["text"]]
