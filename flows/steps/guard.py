"""The leak guard: no model is trained on a profile that has seen validation or test interactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.embedding_sets import PROFILES
from flows.errors import CoverageError, LeakedEvidenceError, StaleEvidenceError
from flows.settings import ProfileSettings
from flows.steps.aspects import load_aspects, questioners
from flows.steps.evidence import (
    POOLED,
    PromptPair,
    TrainingWorld,
    item_text_evidence,
    load_prompts,
    pooled_evidence,
    profiles_of_items,
    training_world,
    user_text_evidence,
)
from flows.steps.modalities import modality, reads_profiles
from flows.steps.rows import records, strings
from flows.steps.split import KNOWN

if TYPE_CHECKING:
    from warehouse import Snapshot


def refuse_leaks(snapshot: Snapshot, settings: ProfileSettings) -> int:
    """How many profiles were checked against the split; every one of them was built from training rows.

    Raises:
        LeakedEvidenceError: a profile names an interaction of the validation or test part.
        StaleEvidenceError: a profile's evidence hash is not that of the evidence the training rows give.
    """
    rows = records(
        snapshot.read("profiles", columns=["kind", "entity_id", "profile", "source", "evidence_hash", "evidence"])
    )
    _refuse_other_parts(rows, _parts(snapshot))
    world, pair = training_world(snapshot.read, settings.pii), load_prompts(settings)
    item_profiles = {row["entity_id"]: row["profile"] for row in rows if row["kind"] == "item"}
    _refuse_other_hashes(rows, lambda row: _evidence_hash(row, world, pair, item_profiles, settings.seed))
    return len(rows)


def refuse_leaks_of_answers(snapshot: Snapshot, settings: ProfileSettings) -> int:
    """How many rows of `augmentations` were checked the same way; none where nothing was asked.

    Raises:
        LeakedEvidenceError, StaleEvidenceError: as `refuse_leaks`; what was offered to choose among is evidence too.
    """
    from providers import parse_engine

    columns = ["kind", "entity_id", "aspect", "evidence_hash", "evidence"]
    rows = records(snapshot.read("augmentations", columns=columns)) if "augment" in snapshot.stages else []
    if not rows:
        return 0
    _refuse_other_parts(rows, _parts(snapshot))
    engine, world = parse_engine(settings.engine), training_world(snapshot.read, settings.pii)
    prompts = load_aspects(sorted({row["aspect"] for row in rows}), load_prompts(settings), settings)
    askers = {
        asker.aspect: asker for asker in questioners(prompts, world, settings, engine, profiles_of_items(snapshot))
    }

    def expected(row: Mapping[str, Any]) -> str:
        if row["entity_id"] not in (world.users if row["kind"] == "user" else world.items):
            return "none: not in the tables"
        evidence = askers[row["aspect"]].evidence(row["entity_id"])
        return evidence.hash if evidence else "none: no text"

    _refuse_other_hashes(rows, expected)
    return len(rows)


def refuse_thin_vectors(snapshot: Snapshot, model: str, modalities: Sequence[str], required: float) -> None:
    """Nothing, when enough items have text, or a vector, in every modality that a model reads.

    Raises:
        CoverageError: names both numbers.
        UnknownModalityError: no set has the name of a modality.
    """
    ids = frozenset(strings(snapshot.read("items", columns=["item_id"]), "item_id"))
    for name in modalities:
        if name == PROFILES:
            n_there, what = _items_with_text(snapshot), "text"
        else:
            n_there, what = len(ids & modality(snapshot, name, model).items), f"a vector in `{name}`"
        if n_there < required * len(ids) or n_there == 0:
            raise CoverageError(model, n_there, len(ids), required, what)


def _items_with_text(snapshot: Snapshot) -> int:
    n_text, embed = snapshot.stages["profile"]["summary"]["item_profiles"], snapshot.stages.get("embed")
    if embed is None:
        return n_text
    n_vectors = embed["summary"]["items_with_vector"]
    # a server may have refused some profiles; vectors of other texts, or from files, need none
    return min(n_text, n_vectors) if reads_profiles(embed["summary"]) else n_vectors


def _parts(snapshot: Snapshot) -> dict[tuple[str, str], str]:
    splits = snapshot.read("splits")
    pairs = zip(strings(splits, "user_id"), strings(splits, "item_id"), strict=True)
    return dict(zip(pairs, strings(splits, "part"), strict=True))


def _refuse_other_parts(rows: list[dict[str, Any]], parts: Mapping[tuple[str, str], str]) -> None:
    leaks = []
    for row in rows:
        for other in row["evidence"]:
            of_user = row["kind"] == "user"
            part = parts.get((row["entity_id"], other) if of_user else (other, row["entity_id"]), "unknown")
            if part not in (KNOWN if of_user else KNOWN[:1]):  # a held-out user may not speak of an item either
                leaks.append((row["kind"], row["entity_id"], other, part))
                break
    if leaks:
        kind, entity_id, other, part = leaks[0]
        raise LeakedEvidenceError(kind, entity_id, other, part, len(leaks))


def _refuse_other_hashes(rows: list[dict[str, Any]], hash_of: Callable[[Mapping[str, Any]], str]) -> None:
    stale = []
    for row in rows:
        expected = hash_of(row)
        if row["evidence_hash"] != expected:
            stale.append((row["kind"], row["entity_id"], row["evidence_hash"], expected))
    if stale:
        kind, entity_id, got, expected = stale[0]
        raise StaleEvidenceError(kind, entity_id, got, expected, len(stale))


def _evidence_hash(
    row: Mapping[str, Any], world: TrainingWorld, pair: PromptPair, item_profiles: Mapping[str, str], seed: int
) -> str:
    entity_id, known = row["entity_id"], world.users if row["kind"] == "user" else world.items
    if entity_id not in known:
        return "none: not in the tables"
    if row["source"] == POOLED:
        return pooled_evidence(world, entity_id)[1]
    if row["kind"] == "item":
        evidence = item_text_evidence(world, pair, seed, entity_id)
    else:
        evidence = user_text_evidence(world, pair, item_profiles, seed, entity_id)
    return evidence.hash if evidence else "none: no text"
