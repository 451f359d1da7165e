"""A few of the questions a run would ask, asked now: their replies are kept, so the run does not ask them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flows.errors import SettingValueError
from flows.settings import Settings
from flows.steps.evidence import check_columns, load_prompts, training_world
from flows.steps.preview import tables_of_today, usable_reply
from flows.steps.questions import Question
from flows.steps.rehearse import Ask, rehearse
from flows.workspace import Workspace

_ASK_NOBODY_AT_ONCE = {
    "attributes": "it composes texts and asks no model, so there is nothing to try; `semalign plan` says all",
    "file": "its answers come from another program; run `semalign profile` on a few items instead",
    "openai-batch": "its answers take hours; try with profiles.engine.name=openai, whose replies are the same requests",
}


@dataclass
class Pilot:
    """What a pilot did; `usd` is None while a price is unknown, `unusable` counts replies by the code of a fault."""

    asked: int = 0
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float | None = 0.0
    unusable: dict[str, int] = field(default_factory=dict)


def run_pilot(workspace: Workspace, settings: Settings, n: int) -> Pilot:
    """Asks n of the unanswered questions, spread evenly over the catalogue; fewer where fewer are ready to be asked.

    Every call goes through the ledger and the engine's caps. No fault of a reply is asked about again here.

    Raises:
        SettingValueError: the engine does not answer at once.
        MissingCapError, and what else `open` refuses and a run stops at.
    """
    from providers import parse_engine

    profiles = settings.profiles
    engine_settings, pair = parse_engine(profiles.engine), load_prompts(profiles)
    if why := _ASK_NOBODY_AT_ONCE.get(engine_settings.name):
        raise SettingValueError("profiles.engine.name", engine_settings.name, why)
    pilot = Pilot()
    with engine_settings.open() as engine:  # refused before anything is read, as a run would be
        read, summary = tables_of_today(settings, workspace.warehouse)
        check_columns(pair, summary)
        world = training_world(read, profiles.pii)
        rehearsal = rehearse(workspace.warehouse, profiles, engine_settings, pair, world)
        ready = [ask for ask in rehearsal.asks.values() if ask.ready and ask.attempt_class == "first"]
        questions: dict[str, Question] = {}
        for ask in _evenly(ready, n):
            question = rehearsal.questioners[ask.kind].of(ask.kind, ask.entity_id)
            assert question is not None, "what was rehearsed can be asked"
            questions[question.request.key] = question
        pilot.asked = len(questions)
        with workspace.warehouse.ledger() as ledger:
            for completion in engine.complete((question.request for question in questions.values()), ledger):
                workspace.tally.calls += completion.calls
                pilot.calls += completion.calls
                pilot.tokens_in += completion.tokens_in or 0
                pilot.tokens_out += completion.tokens_out or 0
                usd = completion.usd if engine_settings.paid or completion.usd is not None else 0.0
                pilot.usd = None if pilot.usd is None or usd is None else pilot.usd + usd
                told = usable_reply(completion, questions[completion.request.key], profiles.tolerate)
                if "code" in told:
                    pilot.unusable[told["code"]] = pilot.unusable.get(told["code"], 0) + 1
                workspace.progress.advance("pilot", pilot.asked, len(questions))
            if pilot.calls:
                ledger.backup()
    return pilot


def _evenly(values: Sequence[Ask], n: int) -> list[Ask]:
    """n of the values, or all, from evenly spaced places."""
    n = min(n, len(values))
    return [values[place * len(values) // n] for place in range(n)]
