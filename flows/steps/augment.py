"""Items and users asked about beyond their profiles: choices among candidates, preferences, factual knowledge.

The questions go where those of the profiles went: the same engine, ledger, caps and rules, one budget for both.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flows.settings import ProfileSettings, Settings, digest
from flows.steps.answers import Asking, ProfileRows, Taken
from flows.steps.aspect_vectors import embed_texts, refuse_taken_names
from flows.steps.aspects import CHOICE, AspectQuestioner, load_aspects, questioners
from flows.steps.evidence import load_prompts, profiles_of_items, training_world
from flows.steps.ingest import stamp
from flows.steps.profile import decided, known_prompts, refuse_above_limit, require_room
from flows.steps.questions import Question
from flows.steps.rows import records, sequence_hash, strings
from flows.workspace import Workspace

if TYPE_CHECKING:
    from prompts import Prompt
    from providers import Engine, EngineConfig, Journal
    from warehouse import Snapshot

VERSION = 2
STAGE = "augment"


@dataclass
class AspectAsking(Asking):
    """The questions of one aspect; what is kept are rows of `augmentations`."""

    questioner: AspectQuestioner | None = None
    kept: list[dict[str, Any]] = field(default_factory=list)

    def _keep(self, question: Question, taken: Taken) -> None:
        asker, request, prompt = self.questioner, question.request, question.rendered.prompt
        assert asker is not None
        shown, chosen = question.evidence, taken.fields or {}
        offered = asker.candidates.get(request.entity_id, []) if shown.candidates else []
        self.kept.append(
            {
                "kind": request.kind,
                "entity_id": request.entity_id,
                "aspect": asker.aspect,
                "text": None if offered else taken.text,
                **{name: offered[int(chosen[name]) - 1] for name in ("liked", "refused") if offered and name in chosen},
                "candidates": offered,
                "reasoning": taken.reasoning,
                "source": self.engine_settings.source,
                "model": taken.model,
                "prompt_id": prompt.id,
                "prompt_version": prompt.version,
                "evidence_hash": shown.hash,
                "evidence": list(shown.pairs),
                "request_key": taken.key,
            }
        )

    def _best(self, text: str, prompt: Prompt) -> str | None:
        from prompts import best_choice

        if self.what != CHOICE:
            return super()._best(text, prompt)
        chosen = best_choice(text, prompt)
        return json.dumps(chosen) if chosen else None

    def _fields(self, accepted: str) -> Mapping[str, Any] | None:
        return json.loads(accepted) if self.what == CHOICE else None


def augment(workspace: Workspace, snapshot_id: str, settings: Settings, aspects: Sequence[str]) -> str:
    """Id of a snapshot with a row of `augmentations` for every question that was answered, and vectors of the texts.

    Raises:
        QuarantineLimitError: more failed rows than `profiles.max_quarantined_share`; answered calls stay in the ledger.
        TooLittleRoomError: less free than twice what ledger, backup and tables may grow by; before any call.
        SettingValueError: an encoder is named like an aspect.
    """
    from providers import parse_engine
    from warehouse import arrow_rows

    upstream = workspace.warehouse.snapshot(snapshot_id)
    engine_settings, pair = parse_engine(settings.profiles.engine), load_prompts(settings.profiles)
    prompts = load_aspects(aspects, pair, settings.profiles)
    refuse_taken_names(settings, prompts)
    key = augment_key(upstream, settings.profiles, engine_settings, prompts)
    again = workspace.decides(*prompts) or (workspace.retry and _lacks_replies(workspace, key))
    if not again and (found := workspace.found(STAGE, key)):
        _refuse_stored(workspace.warehouse.snapshot(found), settings.profiles)
        return found
    started = time.monotonic()
    world = training_world(upstream.read, settings.profiles.pii)
    askers = questioners(prompts, world, settings.profiles, engine_settings, profiles_of_items(upstream))
    require_room(workspace.warehouse, sum(len(asker.ids(asker.prompt.kind)) for asker in askers))
    with workspace.warehouse.ledger() as ledger, engine_settings.open() as engine:
        carry_budget(workspace, engine)
        rows, kept = answered(workspace, askers, settings.profiles, engine_settings, engine, ledger)
    workspace.tally.quarantined += len(rows.quarantine)
    refuse_above_limit(
        STAGE, [row["code"] for row in rows.quarantine], len(kept) + len(rows.quarantine), settings.profiles
    )
    for row in kept:
        row["snapshot"] = upstream.id
    builder = workspace.warehouse.begin(upstream)
    builder.replace("augmentations", arrow_rows("augmentations", kept))
    builder.replace("prompts", arrow_rows("prompts", known_prompts(upstream, prompts.values())))
    made = embed_texts(workspace, builder, upstream, settings, kept)
    aside = [{"stage": STAGE, "run_id": workspace.run_id, **row} for row in [*rows.quarantine, *made.aside]]
    stayed = [row for row in records(upstream.read("quarantine")) if row["stage"] != STAGE]
    builder.replace("quarantine", arrow_rows("quarantine", stayed + aside))
    if rows.decisions:
        builder.append("decisions", arrow_rows("decisions", rows.decisions))
    stamp(builder, STAGE, key, _summary(rows, kept, prompts, engine_settings) | made.said)
    return workspace.done(STAGE, workspace.commit(builder), started)


def augment_key(
    upstream: Snapshot, settings: ProfileSettings, engine: EngineConfig, prompts: Mapping[str, Prompt]
) -> str:
    """Everything an answer and its vector depend on: tables, profiles, prompts, the engine's identity, the rules."""
    from prompts import RULES

    said = {name: upstream.stages[name]["summary"] for name in ("profile", "embed")}
    facts = [upstream.stages["ingest"]["key"], said["profile"]["content"], said["embed"]["encoder_key"]]
    fingerprints = {aspect: prompt.fingerprint for aspect, prompt in prompts.items()}
    shaping = [settings.seed, settings.pii, RULES, settings.reask, sorted(settings.tolerate)]
    return digest(STAGE, VERSION, *facts, fingerprints, engine.identity(), shaping)


def answered(
    workspace: Workspace,
    askers: Sequence[AspectQuestioner],
    settings: ProfileSettings,
    engine_settings: EngineConfig,
    engine: Engine,
    journal: Journal,
) -> tuple[ProfileRows, list[dict[str, Any]]]:
    """What was put aside and counted, and the rows that were kept, aspect after aspect."""
    rows, kept, accepted = ProfileRows(), list[dict[str, Any]](), decided(workspace)
    for asker in askers:
        where = (workspace, rows, settings, engine_settings, engine, journal, accepted, asker.aspect)
        silent = AspectAsking(*where, questioner=asker, kept=kept).ask_all(asker, asker.prompt.kind)
        rows.no_text[asker.aspect] += len(silent)
    return rows, kept


def carry_budget(workspace: Workspace, engine: Engine) -> None:
    """A cap is the run's: what its profiles took is gone from it."""
    budget, tally = getattr(engine, "budget", None), workspace.tally
    if budget is not None:
        budget.carry(tally.calls, tally.tokens_in + tally.tokens_out, tally.usd or 0.0)


def _lacks_replies(workspace: Workspace, key: str) -> bool:
    before = workspace.warehouse.find_stage(STAGE, key)
    return before is not None and before.stages[STAGE]["summary"]["without_reply"] > 0


def _summary(
    rows: ProfileRows, kept: Sequence[Mapping[str, Any]], prompts: Mapping[str, Prompt], engine: EngineConfig
) -> dict[str, Any]:
    """What the stage says of itself; `content` names for each aspect exactly what models will read."""
    counted = Counter(row["aspect"] for row in kept)
    lines: dict[str, list[str]] = {aspect: [] for aspect in prompts}
    for row in kept:
        said = (row["entity_id"], row["text"] or "", row.get("liked") or "", row.get("refused") or "")
        lines[row["aspect"]].append("\x1f".join(said))
    return {
        "source": engine.source,
        **{aspect: counted[aspect] for aspect in prompts},
        "quarantined": len(rows.quarantine),
        "without_reply": rows.without_reply,
        "reasked": rows.reasked,
        "content": {aspect: sequence_hash(sorted(texts)) for aspect, texts in lines.items()},
        "prompts": [f"{prompt.id} v{prompt.version}" for prompt in prompts.values()],
    }


def _refuse_stored(snapshot: Snapshot, settings: ProfileSettings) -> None:
    """Today's limit on what was put aside then; a limit is no part of a key."""
    said = snapshot.stages[STAGE]["summary"]
    codes = strings(snapshot.read("quarantine", columns=["code"], filter_equal={"stage": STAGE}), "code")
    refuse_above_limit(STAGE, codes, said["quarantined"] + sum(said[aspect] for aspect in said["content"]), settings)
