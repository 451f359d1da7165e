"""A few questions as they would be sent, and what is made of the answers when they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.errors import UnknownIdError
from flows.settings import Settings
from flows.steps import ingest
from flows.steps.evidence import check_columns, load_prompts, training_world
from flows.steps.live_sources import settled
from flows.steps.questions import Question, Questioner
from flows.workspace import Workspace

if TYPE_CHECKING:
    from providers import Completion
    from warehouse import Warehouse


def few_questions(settings: Settings, warehouse: Warehouse, kind: str, n: int, ids: Sequence[str]) -> list[Question]:
    """The questions of some entities: those named, else n spread evenly over all that have text.

    Nothing is written and nothing sent; sources that were not ingested yet are read where they are.

    Raises:
        UnknownIdError: a named id is not in the sources, or has no text.
        MissingAttributeError: the sources lack an attribute the prompts need.
    """
    from providers import parse_engine

    profiles = settings.profiles
    pair = load_prompts(profiles)
    read, summary = tables_of_today(settings, warehouse)
    check_columns(pair, summary)
    world = training_world(read, profiles.pii)
    questioner = Questioner(world, pair, profiles, parse_engine(profiles.engine), _item_profiles(warehouse))
    known = questioner.ids(kind)
    questions: list[Question] = []
    for entity_id in ids or _spread(known):
        question = questioner.of(kind, entity_id) if not ids or entity_id in set(known) else None
        if question is None and ids:
            raise UnknownIdError(kind, entity_id, "the sources", "no text to ask about")
        questions += [question] if question else []
        if len(questions) == (len(ids) or n):
            break
    return questions


def answers(workspace: Workspace, settings: Settings, questions: Sequence[Question]) -> dict[str, dict[str, Any]]:
    """Entity id → what came back, judged; every call goes through the ledger and the engine's caps."""
    from providers import parse_engine

    engine_settings = parse_engine(settings.profiles.engine)
    asked = {question.request.entity_id: question for question in questions}
    found: dict[str, dict[str, Any]] = {}
    with workspace.warehouse.ledger() as ledger, engine_settings.open() as engine:
        for completion in engine.complete((question.request for question in questions), ledger):
            told: dict[str, Any] = {"cached": completion.cached, "usd": completion.usd, "text": completion.text}
            workspace.tally.calls += not completion.cached and not completion.verbatim
            question = asked[completion.request.entity_id]
            found[completion.request.entity_id] = told | usable_reply(completion, question, settings.profiles.tolerate)
    return found


def usable_reply(completion: Completion, question: Question, tolerate: Sequence[str]) -> dict[str, Any]:
    """The profile of a completion, else the code of its fault."""
    from prompts import ReplyError, parse_reply

    if completion.text is None:
        return {"code": completion.error_code, "detail": completion.detail}
    if completion.verbatim:
        return {"profile": completion.text}
    try:
        reply = parse_reply(completion.text, question.rendered.prompt, question.rendered.asked, tolerate)
    except ReplyError as error:
        return {"code": error.code, "detail": error.detail}
    return {"profile": reply.profile, "reasoning": reply.reasoning, "repair": reply.repair}


def tables_of_today(settings: Settings, warehouse: Warehouse) -> tuple[Any, Mapping[str, Any]]:
    """(read a table, summary) of the sources as they are today, ingested or not."""
    source = settled(settings.source, warehouse)
    found = warehouse.find_stage("ingest", ingest.ingest_key(source, settings.split))
    if found is not None:
        return found.read, found.stages["ingest"]["summary"]
    prepared = ingest.prepare(source, settings.split, "", warehouse.tombstones())
    return prepared.stored().__getitem__, prepared.summary


def _item_profiles(warehouse: Warehouse) -> dict[str, str]:
    """The profiles published now, which a user's prompt shows; before the first run it shows titles alone."""
    current = warehouse.current()
    if current is None:
        return {}
    rows = current.read("profiles", columns=["entity_id", "profile"], filter_equal={"kind": "item"}).to_pylist()
    return {row["entity_id"]: row["profile"] for row in rows if row["profile"]}


def _spread(ids: Sequence[str], parts: int = 7) -> list[str]:
    """All ids, so ordered that the first few come from all over the catalogue."""
    return [ids[place] for start in range(parts) for place in range(start, len(ids), parts)]
