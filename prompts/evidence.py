"""Evidence: the allowed, cleaned and capped facts one profile is built from, with the ids of the rows behind them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from prompts.errors import MissingAttributeError
from prompts.loader import AttributeField, Kind, Prompt
from prompts.text import MISSING, as_json, as_text, as_texts, shorten
from prompts.tokens import count_tokens

_HISTORY_KEYS = ("title", "description", "rating", "review")
_SHORTEST = 24


@dataclass(frozen=True)
class ReviewEntry:
    """A training review of an item. The user's id names the row and is never shown."""

    user_id: str
    text: str | None


@dataclass(frozen=True)
class HistoryEntry:
    """A training item of a user: its title and profile, and what this user said of it."""

    item_id: str
    title: str | None = None
    profile: str | None = None
    rating: float | str | None = None
    review: str | None = None


@dataclass(frozen=True)
class Evidence:
    """What is shown for one entity.

    Args:
        attributes: (name, text or texts) in the prompt's order; a missing value is the word None.
        history: training items as (title, description, rating, review).
        pairs: ids of the other side of every interaction shown: a user's items, or an item's reviewers.
        candidates: (title, description) of items to choose among, which are no interactions.
        truncated: true when a limit cut a text or a list of attributes short (sampling is no truncation).
    """

    prompt_id: str
    kind: Kind
    attributes: tuple[tuple[str, str | tuple[str, ...]], ...]
    reviews: tuple[str, ...] = ()
    history: tuple[tuple[str, str, str, str], ...] = ()
    pairs: tuple[str, ...] = ()
    truncated: bool = False
    candidates: tuple[tuple[str, str], ...] = ()

    @cached_property
    def hash(self) -> str:
        """sha256 of everything shown and of the ids behind it."""
        shown = [self.kind, self.attributes, self.reviews, self.history, self.pairs]
        shown += [self.candidates] if self.candidates else []
        canonical = json.dumps(shown, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def shown_values(evidence: Evidence) -> dict[str, Any]:
    """The evidence under the names templates know: attributes, reviews, history, and candidates where there are any."""
    # a name that is always there would change the bytes of every prompt, and so pay for all of them again
    offered = [
        {"number": str(number), "title": title, "description": description}
        for number, (title, description) in enumerate(evidence.candidates, start=1)
    ]
    return {
        **({"candidates": offered} if offered else {}),
        "attributes": {name: value if isinstance(value, str) else list(value) for name, value in evidence.attributes},
        "reviews": list(evidence.reviews),
        "history": [dict(zip(_HISTORY_KEYS, entry, strict=True)) for entry in evidence.history],
    }


def shown_tokens(evidence: Evidence) -> int:
    """How many tokens the evidence takes in a prompt, as `count_tokens` counts them."""
    return sum(count_tokens(as_json(value)) for value in shown_values(evidence).values() if value)


def check_attributes(prompt: Prompt, columns: Iterable[str]) -> None:
    """Returns when the data has every attribute the prompt requires; call it once a table, before any row.

    Raises:
        MissingAttributeError: naming the first attribute that is no column.
    """
    known = tuple(columns)
    for name in prompt.required:
        if name not in known:
            raise MissingAttributeError(prompt.id, name, known)


def item_evidence(
    prompt: Prompt,
    attributes: Mapping[str, Any],
    reviews: Sequence[ReviewEntry] = (),
    seed: int = 0,
    item_id: str = "",
) -> Evidence | None:
    """Evidence of one item, with a seeded sample of its training reviews; None when there is no text at all.

    Args:
        item_id: salts the sample, so that one more review changes it little; it is never shown.

    Raises:
        MissingAttributeError: a required attribute is no key of `attributes`.
    """
    shown, cut = _allowed(prompt, attributes)
    texts = {review.user_id: as_text(review.text) for review in reviews}
    user_ids = _sample([user_id for user_id, text in texts.items() if text], prompt.limits.reviews, seed, item_id)
    shortened = [shorten(texts[user_id], prompt.limits.review_chars) for user_id in user_ids]
    if not shortened and not _says_something(shown):
        return None
    evidence = Evidence(
        prompt.id,
        "item",
        shown,
        reviews=tuple(text for text, _ in shortened),
        pairs=tuple(user_ids),
        truncated=cut or any(was_cut for _, was_cut in shortened),
    )
    return _within(evidence, prompt.limits.max_tokens)


def user_evidence(
    prompt: Prompt,
    attributes: Mapping[str, Any],
    history: Sequence[HistoryEntry],
    seed: int = 0,
    user_id: str = "",
) -> Evidence | None:
    """Evidence of one user: allowed attributes and a seeded sample of training items; None without any text.

    Items that have neither title nor profile say nothing and are never drawn.

    Args:
        history: rows of the training part only; their order does not matter.
        user_id: salts the sample, so that one more item changes it little; it is never shown.

    Raises:
        MissingAttributeError: a required attribute is no key of `attributes`.
    """
    shown, cut = _allowed(prompt, attributes)
    telling = {entry.item_id: entry for entry in history if as_text(entry.title) or as_text(entry.profile)}
    item_ids = _sample(list(telling), prompt.limits.history, seed, user_id)
    entries = [_history_texts(prompt, telling[item_id]) for item_id in item_ids]
    if not entries and not _says_something(shown):
        return None
    evidence = Evidence(
        prompt.id,
        "user",
        shown,
        history=tuple(texts for texts, _ in entries),
        pairs=tuple(item_ids),
        truncated=cut or any(was_cut for _, was_cut in entries),
    )
    return _within(evidence, prompt.limits.max_tokens)


def with_candidates(evidence: Evidence, prompt: Prompt, offered: Sequence[tuple[Any, Any]]) -> Evidence:
    """The evidence with items to choose among, each a (title, description), as many as are given.

    Raises:
        ValueError: fewer than two; there would be nothing to choose.
    """
    if len(offered) < 2:
        raise ValueError(f"{len(offered)} candidates, expected at least 2")
    shown = []
    for title, description in offered:
        text, _ = shorten(as_text(description), prompt.limits.description_chars)
        shown.append((as_text(title) or MISSING, text or MISSING))
    return replace(evidence, candidates=tuple(shown))


def _allowed(
    prompt: Prompt, attributes: Mapping[str, Any]
) -> tuple[tuple[tuple[str, str | tuple[str, ...]], ...], bool]:
    check_attributes(prompt, attributes)
    shown: list[tuple[str, str | tuple[str, ...]]] = []
    any_cut = False
    for field in prompt.fields:
        if field.name in attributes:
            value, cut = _shown_value(field, attributes[field.name])
            shown.append((field.name, value or MISSING))
            any_cut = any_cut or cut
    return tuple(shown), any_cut


def _shown_value(field: AttributeField, value: Any) -> tuple[str | tuple[str, ...], bool]:
    if isinstance(value, str) and field.separator is not None:
        value = value.split(field.separator)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        texts = as_texts(value)
        shortened = [shorten(text, field.max_chars) for text in texts[: field.max_items]]
        return tuple(text for text, _ in shortened), len(texts) > field.max_items or any(cut for _, cut in shortened)
    return shorten(as_text(value), field.max_chars)


def _says_something(shown: tuple[tuple[str, str | tuple[str, ...]], ...]) -> bool:
    return any(value != MISSING for _, value in shown)


def _sample(ids: list[str], size: int, seed: int, salt: str) -> list[str]:
    """`size` ids, uniformly by hash: the same on every machine, and stable when ids are added or removed."""

    def rank(entity_id: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{salt}\0{entity_id}".encode("utf-8", "surrogatepass")).digest()

    return sorted(ids, key=rank)[:size]


def _history_texts(prompt: Prompt, entry: HistoryEntry) -> tuple[tuple[str, str, str, str], bool]:
    profile, profile_cut = shorten(as_text(entry.profile), prompt.limits.description_chars)
    review, review_cut = shorten(as_text(entry.review), prompt.limits.review_chars)
    shown = (as_text(entry.title), profile, as_text(entry.rating), review)
    title, description, rating, said = (text or MISSING for text in shown)
    return (title, description, rating, said), profile_cut or review_cut


def _within(evidence: Evidence, max_tokens: int) -> Evidence:
    """The evidence cut to its budget: the last samples go first, then the longest texts, then the last attributes."""
    while (excess := shown_tokens(evidence) - max_tokens) > 0:
        evidence = replace(_smaller(evidence, excess), truncated=True)
    return evidence


def _smaller(evidence: Evidence, excess: int) -> Evidence:
    if len(evidence.pairs) > 1:
        pairs, reviews, history = evidence.pairs[:-1], evidence.reviews[:-1], evidence.history[:-1]
        return replace(evidence, pairs=pairs, reviews=reviews, history=history)
    texts = [(len(str(value)), place) for place, (_, value) in enumerate(evidence.attributes)]
    longest, place = max(texts, default=(0, 0))
    sampled = max(map(len, [*evidence.reviews, *(text for entry in evidence.history for text in entry)]), default=0)
    if max(longest, sampled) <= _SHORTEST:
        # nothing but crumbs: whole attributes go, the least telling first
        attributes, one = evidence.attributes[:-1], len(evidence.attributes) > 1
        return replace(evidence, attributes=attributes) if one else replace(evidence, reviews=(), history=(), pairs=())
    # a token is a character or more, so that nothing is cut that could have stayed
    size = max(_SHORTEST, max(longest, sampled) - excess)
    if sampled >= longest:
        reviews = tuple(shorten(text, size)[0] for text in evidence.reviews)
        history = tuple(_four(shorten(text, size)[0] for text in entry) for entry in evidence.history)
        return replace(evidence, reviews=reviews, history=history)
    name, value = evidence.attributes[place]
    fewer = shorten(value, size)[0] if isinstance(value, str) else (value[:-1] or MISSING)
    changed = (*evidence.attributes[:place], (name, fewer), *evidence.attributes[place + 1 :])
    return replace(evidence, attributes=changed)


def _four(texts: Iterable[str]) -> tuple[str, str, str, str]:
    title, description, rating, review = texts
    return title, description, rating, review
