"""What a run would do and cost, stage by stage; nothing is sent, computed or written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from flows.augment_outlook import rehearse_answers
from flows.embedding_outlook import VectorsDue, due_of, due_of_texts, in_all
from flows.embedding_sets import by_encoder, default_set, described, embedding_sets, refuse_unknown_texts
from flows.model_choices import ModelChoice, earlier_choice
from flows.projection import project
from flows.settings import Settings
from flows.steps import augment, embed, ingest, profile, train
from flows.steps.aspects import aspects_to_ask, load_aspects
from flows.steps.evidence import TrainingWorld, check_columns, load_prompts, profiles_of_items, training_world
from flows.steps.filters import left_out_words
from flows.steps.live_sources import settled
from flows.steps.questions import Questioner
from flows.steps.rehearse import Rehearsal, rehearse
from flows.steps.rows import records

if TYPE_CHECKING:
    from providers import EngineConfig
    from warehouse import Snapshot, Warehouse

State = Literal["kept", "to do"]

# Rules of thumb for 2 cores, used until this warehouse has figures of its own.
FLOP_PER_S = 1e11
FLOP_PER_CELL = 3600.0
LIKELY_EPOCHS = 150
PROCESS_START_S = 4.0
SOLVED_IN_SECONDS = ("popularity", "random", "item_knn", "pl_rec", "wmf")
EARLIER = "earlier"
KINDS: tuple[Literal["item"], Literal["user"]] = ("item", "user")


@dataclass(frozen=True)
class StageOutlook:
    """What one stage would do. `calls` and `usd` are None where nobody can know before an earlier stage is done.

    Args:
        new, changed: first questions about what was never asked about, and about what was, in other words.
        reasks: second questions to expect beyond `calls`; tokens, usd and seconds count them.
        usd_low, usd_high: 95 %, from replies that are there; None without enough of them.
    """

    stage: str
    state: State
    what: str
    seconds: float = 0.0
    calls: int | None = 0
    cached: int = 0
    tokens: int = 0
    usd: float | None = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    new: int = 0
    changed: int = 0
    reasks: int = 0
    usd_low: float | None = None
    usd_high: float | None = None


@dataclass
class _Sight:
    """What is known on the way: the newest snapshot that fits, or tables that were only read."""

    snapshot: Snapshot | None
    world: TrainingWorld | None
    sizes: dict[str, Any]
    summary: dict[str, Any]
    item_profiles: Mapping[str, str] = field(default_factory=dict)


def outlook(
    settings: Settings, warehouse: Warehouse, choices: Sequence[ModelChoice], language: bool = True
) -> list[StageOutlook]:
    """Every stage from the sources to the trained models.

    Args:
        language: False leaves profiles and embeddings out, for models that read none.
    """
    sight, first = _ingest_outlook(settings, warehouse)
    stages = [first]
    if language:
        sight, second = _profile_outlook(settings, warehouse, sight)
        written = sight
        sight, third = _embed_outlook(settings, warehouse, sight, second)
        stages += [second, third]
        if aspects := aspects_to_ask(choices, settings):
            sight, fourth = _augment_outlook(settings, warehouse, written, sight, aspects)
            stages.append(fourth)
    return [*stages, _train_outlook(settings, warehouse, sight, choices)]


def train_seconds(choice: ModelChoice, sizes: dict[str, int], settings: Settings, past: dict[str, float]) -> float:
    """Seconds one training is likely to take: as the last ones here did, else by a rule of thumb."""
    if choice.name in past:
        return past[choice.name] + PROCESS_START_S
    if choice.name in SOLVED_IN_SECONDS:
        return PROCESS_START_S
    if choice.name == "ease":
        return PROCESS_START_S + 4 * float(sizes["n_items"]) ** 3 / FLOP_PER_S
    epochs = min(int(settings.training.get("epochs", 1000)), LIKELY_EPOCHS)
    return PROCESS_START_S + epochs * sizes["n_users"] * sizes["n_items"] * FLOP_PER_CELL / FLOP_PER_S


def past_seconds(snapshot: Snapshot | None) -> dict[str, float]:
    """Mean training seconds of each model name in the registry."""
    seconds: dict[str, list[float]] = {}
    for row in records(snapshot.read("model_registry", columns=["name", "metrics"])) if snapshot else []:
        seconds.setdefault(row["name"], []).append(json.loads(row["metrics"] or "{}").get("seconds", 0.0))
    return {name: sum(values) / len(values) for name, values in seconds.items()}


def _ingest_outlook(settings: Settings, warehouse: Warehouse) -> tuple[_Sight, StageOutlook]:
    source = settled(settings.source, warehouse)
    key = ingest.ingest_key(source, settings.split)
    found = warehouse.find_stage("ingest", key)
    if found is not None:
        summary = found.stages["ingest"]["summary"]
        sight = _Sight(found, None, summary, summary)
        return sight, StageOutlook(
            "ingest", "kept", _sizes_in_words(summary), facts={"rows": summary["n_interactions"]}
        )
    prepared = ingest.prepare(source, settings.split, "", warehouse.tombstones())
    world = training_world(prepared.stored().__getitem__, settings.profiles.pii)
    words = _sizes_in_words(prepared.summary)
    facts = {"rows": prepared.summary["n_interactions"], "quarantined": prepared.summary["quarantined"]}
    return _Sight(None, world, prepared.summary, prepared.summary), StageOutlook(
        "ingest", "to do", words, 2.0, facts=facts
    )


def _sizes_in_words(summary: dict[str, Any]) -> str:
    return (
        f"{summary['n_users']:,} users, {summary['n_items']:,} items, {summary['n_interactions']:,} interactions, "
        f"{summary['quarantined']:,} rows quarantined; split {summary['split']}"
        + (f"; left out: {said}" if (said := left_out_words(summary.get("left_out", {}))) else "")
    )


def _profile_outlook(settings: Settings, warehouse: Warehouse, sight: _Sight) -> tuple[_Sight, StageOutlook]:
    from providers import parse_engine

    engine, pair = parse_engine(settings.profiles.engine), load_prompts(settings.profiles)
    if sight.snapshot is not None:
        key = profile.profile_key(sight.snapshot, settings.profiles, engine, pair)
        if found := warehouse.find_stage("profile", key):
            summary = found.stages["profile"]["summary"]
            words = f"{summary['item_profiles']:,} items, {summary['user_profiles']:,} users from {summary['source']}"
            facts = {"texts": summary["item_profiles"] + summary["user_profiles"]}
            return _Sight(found, None, sight.sizes, summary), StageOutlook("profile", "kept", words, facts=facts)
    check_columns(pair, sight.summary)
    world = sight.world
    if world is None:
        assert sight.snapshot is not None  # a sight holds one or the other
        world = training_world(sight.snapshot.read, settings.profiles.pii)
    if engine.source == "attributes":
        stage = _composed(Questioner(world, pair, settings.profiles, engine, {}))
    else:
        rehearsal = rehearse(warehouse, settings.profiles, engine, pair, world)
        stage = _asked(warehouse, engine, rehearsal)
        return _Sight(None, world, sight.sizes, {}, rehearsal.questioners["user"].item_profiles), stage
    return _Sight(None, world, sight.sizes, {}), stage


def _augment_outlook(
    settings: Settings, warehouse: Warehouse, written: _Sight, embedded: _Sight, aspects: tuple[str, ...]
) -> tuple[_Sight, StageOutlook]:
    """The stage `augment`.

    Args:
        written: the sight once the profiles are there, or with what stands for those to come.
        embedded: the sight after the embeddings.
    """
    from providers import parse_engine

    engine, pair = parse_engine(settings.profiles.engine), load_prompts(settings.profiles)
    if embedded.snapshot is not None:
        prompts = load_aspects(aspects, pair, settings.profiles)
        key = augment.augment_key(embedded.snapshot, settings.profiles, engine, prompts)
        if found := warehouse.find_stage("augment", key):
            said = found.stages["augment"]["summary"]
            words = ", ".join(f"{said[aspect]:,} × {aspect}" for aspect in aspects)
            return _Sight(found, None, embedded.sizes, {}), StageOutlook(
                "augment", "kept", f"{words} from {said['source']}"
            )
    world, profiles = written.world, written.item_profiles
    if written.snapshot is not None:
        world = training_world(written.snapshot.read, settings.profiles.pii)
        profiles = profiles_of_items(written.snapshot)
    assert world is not None  # a sight holds one or the other
    rehearsal, texts = rehearse_answers(warehouse, settings.profiles, engine, pair, world, profiles, aspects)
    asked = _asked(warehouse, engine, rehearsal)
    due = due_of_texts(warehouse, described([default_set(settings)])[0], texts)
    words = f"{', '.join(aspects)}: {asked.what}; then {due.words}"
    stage = replace(_with_vectors(asked, due), stage="augment", what=words)
    return _Sight(None, None, embedded.sizes, {}), stage


def _with_vectors(asked: StageOutlook, due: VectorsDue) -> StageOutlook:
    """Questions, and the vectors of their answers; an unknown price stays unknown."""
    usd = asked.usd + due.usd if asked.usd is not None and due.usd is not None else None
    has_interval = usd is not None and (asked.usd_low is not None or due.usd_low is not None)
    return replace(
        asked,
        seconds=asked.seconds + due.seconds,
        calls=(asked.calls or 0) + due.calls,
        tokens=asked.tokens + due.tokens,
        new=asked.new + due.calls,
        usd=usd,
        usd_low=sum(part.usd_low or part.usd or 0.0 for part in (asked, due)) if has_interval else None,
        usd_high=sum(part.usd_high or part.usd or 0.0 for part in (asked, due)) if has_interval else None,
    )


def _composed(questioner: Questioner) -> StageOutlook:
    """The profile stage of the engine that asks no model."""
    items, users = (sum(questioner.of(kind, name) is not None for name in questioner.ids(kind)) for kind in KINDS)
    words = f"{items:,} items and {users:,} users composed from attributes; the other users are pooled"
    return StageOutlook("profile", "to do", words, (items + users) / 5000, facts={"texts": items + users})


def _asked(warehouse: Warehouse, engine: EngineConfig, rehearsal: Rehearsal) -> StageOutlook:
    """The profile stage in requests, tokens and money."""
    due = project(rehearsal, engine, _latencies_s(warehouse, {reply.key for reply in rehearsal.replies}))
    first = [ask for ask in rehearsal.asks.values() if ask.attempt_class == "first"]
    changed = sum(ask.changed for ask in first)
    n_items = sum(ask.kind == "item" for ask in first)
    source = f"{due.measured:,} replies" if due.measured else "rules of thumb"
    at_server = f"; {len(rehearsal.at_server):,} wait in batches" if rehearsal.at_server else ""
    words = (
        f"{len(first):,} requests to {engine.source} ({n_items:,} items, {len(first) - n_items:,} users): "
        f"{len(first) - changed:,} new, {changed:,} changed; {len(rehearsal.answered):,} cached; second questions: "
        f"{due.calls - len(first):,} due, about {due.reasks:,} more; from {source}{at_server}"
    )
    facts = {
        "texts": rehearsal.n_texts,
        "second_due": due.calls - len(first),
        "measured_replies": due.measured,
        "in_batches": len(rehearsal.at_server),
    }
    return StageOutlook(
        "profile",
        "to do",
        words,
        due.seconds,
        calls=due.calls,
        cached=len(rehearsal.answered),
        tokens=due.tokens_in + due.tokens_out,
        usd=due.usd,
        facts=facts,
        new=len(first) - changed,
        changed=changed,
        reasks=due.reasks,
        usd_low=due.usd_low,
        usd_high=due.usd_high,
    )


def _latencies_s(warehouse: Warehouse, keys: set[str]) -> dict[str, float]:
    """Request key → seconds of the call that answered it."""
    if not keys:
        return {}
    with warehouse.ledger(read_only=True) as ledger:
        calls = ledger.calls().select(["request_key", "state", "latency_ms"]).to_pylist()
    return {
        call["request_key"]: call["latency_ms"] / 1000
        for call in calls
        if call["request_key"] in keys and call["state"] == "ok" and call["latency_ms"]
    }


def _embed_outlook(
    settings: Settings, warehouse: Warehouse, sight: _Sight, profiles: StageOutlook
) -> tuple[_Sight, StageOutlook]:
    sets = embedding_sets(settings)
    refuse_unknown_texts(sets, {kind: sight.sizes[f"{kind}_columns"] for kind in ("item", "user")})
    asked = described(sets)
    if sight.snapshot is not None:
        key = embed.embed_key(sight.snapshot, asked)
        if found := warehouse.find_stage("embed", key):
            models = ", ".join(dict.fromkeys(one.identity.model for one in asked))
            words = f"{found.stages['embed']['summary']['items_with_vector']:,} items by {models}"
            return _Sight(found, None, sight.sizes, {}), StageOutlook("embed", "kept", words)
    due = in_all([due_of(warehouse, same, sight.snapshot, profiles.facts["texts"]) for same in by_encoder(asked)])
    facts = {"texts": due.texts - due.known, "texts_known": due.known, "measured_calls": due.measured}
    return _Sight(None, None, sight.sizes, {}), StageOutlook(
        "embed",
        "to do",
        due.words,
        due.seconds,
        calls=due.calls,
        tokens=due.tokens,
        usd=due.usd,
        facts=facts if due.calls else {},
        new=due.calls,
        usd_low=due.usd_low,
        usd_high=due.usd_high,
    )


def _train_outlook(
    settings: Settings, warehouse: Warehouse, sight: _Sight, choices: Sequence[ModelChoice]
) -> StageOutlook:
    done = _trained(settings, warehouse, sight, choices)
    past = past_seconds(warehouse.current())
    first = earlier_choice(choices, settings)
    seeds = settings.evaluation.seeds
    missing = [(choice, seed) for choice in choices for seed in range(seeds) if (choice.label, seed) not in done]
    if first is not None and any(choice.mapping == first.mapping for choice in choices):
        first = None  # counted among the models
    before = [(first, seed) for seed in range(seeds) if first is not None and (EARLIER, seed) not in done]
    seconds = sum(train_seconds(choice, sight.sizes, settings, past) for choice, _ in [*before, *missing])
    total = len(choices) * seeds
    words = f"{len(choices)} models × {seeds} seeds: {total - len(missing)} trained before, {len(missing)} to train"
    words += f"; {len(before)} LightGCN first, for item clusters" if before else ""
    facts = {"models": [choice.label for choice in choices], "to_train": len(missing) + len(before)}
    return StageOutlook("train", "to do" if missing else "kept", words, seconds, facts=facts)


def _trained(
    settings: Settings, warehouse: Warehouse, sight: _Sight, choices: Sequence[ModelChoice]
) -> set[tuple[str, int]]:
    """(label, seed) of models that are there; needs torch only when a snapshot holds everything but the plan.

    One that others are built on goes by EARLIER and its seed.
    """
    if sight.snapshot is None:
        return set()
    key = train.plan_key(sight.snapshot, choices, settings)
    seen = warehouse.find_stage("train", key)
    plan = train.stored_plan(seen) if seen is not None else train.planned(sight.snapshot, choices, settings)
    named = [(model.label, model) for model in plan.models] + [(EARLIER, model) for model in plan.earlier]
    return {(label, model.seed) for label, model in named if train.is_trained(warehouse, model.model_id)}
