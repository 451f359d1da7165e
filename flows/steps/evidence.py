"""Evidence of every profile, from training rows alone: what prompts are shown, and what the leak guard recomputes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.errors import SettingValueError
from flows.settings import ProfileSettings, digest
from flows.steps.rows import index_order, strings
from flows.steps.split import KNOWN

if TYPE_CHECKING:
    import pyarrow as pa

    from prompts import Evidence, HistoryEntry, Prompt, ReviewEntry
    from warehouse import Snapshot

POOLED = "pooled"
READ_OF_ROWS = ("user_id", "item_id", "rating", "text")

ReadTable = Callable[[str], "pa.Table"]


@dataclass(frozen=True)
class PromptPair:
    """The item and the user prompt of a domain."""

    item: Prompt
    user: Prompt

    def of(self, kind: str) -> Prompt:
        return self.item if kind == "item" else self.user

    def names(self, kind: str) -> tuple[str, ...]:
        """The attributes a prompt may read."""
        return tuple(field.name for field in self.of(kind).fields)

    def identity(self) -> dict[str, str]:
        """What a changed prompt file changes."""
        return {"item": self.item.fingerprint, "user": self.user.fingerprint}


@dataclass(frozen=True)
class TrainingRow:
    """One training interaction as evidence sees it."""

    item_id: str
    rating: float | None
    text: str | None


@dataclass(frozen=True)
class TrainingWorld:
    """Attributes of items and users, and the training rows. Validation and test rows are not in it.

    Attributes:
        items, users: id → attributes, in index order.
        histories: user id → training rows in item order; of a user who is held out the fold-in rows, which speak of
            that user and of nobody else.
        reviews: item id → (user id, text) of training rows that carry text.
    """

    items: dict[str, dict[str, Any]]
    users: dict[str, dict[str, Any]]
    histories: dict[str, list[TrainingRow]] = field(default_factory=dict)
    reviews: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


def load_prompts(settings: ProfileSettings) -> PromptPair:
    """The prompts of the settings' domain, restricted to `profiles.attributes` where that is set.

    Raises:
        SettingValueError: `profiles.attributes` names something no prompt of the domain may read, or
            `profiles.tolerate` no code.
    """
    from prompts import CONTENT_CODES, load_prompt

    for code in settings.tolerate:
        if code not in CONTENT_CODES:
            problem = f"no code of a reply's contents; known: {', '.join(sorted(CONTENT_CODES))}"
            raise SettingValueError("profiles.tolerate", code, problem)
    directory = Path(settings.prompts_dir) if settings.prompts_dir else None
    pair = PromptPair(*(load_prompt(settings.domain, kind, directory=directory) for kind in ("item", "user")))
    if settings.attributes is None:
        return pair
    allowed = {*pair.names("item"), *pair.names("user")}
    for name in settings.attributes:
        if name not in allowed:
            problem = f"the {settings.domain} prompts may not read it; they read {', '.join(sorted(allowed))}"
            raise SettingValueError("profiles.attributes", name, problem)
    kept = ([name for name in settings.attributes if name in pair.names(kind)] for kind in ("item", "user"))
    return PromptPair(pair.item.restricted_to(next(kept)), pair.user.restricted_to(next(kept)))


def training_world(read: ReadTable, pii: str = "off") -> TrainingWorld:
    """Attributes and training rows of a snapshot's tables.

    Args:
        read: gives a table by name, `snapshot.read` for a snapshot.
        pii: "strict" takes personal details out of what users wrote.
    """
    from prompts import redact

    items = _entities(read("items"), "item_id")
    users = _entities(read("users"), "user_id")
    world = TrainingWorld(items, users)
    splits, rows = read("splits"), read("interactions")
    columns = (strings(splits, name) for name in ("user_id", "item_id", "part"))
    known = {(user_id, item_id): part for user_id, item_id, part in zip(*columns, strict=True) if part in KNOWN}
    histories, reviews = defaultdict(list), defaultdict(list)
    for user_id, item_id, rating, text in zip(*(_optional(rows, name) for name in READ_OF_ROWS), strict=True):
        if part := known.get((user_id, item_id)):
            text = redact(text) if text and pii == "strict" else text
            histories[user_id].append(TrainingRow(item_id, rating, text))
            if text and part == "train":
                reviews[item_id].append((user_id, text))
    world.histories.update(histories)
    world.reviews.update(reviews)
    return world


def profiles_of_items(snapshot: Snapshot) -> dict[str, str]:
    """item id -> its profile, where it has one."""
    rows = snapshot.read("profiles", columns=["entity_id", "profile"], filter_equal={"kind": "item"})
    pairs = zip(strings(rows, "entity_id"), rows.column("profile").to_pylist(), strict=True)
    return {entity_id: profile for entity_id, profile in pairs if profile}


def check_columns(pair: PromptPair, summary: Mapping[str, Any]) -> None:
    """Nothing, when the sources hold every attribute the prompts cannot do without.

    Raises:
        MissingAttributeError: names prompt, attribute, known columns and the cure.
    """
    from prompts import check_attributes

    check_attributes(pair.item, summary["item_columns"])
    check_attributes(pair.user, summary["user_columns"])


def item_text_evidence(world: TrainingWorld, pair: PromptPair, seed: int, item_id: str) -> Evidence | None:
    """Evidence of an item's text: attributes, and reviews of its training rows; None where it has no text at all."""
    from prompts import ReviewEntry, item_evidence

    reviews: list[ReviewEntry] = [ReviewEntry(user_id, text) for user_id, text in world.reviews.get(item_id, ())]
    attributes = _complete(pair.item, world.items[item_id])
    return item_evidence(pair.item, attributes, reviews, seed=seed, item_id=item_id)


def user_text_evidence(
    world: TrainingWorld, pair: PromptPair, item_profiles: Mapping[str, str], seed: int, user_id: str
) -> Evidence | None:
    """Evidence of a user's own text: attributes, and training items with their profiles."""
    from prompts import HistoryEntry, user_evidence

    history: list[HistoryEntry] = [
        HistoryEntry(
            item_id=row.item_id,
            title=str(world.items.get(row.item_id, {}).get("title") or ""),
            profile=item_profiles.get(row.item_id),
            rating=row.rating,
            review=row.text,
        )
        for row in world.histories.get(user_id, ())
    ]
    attributes = _complete(pair.user, world.users[user_id])
    return user_evidence(pair.user, attributes, history, seed=seed, user_id=user_id)


def has_attributes(world: TrainingWorld, pair: PromptPair, user_id: str) -> bool:
    """Whether a user has any attribute that the prompt may read."""
    attributes = world.users[user_id]
    return any(attributes.get(name) not in (None, "") for name in pair.names("user"))


def pooled_evidence(world: TrainingWorld, user_id: str) -> tuple[list[str], str]:
    """Training items whose vectors are averaged for a user without text, and their hash."""
    items = index_order(row.item_id for row in world.histories.get(user_id, ()))
    return items, digest(POOLED, items)


def _complete(prompt: Prompt, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes with a None for each required one that this row leaves empty; the column is known to be there."""
    return {**dict.fromkeys(prompt.required), **attributes}


def _entities(rows: pa.Table, id_column: str) -> dict[str, dict[str, Any]]:
    from warehouse import unpack_attributes

    attributes = dict(zip(strings(rows, id_column), unpack_attributes(rows), strict=True))
    return {entity_id: attributes[entity_id] for entity_id in index_order(attributes)}


def _optional(rows: pa.Table, name: str) -> list[Any]:
    return rows.column(name).to_pylist() if name in rows.column_names else [None] * rows.num_rows
