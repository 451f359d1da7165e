"""Questions put to an engine, their replies judged, and what failed asked once more, whatever the engine is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from flows.caution import clean
from flows.errors import NothingToAcceptError, StoppedProfilesError
from flows.settings import ProfileSettings
from flows.steps.questions import Question, Questions
from flows.workspace import PROFILE, AskedRow, Workspace

if TYPE_CHECKING:
    from prompts import Prompt
    from providers import Completion, Engine, EngineConfig, Journal, Progress, Request

MAX_RETRIES = 3
MODEL_CHARS = 80
_KEPT_QUESTIONS = 4096

# Faults of a completion without text that another wording or more room may mend; a filter or a refusal by the server
# is a verdict, and a failed call is no reply at all.
_WORTH_ASKING_AGAIN = frozenset({"truncated", "empty_content"})
# The prompts say: when nothing is known, the profile is the word None. That is an answer, not a fault.
_FINAL = frozenset({"no_profile"})


@dataclass
class ProfileRows:
    """Profiles as they come in, the rows that were put aside, and what was decided about them."""

    profiles: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    no_text: Counter[str] = field(default_factory=Counter)
    answered_by: Counter[str] = field(default_factory=Counter)
    without_reply: int = 0
    reasked: int = 0
    repaired: int = 0
    accepted: int = 0


@dataclass
class Failure:
    """A question without a usable reply: the faults in their order, and the texts that were there."""

    question: Question
    codes: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    answered: bool = False

    def add(self, code: str, detail: str | None, text: str | None, answered: bool) -> Failure:
        self.codes.append(code)
        self.details.append(detail or "")
        self.texts += [text] if text is not None else []
        self.answered = answered
        return self

    @property
    def may_be_asked_again(self) -> bool:
        code = self.codes[-1]
        return (bool(self.texts) and code not in _FINAL) or code in _WORTH_ASKING_AGAIN

    def sentence(self) -> str:
        """The last fault, and the first where they differ in what they say."""
        if len(self.codes) == 1:
            return self.details[0]
        first = f"{self.codes[0]}: {self.details[0]}" if self.details[0] else self.codes[0]
        return f"{self.details[-1]} (asked {len(self.codes)} times, first {first})".strip()


class Taken(NamedTuple):
    """What is taken of a reply.

    Attributes:
        key: of the request it answers; None where an engine asked nobody.
        fields: all its parts, where rows are made of them.
    """

    text: str
    reasoning: str | None
    key: str | None
    model: str
    fields: Mapping[str, Any] | None = None


@dataclass
class Asking:
    """One stage's questions: where they go, how replies are judged, what was decided before.

    Args:
        decided: (kind, id, request key) → the profile a person accepted.
        what: is asked for: PROFILE or an aspect.
    """

    workspace: Workspace
    rows: ProfileRows
    settings: ProfileSettings
    engine_settings: EngineConfig
    engine: Engine
    journal: Journal
    decided: Mapping[tuple[str, str, str], str]
    what: str = PROFILE

    @property
    def aspect(self) -> str | None:
        """As tables name it."""
        return None if self.what == PROFILE else self.what

    def ask_all(self, questioner: Questions, kind: str) -> list[str]:
        """A row for every question of a kind; returns the ids that have no text of their own."""
        silent: list[str] = []
        kept: dict[str, Question] = {}
        ids, label = questioner.ids(kind), f"{self.what} {kind}s"
        failures: list[Failure] = []

        def requests() -> Iterator[Request]:
            for entity_id in ids:
                question = questioner.of(kind, entity_id)
                if question is None:
                    silent.append(entity_id)
                    continue
                if len(kept) < _KEPT_QUESTIONS:
                    kept[entity_id] = question
                yield question.request

        for done, completion in enumerate(self._answers(requests(), kind, len(ids), silent), start=1):
            entity_id = completion.request.entity_id
            # an engine may hold a million requests back, so the question is made again rather than kept
            question = kept.pop(entity_id, None) or questioner.of(kind, entity_id)
            assert question is not None, "the engine answered what was never asked"
            if completion.error_code == "no_text":
                silent.append(entity_id)
            elif failure := self._judge(completion, Failure(question)):
                failures.append(failure)
            self.workspace.progress.advance(label, done + len(silent), len(ids), self._spent())
        self.workspace.progress.advance(label, len(ids), len(ids), self._spent())
        self._settle(self._ask_again(failures))
        return silent

    def _answers(
        self, requests: Iterator[Request], kind: str, total: int, unasked: Sequence[str] = ()
    ) -> Iterator[Completion]:
        """What the engine hands on; where it stops early, how many are done and how many are pending."""
        from providers import StoppedEarlyError

        done = 0
        try:
            for completion in self.engine.complete(requests, self.journal, self._hear):
                done += 1
                yield completion
        except StoppedEarlyError as error:
            raise StoppedProfilesError(kind, done + len(unasked), total, str(error)) from error

    def _hear(self, progress: Progress) -> None:
        """Passes on what an engine has to say; the counting is done here."""
        if progress.note is not None:
            self.workspace.progress.note(progress.note)

    def _ask_again(self, failures: list[Failure]) -> list[Failure]:
        """Those that failed to the end: once more as a matter of course, then what somebody asked or asks for."""
        if self.settings.reask:
            failures = self._round(failures, self._second)
        asked_now: set[int] = set()
        for number in range(1, MAX_RETRIES + 1):

            def retry(failure: Failure, number: int = number) -> Request | None:
                request = replace(failure.question.request, attempt_class=f"retry-{number}")
                if self.journal.answered(request.key) is not None:
                    return request
                named = self._row(failure) in self.workspace.again
                wanted = named and failure.answered and id(failure) not in asked_now
                if wanted:
                    asked_now.add(id(failure))
                return request if wanted else None

            failures = self._round(failures, retry)
        return failures

    def _round(self, failures: list[Failure], again: Any) -> list[Failure]:
        """What is left after another request for every failure that gets one."""
        waiting: dict[str, Failure] = {}
        requests: list[Request] = []
        left: list[Failure] = []
        for failure in failures:
            request = again(failure)
            if request is None:
                left.append(failure)
            else:
                waiting[request.entity_id] = failure
                requests.append(request)
        if not requests:
            return failures
        label = f"{self.what} {requests[0].kind}s, asked again"
        for done, completion in enumerate(self._answers(iter(requests), requests[0].kind, len(requests)), start=1):
            self.rows.reasked += 1
            self.workspace.tally.reasked += not completion.cached
            if failure := self._judge(completion, waiting[completion.request.entity_id]):
                left.append(failure)
            self.workspace.progress.advance(label, done, len(requests), self._spent())
        return left

    def _second(self, failure: Failure) -> Request | None:
        """The request that follows a faulty reply: with twice the room, or with the fault named."""
        from prompts import FAULTS, corrected, fault_of

        request, prompt = failure.question.request, failure.question.rendered.prompt
        if not failure.may_be_asked_again:
            return None
        if failure.codes[-1] == "truncated" and (room := request.sampling.get("max_tokens")):
            return replace(request, sampling={**request.sampling, "max_tokens": 2 * room}, attempt_class="double")
        named = fault_of(failure.codes[-1])
        # a rule that names the fault otherwise today is no reason to pay for the correction a second time
        for fault in (named, *(fault for fault in FAULTS if fault != named)):
            again = replace(request, messages=corrected(request.messages, fault, prompt), attempt_class="reask")
            if self.journal.answered(again.key) is not None:
                return again
        return replace(request, messages=corrected(request.messages, named, prompt), attempt_class="reask")

    def _judge(self, completion: Completion, failure: Failure) -> Failure | None:
        """None after a profile was kept; else the failure, longer by one fault."""
        from prompts import ReplyError, parse_reply

        question, request = failure.question, completion.request
        answered = completion.text is not None or self.journal.answered(request.key) is not None
        self._count(completion, answered)
        if completion.text is None:
            return failure.add(completion.error_code or "no_reply", completion.detail, None, answered)
        if completion.verbatim:
            self._keep(question, Taken(completion.text, None, None, request.model))
            return None
        rendered = question.rendered
        try:
            reply = parse_reply(completion.text, rendered.prompt, rendered.asked, self.settings.tolerate)
        except ReplyError as error:
            return failure.add(error.code, error.detail, completion.text, answered=True)
        self.rows.repaired += reply.repaired
        taken = Taken(reply.profile, reply.reasoning, request.key, self._named(completion), reply.fields)
        self._keep(question, taken)
        return None

    def _named(self, completion: Completion) -> str:
        """The model's name as the reply gives it; the first reply of another model than was asked is told at once."""
        from providers import other_models

        asked = completion.request.model
        name = completion.answered_by or asked
        self.rows.answered_by[name] += 1
        if self.rows.answered_by[name] == 1 and other_models(asked, {name: 1}):
            shown = clean(name)[:MODEL_CHARS]
            self.workspace.progress.note(f"a reply comes from the model `{shown}`, not from `{asked}`, which was asked")
        return name

    def _keep(self, question: Question, taken: Taken) -> None:
        request, evidence = question.request, question.evidence
        row = profile_row(
            question.rendered.prompt, request.kind, request.entity_id, taken.text, list(evidence.pairs), evidence.hash
        )
        filled = {"reasoning": taken.reasoning, "model": taken.model, "request_key": taken.key}
        self.rows.profiles.append(row | filled | {"source": self.engine_settings.source})

    def _settle(self, failures: Iterable[Failure]) -> None:
        """What stays failed: accepted by a decision of then or now, else put aside."""
        for failure in failures:
            request, row = failure.question.request, self._row(failure)
            profile = self.decided.get((row.kind, row.entity_id, request.key))
            if profile is None and row in self.workspace.accepting:
                profile = self._decide(failure)
            if profile is not None:
                self.rows.accepted += 1
                taken = Taken(profile, None, request.key, request.model, self._fields(profile))
                self._keep(failure.question, taken)
                continue
            aside = {"kind": row.kind, "entity_id": row.entity_id, "aspect": self.aspect}
            self.rows.quarantine.append(aside | {"code": failure.codes[-1], "detail": failure.sentence()})
            self.rows.without_reply += not failure.answered

    def _decide(self, failure: Failure) -> str:
        row, prompt = self._row(failure), failure.question.rendered.prompt
        texts = [found for text in reversed(failure.texts) if (found := self._best(text, prompt))]
        if not texts:
            raise NothingToAcceptError(row.kind, row.entity_id, failure.codes[-1], len(failure.texts))
        self.rows.decisions.append(
            {
                "kind": row.kind,
                "entity_id": row.entity_id,
                "aspect": self.aspect,
                "request_key": failure.question.request.key,
                "code": failure.codes[-1],
                "profile": texts[0],
                "decided_at": datetime.now(UTC),
                "run_id": self.workspace.run_id,
            }
        )
        return texts[0]

    def _best(self, text: str, prompt: Prompt) -> str | None:
        """What a person who accepts a faulty reply takes of it."""
        from prompts import best_text

        return best_text(text, prompt)

    def _fields(self, accepted: str) -> Mapping[str, Any] | None:
        """The fields of a reply that a person accepted, where rows are made of them."""
        return None

    def _row(self, failure: Failure) -> AskedRow:
        request = failure.question.request
        return AskedRow(self.what, request.kind, request.entity_id)

    def _count(self, completion: Completion, answered: bool) -> None:
        if completion.verbatim or completion.error_code == "no_text":
            return
        tally = self.workspace.tally
        tally.cached += completion.cached
        tally.calls += 0 if completion.cached else completion.calls
        tally.replies += answered and not completion.cached
        tally.failed += completion.text is None
        if completion.cached:
            return
        tally.tokens_in += completion.tokens_in or 0
        tally.tokens_out += completion.tokens_out or 0
        # a server on this machine costs nothing
        usd = completion.usd if self.engine_settings.paid or completion.usd is not None else 0.0
        if tally.usd is not None:
            tally.usd = tally.usd + usd if usd is not None else None

    def _spent(self) -> str:
        tally = self.workspace.tally
        if not tally.calls:
            return ""
        return f"{tally.calls:,} calls, {tally.cached:,} cached, " + (
            f"{tally.usd:.4f} USD" if tally.usd is not None else "price unknown"
        )


def profile_row(
    prompt: Prompt, kind: str, entity_id: str, profile: str | None, pairs: list[str], evidence_hash: str
) -> dict[str, Any]:
    """A row of `profiles`, still without its source."""
    return {
        "kind": kind,
        "entity_id": entity_id,
        "profile": profile,
        "reasoning": None,
        "source": None,
        "model": None,
        "prompt_id": prompt.id,
        "prompt_version": prompt.version,
        "evidence_hash": evidence_hash,
        "evidence": pairs,
        "request_key": None,
        "snapshot": None,
    }
