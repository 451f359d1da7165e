"""Items and users put into words, each with the evidence it was built from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.caution import clean
from flows.errors import QuarantineLimitError
from flows.settings import ProfileSettings, digest
from flows.steps.answers import MODEL_CHARS, Asking, ProfileRows, profile_row
from flows.steps.evidence import (
    POOLED,
    PromptPair,
    TrainingWorld,
    check_columns,
    load_prompts,
    pooled_evidence,
    training_world,
)
from flows.steps.ingest import stamp
from flows.steps.questions import Questioner
from flows.steps.rows import records, sequence_hash, strings
from flows.workspace import PROFILE, Workspace

if TYPE_CHECKING:
    from prompts import Prompt
    from providers import Engine, EngineConfig, Journal
    from warehouse import Snapshot, Warehouse

VERSION = 1

# Bytes on disk for one answered question, measured with replies of 1.6 KB: attempt and reply in the ledger, as much
# again in its backup, and rows of profiles and llm_calls.
LEDGER_BYTES = 4_608
ROW_BYTES = 1_024
SAFETY = 2  # second questions, long replies, other programs


def build_profiles(workspace: Workspace, snapshot_id: str, settings: ProfileSettings) -> str:
    """Id of a snapshot with a profile of every item and user that has something to say.

    Raises:
        QuarantineLimitError: more failed rows than `profiles.max_quarantined_share`; answered calls stay in the ledger.
        MissingAttributeError: the sources lack an attribute the prompts need; before any call.
        TooLittleRoomError: less free than twice what ledger, backup and tables may grow by; before any call.
    """
    from providers import parse_engine
    from warehouse import arrow_rows

    upstream = workspace.warehouse.snapshot(snapshot_id)
    engine_settings = parse_engine(settings.engine)
    pair = load_prompts(settings)
    key = profile_key(upstream, settings, engine_settings, pair)
    again = workspace.decides(PROFILE) or (workspace.retry and _may_be_asked_again(workspace, key))
    if not again and (found := workspace.found("profile", key)):
        _refuse_stored(workspace.warehouse.snapshot(found), settings)
        return found
    started = time.monotonic()
    check_columns(pair, upstream.stages["ingest"]["summary"])
    world = training_world(upstream.read, settings.pii)
    if engine_settings.source != "attributes":
        require_room(workspace.warehouse, len(world.items) + len(world.users))
    with workspace.warehouse.ledger() as ledger, engine_settings.open() as engine:
        if workspace.repay:
            ledger.batches.release()
        rows = _written(workspace, world, pair, settings, engine_settings, engine, ledger)
    workspace.tally.quarantined += len(rows.quarantine)
    n_asked = len(rows.quarantine) + sum(row["source"] != POOLED for row in rows.profiles)
    refuse_above_limit("profile", [row["code"] for row in rows.quarantine], n_asked, settings)
    for row in rows.profiles:
        row["snapshot"] = upstream.id
    summary = profile_summary(rows, pair, engine_settings)
    _warn_of_other_models(workspace, rows, engine_settings.source)
    builder = workspace.warehouse.begin(upstream)
    builder.replace("profiles", arrow_rows("profiles", rows.profiles))
    builder.replace("prompts", arrow_rows("prompts", known_prompts(upstream, (pair.item, pair.user))))
    if rows.decisions:
        builder.append("decisions", arrow_rows("decisions", rows.decisions))
    builder.replace("quarantine", arrow_rows("quarantine", _quarantine_rows(upstream, rows, workspace.run_id)))
    stamp(builder, "profile", key, summary)
    return workspace.done("profile", workspace.commit(builder), started)


def require_room(warehouse: Warehouse, n_questions: int) -> None:
    """A run that could not keep its replies is not begun; answered ones are counted too, for they cost no call to find.

    Raises:
        TooLittleRoomError: exit code 4.
    """
    ledger = warehouse.inside("ledger.sqlite")
    held = ledger.stat().st_size if ledger.exists() else 0
    growth = n_questions * (2 * LEDGER_BYTES + ROW_BYTES) + held  # a backup is a copy of the whole ledger
    warehouse.require_room(SAFETY * growth, f"a run of {n_questions:,} questions")


def _may_be_asked_again(workspace: Workspace, key: str) -> bool:
    """Whether a row put aside the last time has no reply yet; one with a reply gives the same one again."""
    before = workspace.warehouse.find_stage("profile", key)
    return before is not None and before.stages["profile"]["summary"].get("without_reply", 0) > 0


def profile_key(upstream: Snapshot, settings: ProfileSettings, engine: EngineConfig, pair: PromptPair) -> str:
    """Everything a profile depends on: tables, prompts, the engine's identity, the sampling seed, the rules."""
    from prompts import RULES

    shaping: dict[str, Any] = {"domain": settings.domain, "seed": settings.seed}
    if settings.pii != "off":
        shaping["pii"] = settings.pii
    if engine.source != "attributes":  # whose texts nobody judges
        shaping["judged"] = [RULES, settings.reask, sorted(settings.tolerate)]
    return digest("profile", VERSION, upstream.stages["ingest"]["key"], shaping, engine.identity(), pair.identity())


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
        **({} if engine.source == "attributes" else _judged(rows)),
        **_models(rows, engine.source),
        **_dated_price(engine),
        "content": sequence_hash(f"{row['kind']}\x1f{row['entity_id']}\x1f{row['profile']}" for row in rows.profiles),
        "prompts": [f"{prompt.id} v{prompt.version}" for prompt in (pair.item, pair.user)],
        "user_source": engine.source if written["user", False] else POOLED,
    }


def _judged(rows: ProfileRows) -> dict[str, int]:
    return {"reasked": rows.reasked, "repaired": rows.repaired, "accepted": rows.accepted}


def _dated_price(engine: EngineConfig) -> dict[str, Any]:
    """The price this run reckoned with and the day it was read, where there is one."""
    price = engine.known_price()
    return {"price": asdict(price)} if price is not None else {}


def _models(rows: ProfileRows, asked: str) -> dict[str, Any]:
    """Which models wrote the profiles, where any but the one that was asked did."""
    from providers import other_models

    others = other_models(asked, rows.answered_by)
    return {"by_other_models": sum(others.values()), "answered_by": dict(rows.answered_by)} if others else {}


def _warn_of_other_models(workspace: Workspace, rows: ProfileRows, asked: str) -> None:
    if said := _models(rows, asked):
        counted = ", ".join(f"{clean(name)[:MODEL_CHARS]} {n:,}" for name, n in rows.answered_by.most_common(5))
        workspace.progress.note(
            f"profile: {said['by_other_models']:,} profiles come from another model than `{asked}` ({counted}); the"
            " column `model` of `profiles` says which. Check profiles.engine.model and what the server falls back to"
        )


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
    asking = Asking(workspace, rows, settings, engine_settings, engine, journal, decided(workspace))
    silent = asking.ask_all(Questioner(world, pair, settings, engine_settings, {}), "item")
    rows.no_text["item"] += len(silent)
    item_profiles = {row["entity_id"]: row["profile"] for row in rows.profiles}
    for user_id in asking.ask_all(Questioner(world, pair, settings, engine_settings, item_profiles), "user"):
        items, evidence_hash = pooled_evidence(world, user_id)
        row = profile_row(pair.user, "user", user_id, None, items, evidence_hash)
        rows.profiles.append(row | {"source": POOLED, "model": POOLED})
    return rows


def decided(workspace: Workspace) -> dict[tuple[str, str, str], str]:
    """(kind, id, request key) → the profile that was accepted for it last."""
    current = workspace.warehouse.current()
    taken = records(current.read("decisions")) if current else []
    taken.sort(key=lambda row: row["decided_at"])
    return {(row["kind"], row["entity_id"], row["request_key"]): row["profile"] for row in taken}


def _refuse_stored(snapshot: Snapshot, settings: ProfileSettings) -> None:
    """Today's limit on what was put aside when these profiles were made; a limit is no part of a key."""
    said = snapshot.stages["profile"]["summary"]
    aside = snapshot.read("quarantine", columns=["code"], filter_equal={"stage": "profile"})
    n_asked = said["quarantined"] + said["item_profiles"] + said["user_profiles"]
    refuse_above_limit("profile", strings(aside, "code"), n_asked, settings)


def refuse_above_limit(stage: str, codes: Sequence[str], n_asked: int, settings: ProfileSettings) -> None:
    """Nothing, when no larger share of the answers was put aside than the settings allow.

    Raises:
        QuarantineLimitError: counts the codes.
    """
    limit = settings.max_quarantined_share
    if len(codes) > limit * n_asked:
        counted = ", ".join(f"{code} {n}" for code, n in Counter(codes).most_common())
        raise QuarantineLimitError(stage, len(codes), n_asked, limit, counted, "profiles.max_quarantined_share")


def known_prompts(upstream: Snapshot, today: Iterable[Prompt]) -> list[dict[str, Any]]:
    """Rows of every prompt ever used in this lineage and of those of today."""
    known = {(row["prompt_id"], row["version"], row["fingerprint"]): row for row in records(upstream.read("prompts"))}
    for prompt in today:
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
