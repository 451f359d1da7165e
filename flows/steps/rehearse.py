"""The profile stage played through with the replies that are stored: what it would still ask. Nothing is sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from flows.settings import ProfileSettings
from flows.steps.answers import Asking, ProfileRows
from flows.steps.evidence import PromptPair, TrainingWorld
from flows.steps.profile import decided
from flows.steps.questions import Questioner
from flows.workspace import Workspace

if TYPE_CHECKING:
    from providers import Completion, Engine, EngineConfig, Request
    from warehouse import Warehouse

CHARACTERS_PER_TOKEN = 4.0
# Stands where a profile will stand that nobody has written yet, so that prompts of users have about their length.
TO_COME = "[profile to come:"
_TO_COME_CHARACTERS = 480
_LOOKED_UP_AT_ONCE = 256
# What a run sends by itself after a faulty reply; retries are somebody's decision.
_SECOND = frozenset({"reask", "double"})


class Ask(NamedTuple):
    """A question that nobody has answered yet.

    Args:
        tokens: of the question, by the rule of thumb.
        changed: the entity was asked about before, in other words.
        ready: the question is known to the last letter; a user's waits for the profiles of the items it shows.
    """

    kind: str
    entity_id: str
    attempt_class: str
    tokens: int
    changed: bool
    ready: bool


class Reply(NamedTuple):
    """A stored reply to a question of today.

    Args:
        rule_tokens: of the question, by the rule of thumb; `tokens_in` is what the server counted.
    """

    key: str
    kind: str
    rule_tokens: int
    tokens_in: int
    tokens_out: int


@dataclass
class Rehearsal:
    """What the stage would do: by key, so that equal questions count once.

    Attributes:
        n_texts: entities that have something to say.
        n_second: second questions that follow stored replies, answered or not.
        at_server: keys that wait in a batch, submitted and maybe paid for; the run collects them.
        questioners: kind → who makes its questions of a profile; the users' knows the profiles of items, written or
            to come.
    """

    asks: dict[str, Ask] = field(default_factory=dict)
    answered: dict[str, Reply | None] = field(default_factory=dict)
    n_texts: int = 0
    n_first: int = 0
    n_second: int = 0
    at_server: set[str] = field(default_factory=set)
    questioners: dict[str, Questioner] = field(default_factory=dict)

    @property
    def replies(self) -> list[Reply]:
        """Stored replies whose tokens are known."""
        return [reply for reply in self.answered.values() if reply is not None]

    @property
    def second_share(self) -> float:
        """How many of the answered first questions are followed by a second one, 0..1."""
        return min(1.0, self.n_second / self.n_first) if self.n_first else 0.0


def rehearse(
    warehouse: Warehouse, settings: ProfileSettings, engine: EngineConfig, pair: PromptPair, world: TrainingWorld
) -> Rehearsal:
    """Every question of the stage, looked up in the ledger; judged and asked again as the stage itself would."""
    rows, item_profiles = ProfileRows(), {}
    items = Questioner(world, pair, settings, engine, {})
    users = Questioner(world, pair, settings, engine, item_profiles)
    with playing_through(warehouse, engine) as (workspace, rehearsal, stored, ledger):
        rehearsal.questioners.update(item=items, user=users)
        asking = Asking(workspace, rows, settings, engine, stored, ledger, decided(workspace))
        silent = asking.ask_all(items, "item")
        item_profiles.update(_as_long_as_known({row["entity_id"]: row["profile"] for row in rows.profiles}))
        silent += asking.ask_all(users, "user")
    rehearsal.n_texts = len(world.items) + len(world.users) - len(silent)
    return rehearsal


@contextmanager
def playing_through(warehouse: Warehouse, engine: EngineConfig) -> Iterator[tuple[Workspace, Rehearsal, Engine, Any]]:
    """A place to ask in, what is found there, an engine that knows stored replies alone, and the journal it reads."""
    rehearsal = Rehearsal()
    stored = _StoredReplies(engine, rehearsal, _asked_before(warehouse), _submitted(warehouse, engine))
    if (warehouse.root / "ledger.sqlite").exists():
        ledger: Any = warehouse.ledger(read_only=True)
    else:
        ledger = _NoLedger()
    with ledger:
        yield Workspace(warehouse, "", "plan"), rehearsal, stored, ledger


def rule_tokens(request: Request) -> int:
    """Tokens of a question by the rule of thumb."""
    return round(sum(len(content) for _, content in request.messages) / CHARACTERS_PER_TOKEN)


def _to_come(entity_id: str, n_characters: int) -> str:
    """What stands for an unwritten profile: another text for every entity, about as long as a profile."""
    return f"{TO_COME} {entity_id}] ".ljust(n_characters, "x")


def _as_long_as_known(profiles: Mapping[str, str]) -> dict[str, str]:
    """The profiles, those to come as long as the written ones are on average."""
    known = [len(profile) for profile in profiles.values() if not profile.startswith(TO_COME)]
    n_characters = round(sum(known) / len(known)) if known else _TO_COME_CHARACTERS
    return {
        entity_id: _to_come(entity_id, n_characters) if profile.startswith(TO_COME) else profile
        for entity_id, profile in profiles.items()
    }


class _StoredReplies:
    """An engine that knows what is in the ledger and writes down what is not."""

    def __init__(
        self, engine: EngineConfig, rehearsal: Rehearsal, before: set[tuple[str, str]], submitted: set[str]
    ) -> None:
        self._max_attempts: float = getattr(engine, "max_attempts_ever", float("inf"))
        self._rehearsal, self._before, self._submitted = rehearsal, before, submitted

    def complete(
        self, requests: Iterable[Request], journal: Any = None, on_progress: object = None
    ) -> Iterator[Completion]:
        """The stored completions, and a text to come for every other request."""
        waiting = iter(requests)
        while some := list(islice(waiting, _LOOKED_UP_AT_ONCE)):
            standings = journal.submit(keys=[request.key for request in some]).result().standings
            for request, standing in zip(some, standings, strict=True):
                if isinstance(standing, Exception):
                    raise standing
                yield self._completion(request, standing)

    def _completion(self, request: Request, standing: Any) -> Completion:
        from providers import Completion, stored_completion

        found, is_first = self._rehearsal, request.attempt_class == "first"
        is_second = request.attempt_class in _SECOND
        if standing.answer is None:
            if standing.attempts >= self._max_attempts:  # the run gives such a row up without a call
                return Completion(request, None, error_code="exhausted", cached=True)
            found.n_second += is_second and request.key not in found.asks and request.key not in found.at_server
            self._write_down(request)
            return Completion(request, _to_come(request.entity_id, _TO_COME_CHARACTERS), verbatim=True)
        completion = stored_completion(request, standing.answer.body)
        if request.key not in found.answered:
            found.n_first += is_first
            found.n_second += is_second
            tokens_in, tokens_out = completion.tokens_in, completion.tokens_out
            known = tokens_in is not None and tokens_out is not None
            reply = Reply(request.key, request.kind, rule_tokens(request), tokens_in or 0, tokens_out or 0)
            found.answered[request.key] = reply if known else None
        return completion

    def _write_down(self, request: Request) -> None:
        if request.key in self._submitted:
            self._rehearsal.at_server.add(request.key)
            return
        ready = not any(TO_COME in content for _, content in request.messages)
        changed = (request.kind, request.entity_id) in self._before
        ask = Ask(request.kind, request.entity_id, request.attempt_class, rule_tokens(request), changed, ready)
        self._rehearsal.asks.setdefault(request.key, ask)


class _NoLedger:
    """The journal of a warehouse that has never asked anything."""

    answer, attempts = None, 0

    def __enter__(self) -> _NoLedger:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def answered(self, key: str) -> None:
        return None

    def submit(self, keys: list[str]) -> _NoLedger:
        self.standings = [self] * len(keys)
        return self

    def result(self) -> _NoLedger:
        return self


def _submitted(warehouse: Warehouse, engine: EngineConfig) -> set[str]:
    """Keys without a reply in batches that this engine will collect."""
    if engine.name != "openai-batch" or not (warehouse.root / "ledger.sqlite").exists():
        return set()
    with warehouse.ledger(read_only=True) as ledger:
        batches = [
            batch
            for batch in ledger.batches.rows()
            if batch.server == engine.base_url and batch.state in ("creating", "submitted")
        ]
        members = [ledger.batches.members(batch.shard_hash) for batch in batches]
    return {key for keys in members for key, attempt in keys.items() if attempt is not None}


def _asked_before(warehouse: Warehouse) -> set[tuple[str, str]]:
    """(kind, id) of everything a model was asked about for what is published, equal questions included."""
    current = warehouse.current()
    if current is None:
        return set()
    asked: set[tuple[str, str]] = set()
    profiles = current.read("profiles", columns=["kind", "entity_id", "request_key"])
    for kind, entity_id, key in zip(*(column.to_pylist() for column in profiles.columns), strict=True):
        if key is not None:
            asked.add((kind, entity_id))
    calls = current.read("llm_calls", columns=["kind", "entity_id"])
    asked.update(zip(*(column.to_pylist() for column in calls.columns), strict=True))
    return asked
