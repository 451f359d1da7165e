"""What a run would do and cost, stage by stage; nothing is sent, computed or written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from flows.model_choices import ModelChoice
from flows.settings import Settings
from flows.steps import embed, ingest, profile, questions, train
from flows.steps.evidence import TrainingWorld, check_columns, load_prompts, training_world
from flows.steps.rows import records

if TYPE_CHECKING:
    from providers import EngineConfig, Request
    from warehouse import Snapshot, Warehouse

State = Literal["kept", "to do"]

# Rules of thumb for 2 cores, used until this warehouse has figures of its own.
TEXTS_PER_S = 60.0
FLOP_PER_S = 1e11
FLOP_PER_CELL = 3600.0
LIKELY_EPOCHS = 150
PROCESS_START_S = 4.0
CHARACTERS_PER_TOKEN = 4.0
REPLY_TOKENS = 220
SAMPLE = 200


@dataclass(frozen=True)
class StageOutlook:
    """What one stage would do. `calls` and `usd` are None where nobody can know before an earlier stage is done."""

    stage: str
    state: State
    what: str
    seconds: float = 0.0
    calls: int | None = 0
    cached: int = 0
    tokens: int = 0
    usd: float | None = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Sight:
    """What is known on the way: the newest snapshot that fits, or tables that were only read."""

    snapshot: Snapshot | None
    world: TrainingWorld | None
    sizes: dict[str, int]
    summary: dict[str, Any]


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
        sight, third = _embed_outlook(settings, warehouse, sight, second)
        stages += [second, third]
    return [*stages, _train_outlook(settings, warehouse, sight, choices)]


def train_seconds(choice: ModelChoice, sizes: dict[str, int], settings: Settings, past: dict[str, float]) -> float:
    """Seconds one training is likely to take: as the last ones here did, else by a rule of thumb."""
    if choice.name in past:
        return past[choice.name] + PROCESS_START_S
    if choice.name == "popularity":
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
    key = ingest.ingest_key(settings.source, settings.split)
    found = warehouse.find_stage("ingest", key)
    if found is not None:
        summary = found.stages["ingest"]["summary"]
        sight = _Sight(found, None, summary, summary)
        return sight, StageOutlook(
            "ingest", "kept", _sizes_in_words(summary), facts={"rows": summary["n_interactions"]}
        )
    prepared = ingest.prepare(settings.source, settings.split, "", warehouse.tombstones())
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
    requests = [row for row, _, _ in questions.item_requests(world, pair, settings.profiles, engine) if row is not None]
    speaking = len(world.users) if engine.source != "attributes" else _speaking_users(world, pair)
    asked = questions.user_requests(world, pair, settings.profiles, engine, {})
    users = [row for row, _, _ in islice(asked, SAMPLE) if row is not None] if speaking else []
    return _Sight(None, world, sight.sizes, {}), _priced(engine, warehouse, requests, users, speaking)


def _speaking_users(world: TrainingWorld, pair: Any) -> int:
    from flows.steps.evidence import has_attributes

    return sum(has_attributes(world, pair, user_id) for user_id in world.users)


def _priced(
    engine: EngineConfig,
    warehouse: Warehouse,
    items: Sequence[Request],
    user_sample: Sequence[Request],
    n_users: int,
) -> StageOutlook:
    """The profile stage in requests, tokens and money; users' tokens from a sample, for item profiles are not there."""
    facts = {"texts": len(items) + n_users}
    if engine.source == "attributes":
        words = f"{len(items):,} items and {n_users:,} users composed from attributes; the other users are pooled"
        return StageOutlook("profile", "to do", words, facts["texts"] / 5000, facts=facts)
    cached = _answered(warehouse, items)
    new = [request for request in items if request.key not in cached]
    tokens_in = sum(_tokens(request) for request in new)
    tokens_in += round(n_users * sum(_tokens(request) for request in user_sample) / max(len(user_sample), 1))
    calls = len({request.key for request in new}) + n_users
    tokens_out = calls * REPLY_TOKENS
    price = engine.known_price()
    usd = (price.cost(tokens_in, tokens_out) if price else None) if engine.paid else 0.0
    words = (
        f"{len(items):,} item and {n_users:,} user requests to {engine.source}: {len(cached):,} cached, {calls:,} new"
    )
    return StageOutlook("profile", "to do", words, calls / 2.0, calls, len(cached), tokens_in + tokens_out, usd, facts)


def _answered(warehouse: Warehouse, requests: Iterable[Request]) -> set[str]:
    if not (warehouse.root / "ledger.sqlite").exists():
        return set()
    with warehouse.ledger(read_only=True) as ledger:
        return {request.key for request in requests if ledger.answered(request.key) is not None}


def _tokens(request: Request) -> int:
    return round(sum(len(content) for _, content in request.messages) / CHARACTERS_PER_TOKEN)


def _embed_outlook(
    settings: Settings, warehouse: Warehouse, sight: _Sight, profiles: StageOutlook
) -> tuple[_Sight, StageOutlook]:
    from providers import parse_encoder

    identity = parse_encoder(settings.embeddings).describe()
    if sight.snapshot is not None:
        key = embed.embed_key(sight.snapshot, identity)
        if found := warehouse.find_stage("embed", key):
            words = f"{found.stages['embed']['summary']['items_with_vector']:,} items by {identity.model}"
            return _Sight(found, None, sight.sizes, {}), StageOutlook("embed", "kept", words)
    n_texts = profiles.facts["texts"]
    words = f"at most {n_texts:,} texts by {identity.model}; texts embedded before are not embedded again"
    return _Sight(None, None, sight.sizes, {}), StageOutlook("embed", "to do", words, 10 + n_texts / TEXTS_PER_S)


def _train_outlook(
    settings: Settings, warehouse: Warehouse, sight: _Sight, choices: Sequence[ModelChoice]
) -> StageOutlook:
    done = _trained(settings, warehouse, sight, choices)
    past = past_seconds(warehouse.current())
    missing = [
        (choice, seed)
        for choice in choices
        for seed in range(settings.evaluation.seeds)
        if (choice.label, seed) not in done
    ]
    seconds = sum(train_seconds(choice, sight.sizes, settings, past) for choice, _ in missing)
    total = len(choices) * settings.evaluation.seeds
    seeds = settings.evaluation.seeds
    words = f"{len(choices)} models × {seeds} seeds: {total - len(missing)} trained before, {len(missing)} to train"
    facts = {"models": [choice.label for choice in choices], "to_train": len(missing)}
    return StageOutlook("train", "to do" if missing else "kept", words, seconds, facts=facts)


def _trained(
    settings: Settings, warehouse: Warehouse, sight: _Sight, choices: Sequence[ModelChoice]
) -> set[tuple[str, int]]:
    """(label, seed) of models that are there; needs torch only when a snapshot holds everything but the plan."""
    if sight.snapshot is None:
        return set()
    key = train.plan_key(sight.snapshot, choices, settings)
    seen = warehouse.find_stage("train", key)
    if seen is not None:
        models = [train.PlannedModel(**row) for row in seen.stages["train"]["summary"]["models"]]
    else:
        models = train.planned(sight.snapshot, choices, settings)
    return {(model.label, model.seed) for model in models if train.is_trained(warehouse, model.model_id)}
