"""What some models ask a language model for beside profiles, and the questions of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flows.model_choices import ModelChoice
from flows.settings import ProfileSettings, Settings
from flows.steps.evidence import PromptPair, TrainingWorld, item_text_evidence, user_text_evidence
from flows.steps.questions import Question, question_of

if TYPE_CHECKING:
    from prompts import Evidence, Prompt
    from providers import EngineConfig

# What each model reads of it, by catalogue name; a choice becomes edges, everything else texts that are embedded.
READS: dict[str, tuple[str, ...]] = {
    "llmrec": ("choice", "facts", "missing"),
    "kar": ("preference", "factual"),
}
CHOICE = "choice"
CANDIDATES = 10


def aspects_of(name: str) -> tuple[str, ...]:
    """What a model of the catalogue reads beside profiles."""
    return READS.get(name, ())


def has_language_model(settings: Settings) -> bool:
    """Whether the engine is one that can be asked anything."""
    return settings.profiles.engine.get("name") != "attributes"


def aspects_to_ask(choices: Iterable[ModelChoice], settings: Settings) -> tuple[str, ...]:
    """What the models of a command are to be asked for: nothing where no language model is configured."""
    if not has_language_model(settings):
        return ()
    wanted = {aspect for choice in choices for aspect in aspects_of(choice.name)}
    return tuple(sorted(wanted))


def load_aspects(aspects: Iterable[str], pair: PromptPair, settings: ProfileSettings) -> dict[str, Prompt]:
    """aspect -> its prompt, reading what the domain's profile prompts may read."""
    from prompts import ASPECTS, load_aspect

    directory = Path(settings.prompts_dir) if settings.prompts_dir else None
    return {aspect: load_aspect(aspect, pair.of(ASPECTS[aspect]), directory) for aspect in aspects}


@dataclass(frozen=True)
class AspectQuestioner:
    """Makes the question of one aspect for any item or user, the same whenever it is asked for.

    Args:
        item_profiles: item id -> profile, as users' prompts show it.
        candidates: user id -> items to choose among; read by the aspect `choice` alone.
    """

    aspect: str
    prompt: Prompt
    world: TrainingWorld
    settings: ProfileSettings
    engine: EngineConfig
    item_profiles: Mapping[str, str]
    candidates: Mapping[str, list[str]]

    def ids(self, kind: str) -> list[str]:
        """Every id of the kind that is asked about, in index order."""
        if kind != self.prompt.kind:
            return []
        return list(self.world.items if kind == "item" else self.world.users)

    def of(self, kind: str, entity_id: str) -> Question | None:
        """The question of an entity; None where nothing is known of it, or there is nothing to choose."""
        evidence = self.evidence(entity_id)
        return None if evidence is None else question_of(self.engine, self._prompt(evidence), evidence, entity_id)

    def evidence(self, entity_id: str) -> Evidence | None:
        """What the model is shown, from training rows alone."""
        from prompts import with_candidates

        alike = PromptPair(self.prompt, self.prompt)
        if self.prompt.kind == "item":
            return item_text_evidence(self.world, alike, self.settings.seed, entity_id)
        evidence = user_text_evidence(self.world, alike, self.item_profiles, self.settings.seed, entity_id)
        if self.aspect != CHOICE or evidence is None:
            return evidence
        offered = self.candidates.get(entity_id, [])
        if not evidence.history or len(offered) < 2:
            return None
        titles = [self.world.items[item_id].get("title") for item_id in offered]
        described = [self.item_profiles.get(item_id) for item_id in offered]
        return with_candidates(evidence, self.prompt, list(zip(titles, described, strict=True)))

    def _prompt(self, evidence: Evidence) -> Prompt:
        return self.prompt.choosing_among(len(evidence.candidates)) if evidence.candidates else self.prompt


def questioners(
    prompts: Mapping[str, Prompt],
    world: TrainingWorld,
    settings: ProfileSettings,
    engine: EngineConfig,
    item_profiles: Mapping[str, str],
) -> list[AspectQuestioner]:
    """The questions of every aspect."""
    offered = candidates_of(world, item_profiles) if CHOICE in prompts else {}
    return [
        AspectQuestioner(aspect, prompt, world, settings, engine, item_profiles, offered)
        for aspect, prompt in prompts.items()
    ]


def candidates_of(world: TrainingWorld, item_profiles: Mapping[str, str]) -> dict[str, list[str]]:
    """user id -> up to ten items with a profile that are near the user's training items, in index order.

    The order says nothing of how near they are, so that a model which likes first places learns nothing from it.
    """
    from rec_models import InteractionMatrix, graph_candidates

    items, users = list(world.items), list(world.users)
    place = {item_id: index for index, item_id in enumerate(items)}
    pairs = [(row, place[one.item_id]) for row, user in enumerate(users) for one in world.histories.get(user, ())]
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    train = InteractionMatrix.from_pairs(rows, columns, None, n_users=len(users), n_items=len(items))
    allowed = np.array([item_id in item_profiles for item_id in items], bool)
    found = graph_candidates(train, allowed, CANDIDATES)
    return {user: [items[index] for index in np.sort(found[row]) if index >= 0] for row, user in enumerate(users)}
