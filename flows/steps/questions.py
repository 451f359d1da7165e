"""The question of every item and user: its evidence rendered for an engine, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from flows.settings import ProfileSettings
from flows.steps.evidence import PromptPair, TrainingWorld, has_attributes, item_text_evidence, user_text_evidence

if TYPE_CHECKING:
    from prompts import Evidence, Prompt, Rendered
    from providers import EngineConfig, Request


@dataclass(frozen=True)
class Question:
    """What is asked of one entity, and what the model is shown."""

    request: Request
    rendered: Rendered

    @property
    def evidence(self) -> Evidence:
        return self.rendered.evidence


class Questions(Protocol):
    """Who is asked about, and the question of each; None where there is nothing to ask."""

    def ids(self, kind: str) -> list[str]: ...

    def of(self, kind: str, entity_id: str) -> Question | None: ...


@dataclass(frozen=True)
class Questioner:
    """Makes the question of any item or user, the same whenever it is asked for.

    Args:
        item_profiles: item id → profile, which users' prompts show.
    """

    world: TrainingWorld
    pair: PromptPair
    settings: ProfileSettings
    engine: EngineConfig
    item_profiles: Mapping[str, str]

    def item(self, item_id: str) -> Question | None:
        """The question of an item; None where it has no text at all."""
        evidence = item_text_evidence(self.world, self.pair, self.settings.seed, item_id)
        return self._asked(self.pair.item, evidence, item_id)

    def user(self, user_id: str) -> Question | None:
        """The question of a user; None where the vector is pooled.

        The attributes engine composes a text from attributes alone, so it has nothing to say of a user without any.
        """
        speaks = self.engine.source != "attributes" or has_attributes(self.world, self.pair, user_id)
        if not speaks:
            return None
        evidence = user_text_evidence(self.world, self.pair, self.item_profiles, self.settings.seed, user_id)
        return self._asked(self.pair.user, evidence, user_id)

    def of(self, kind: str, entity_id: str) -> Question | None:
        return self.item(entity_id) if kind == "item" else self.user(entity_id)

    def ids(self, kind: str) -> list[str]:
        """Every id of a kind, in index order."""
        return list(self.world.items if kind == "item" else self.world.users)

    def _asked(self, prompt: Prompt, evidence: Evidence | None, entity_id: str) -> Question | None:
        return None if evidence is None else question_of(self.engine, prompt, evidence, entity_id)


def question_of(engine: EngineConfig, prompt: Prompt, evidence: Evidence, entity_id: str) -> Question:
    """A prompt filled with evidence, as an engine is asked."""
    from prompts import render

    rendered = render(prompt, evidence)
    # what composes texts from fields has no use for messages, and rendering them is most of the work
    messages = rendered.messages if engine.source != "attributes" else ()
    request = engine.request(
        messages=messages, schema=rendered.schema, fields=rendered.fields, kind=prompt.kind, entity_id=entity_id
    )
    return Question(request, rendered)
