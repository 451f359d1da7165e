"""Items and users put into words, each with the evidence it was built from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flows.errors import QuarantineLimitError, StoppedProfilesError
from flows.settings import ProfileSettings, digest
from flows.steps.evidence import (
    POOLED,
    PromptPair,
    TrainingWorld,
    check_columns,
    has_attributes,
    item_text_evidence,
    load_prompts,
    pooled_evidence,
    training_world,
    user_text_evidence,
)
from flows.steps.ingest import stamp
from flows.steps.rows import records, sequence_hash, strings
from flows.workspace import Workspace

if TYPE_CHECKING:
    from prompts import Evidence, Prompt
    from providers import Completion, Engine, EngineConfig, Journal, OnProgress, Progress, Request
    from warehouse import Snapshot

VERSION = 1


@dataclass
class ProfileRows:
    """Profiles as they come in, and the rows that were put aside."""

    profiles: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    no_text: Counter[str] = field(default_factory=Counter)
    without_reply: int = 0


def build_profiles(workspace: Workspace, snapshot_id: str, settings: ProfileSettings) -> str:
    """Id of a snapshot with a profile of every item and user that has something to say.

    Raises:
        QuarantineLimitError: more failed rows than `profiles.max_quarantined_share`; answered calls stay in the ledger.
        MissingAttributeError: the sources lack an attribute the prompts need; before any call.
    """
    from providers import parse_engine
    from warehouse import arrow_table

    upstream = workspace.warehouse.snapshot(snapshot_id)
    engine_settings = parse_engine(settings.engine)
    pair = load_prompts(settings)
    key = profile_key(upstream, settings, engine_settings, pair)
    if not (workspace.retry and _may_be_asked_again(workspace, key)) and (found := workspace.found("profile", key)):
        _refuse_stored(workspace.warehouse.snapshot(found), settings)
        return found
    started = time.monotonic()
    check_columns(pair, upstream.stages["ingest"]["summary"])
    world = training_world(upstream.read)
    with workspace.warehouse.ledger() as ledger, engine_settings.open() as engine:
        if workspace.repay:
            ledger.batches.release()
        rows = _written(workspace, world, pair, settings, engine_settings, engine, ledger)
    n_asked = len(rows.quarantine) + sum(row["source"] != POOLED for row in rows.profiles)
    _refuse_above_limit([row["code"] for row in rows.quarantine], n_asked, settings)
    for row in rows.profiles:
        row["snapshot"] = upstream.id
    summary = profile_summary(rows, pair, engine_settings)
    builder = workspace.warehouse.begin(upstream)
    builder.replace("profiles", arrow_table("profiles", _columns(rows.profiles)))
    builder.replace("prompts", arrow_table("prompts", _columns(_prompt_rows(upstream, pair))))
    aside = _columns(_quarantine_rows(upstream, rows, workspace.run_id), QUARANTINE_COLUMNS)
    builder.replace("quarantine", arrow_table("quarantine", aside))
    stamp(builder, "profile", key, summary)
    return workspace.done("profile", workspace.commit(builder), started)


QUARANTINE_COLUMNS = ("stage", "kind", "entity_id", "code", "detail", "run_id")


def _may_be_asked_again(workspace: Workspace, key: str) -> bool:
    """Whether a row put aside the last time has no reply yet; one with a reply gives the same one again."""
    before = workspace.warehouse.find_stage("profile", key)
    return before is not None and before.stages["profile"]["summary"].get("without_reply", 0) > 0


def profile_key(upstream: Snapshot, settings: ProfileSettings, engine: EngineConfig, pair: PromptPair) -> str:
    """Everything a profile depends on: the tables, the prompts, the engine's identity, the sampling seed."""
    shaping = {"domain": settings.domain, "seed": settings.seed}
    return digest("profile", VERSION, upstream.stages["ingest"]["key"], shaping, engine.identity(), pair.identity())


def item_requests(
    world: TrainingWorld, pair: PromptPair, settings: ProfileSettings, engine: EngineConfig
) -> Iterator[tuple[Request | None, Evidence | None, str]]:
    """A request for every item with text, (None, None, id) for the others."""
    for item_id in world.items:
        evidence = item_text_evidence(world, pair, settings.seed, item_id)
        yield _request(pair.item, evidence, engine, "item", item_id)


def user_requests(
    world: TrainingWorld,
    pair: PromptPair,
    settings: ProfileSettings,
    engine: EngineConfig,
    item_profiles: Mapping[str, str],
) -> Iterator[tuple[Request | None, Evidence | None, str]]:
    """A request for every user with a text of their own, (None, None, id) for those whose vector is pooled.

    The attributes engine composes a text from attributes alone, so it has nothing to say of a user without any.
    """
    for user_id in world.users:
        speaks = engine.source != "attributes" or has_attributes(world, pair, user_id)
        evidence = user_text_evidence(world, pair, item_profiles, settings.seed, user_id) if speaks else None
        yield _request(pair.user, evidence, engine, "user", user_id)


def profile_summary(rows: ProfileRows, pair: PromptPair, engine: EngineConfig) -> dict[str, Any]:
    """What the profile stage says of itself."""
    written = Counter((row["kind"], row["source"] == POOLED) for row in rows.profiles)
    return {
        "source": engine.source,
        "item_profiles": written["item", False],
        "user_profiles": written["user", False],
        "users_pooled": written["user", True],
        "items_without_text": rows.no_text["item"],
        "users_without_text": rows.no_text["user"],
        "quarantined": len(rows.quarantine),
        "without_reply": rows.without_reply,
        "content": sequence_hash(f"{row['kind']}\x1f{row['entity_id']}\x1f{row['profile']}" for row in rows.profiles),
        "prompts": [f"{prompt.id} v{prompt.version}" for prompt in (pair.item, pair.user)],
        "user_source": engine.source if written["user", False] else POOLED,
    }


def _written(
    workspace: Workspace,
    world: TrainingWorld,
    pair: PromptPair,
    settings: ProfileSettings,
    engine_settings: EngineConfig,
    engine: Engine,
    journal: Journal,
) -> ProfileRows:
    rows = ProfileRows()
    asked = item_requests(world, pair, settings, engine_settings)
    _answer(workspace, rows, asked, len(world.items), pair.item, engine, journal)
    item_profiles = {row["entity_id"]: row["profile"] for row in rows.profiles}
    asked = user_requests(world, pair, settings, engine_settings, item_profiles)
    pooled = _answer(workspace, rows, asked, len(world.users), pair.user, engine, journal)
    for user_id in pooled:
        items, evidence_hash = pooled_evidence(world, user_id)
        row = _row(pair.user, "user", user_id, None, items, evidence_hash)
        rows.profiles.append(row | {"source": POOLED, "model": POOLED})
    return rows


def _answer(
    workspace: Workspace,
    rows: ProfileRows,
    asked: Iterable[tuple[Request | None, Evidence | None, str]],
    total: int,
    prompt: Prompt,
    engine: Engine,
    journal: Journal,
) -> list[str]:
    """Appends a row for every completion; returns the ids that have no text of their own."""
    from providers import StoppedEarlyError

    silent: list[str] = []
    evidences: dict[str, Evidence] = {}
    label = f"profile {prompt.kind}s"

    def requests() -> Iterator[Request]:
        for request, evidence, entity_id in asked:
            if request is None or evidence is None:
                silent.append(entity_id)
            else:
                evidences[entity_id] = evidence
                yield request

    done = 0
    try:
        for done, completion in enumerate(engine.complete(requests(), journal, _heard(workspace)), start=1):
            _count(workspace, completion, engine.paid)
            evidence = evidences.pop(completion.request.entity_id)
            if completion.error_code == "no_text":
                silent.append(completion.request.entity_id)
            else:
                _keep(rows, completion, evidence, prompt, engine.source)
                rows.without_reply += completion.text is None and journal.answered(completion.request.key) is None
            workspace.progress.advance(label, done + len(silent), total, _spent(workspace))
    except StoppedEarlyError as error:
        raise StoppedProfilesError(prompt.kind, done + len(silent), total, str(error)) from error
    workspace.progress.advance(label, total, total, _spent(workspace))
    if prompt.kind == "item":
        rows.no_text["item"] += len(silent)
    return silent


def _heard(workspace: Workspace) -> OnProgress:
    """Passes on what an engine has to say; the counting is done here."""

    def hear(progress: Progress) -> None:
        if progress.note is not None:
            workspace.progress.note(progress.note)

    return hear


def _request(
    prompt: Prompt, evidence: Evidence | None, engine: EngineConfig, kind: str, entity_id: str
) -> tuple[Request | None, Evidence | None, str]:
    from prompts import render

    if evidence is None:
        return None, None, entity_id
    rendered = render(prompt, evidence)
    # what composes texts from fields has no use for messages, and rendering them is most of the work
    messages = rendered.messages if engine.source != "attributes" else ()
    request = engine.request(
        messages=messages, schema=rendered.schema, fields=rendered.fields, kind=kind, entity_id=entity_id
    )
    return request, evidence, entity_id


def _keep(rows: ProfileRows, completion: Completion, evidence: Evidence, prompt: Prompt, source: str) -> None:
    from prompts import ReplyError, parse_reply

    request = completion.request
    aside = {"kind": request.kind, "entity_id": request.entity_id}
    if completion.text is None:
        rows.quarantine.append(aside | {"code": completion.error_code or "no_reply", "detail": completion.detail})
        return
    profile, reasoning = completion.text, None
    if not completion.verbatim:
        try:
            reply = parse_reply(completion.text, prompt)
        except ReplyError as error:
            rows.quarantine.append(aside | {"code": error.code, "detail": error.detail})
            return
        profile, reasoning = reply.profile, reply.reasoning
    row = _row(prompt, request.kind, request.entity_id, profile, list(evidence.pairs), evidence.hash)
    key = None if completion.verbatim else request.key
    rows.profiles.append(row | {"reasoning": reasoning, "source": source, "model": request.model, "request_key": key})


def _row(
    prompt: Prompt, kind: str, entity_id: str, profile: str | None, pairs: list[str], evidence_hash: str
) -> dict[str, Any]:
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


def _count(workspace: Workspace, completion: Completion, paid: bool) -> None:
    if completion.verbatim or completion.error_code == "no_text":
        return
    tally = workspace.tally
    tally.cached += completion.cached
    tally.calls += 0 if completion.cached else completion.calls
    tally.failed += completion.text is None
    if completion.cached:
        return
    tally.tokens_in += completion.tokens_in or 0
    tally.tokens_out += completion.tokens_out or 0
    usd = completion.usd if paid or completion.usd is not None else 0.0  # a server on this machine costs nothing
    if tally.usd is not None:
        tally.usd = tally.usd + usd if usd is not None else None


def _spent(workspace: Workspace) -> str:
    tally = workspace.tally
    if not tally.calls:
        return ""
    return f"{tally.calls:,} calls, {tally.cached:,} cached, " + (
        f"{tally.usd:.4f} USD" if tally.usd is not None else "price unknown"
    )


def _refuse_stored(snapshot: Snapshot, settings: ProfileSettings) -> None:
    """Today's limit on what was put aside when these profiles were made; a limit is no part of a key."""
    said = snapshot.stages["profile"]["summary"]
    aside = snapshot.read("quarantine", columns=["code"], filter_equal={"stage": "profile"})
    n_asked = said["quarantined"] + said["item_profiles"] + said["user_profiles"]
    _refuse_above_limit(strings(aside, "code"), n_asked, settings)


def _refuse_above_limit(codes: Sequence[str], n_asked: int, settings: ProfileSettings) -> None:
    limit = settings.max_quarantined_share
    if len(codes) > limit * n_asked:
        counted = ", ".join(f"{code} {n}" for code, n in Counter(codes).most_common())
        raise QuarantineLimitError("profile", len(codes), n_asked, limit, counted, "profiles.max_quarantined_share")


def _prompt_rows(upstream: Snapshot, pair: PromptPair) -> list[dict[str, Any]]:
    """Every prompt ever used in this lineage and the two of today."""
    known = {(row["prompt_id"], row["version"], row["fingerprint"]): row for row in records(upstream.read("prompts"))}
    for prompt in (pair.item, pair.user):
        row = {
            "prompt_id": prompt.id,
            "version": prompt.version,
            "fingerprint": prompt.fingerprint,
            "text": prompt.text,
        }
        known[prompt.id, prompt.version, prompt.fingerprint] = row
    return list(known.values())


def _quarantine_rows(upstream: Snapshot, rows: ProfileRows, run_id: str) -> list[dict[str, Any]]:
    kept = [row for row in records(upstream.read("quarantine")) if row["stage"] == "ingest"]
    return kept + [{"stage": "profile", "run_id": run_id, **row} for row in rows.quarantine]


def _columns(rows: list[dict[str, Any]], names: Iterable[str] = ()) -> dict[str, list[Any]]:
    names = list(rows[0]) if rows else list(names)
    return {name: [row[name] for row in rows] for name in names}
