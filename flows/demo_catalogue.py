"""A catalogue of invented games whose texts and tastes share subjects, so that language has something to tell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import demo_words as words
from flows.errors import FlowError

if TYPE_CHECKING:
    import numpy as np

DEFAULT_USERS = 2400
DEFAULT_ITEMS = 1200
LEAST = 10
"""Fewer users or items cannot be split into three parts."""
SECOND_SUBJECT = 0.25
"""Weight of an item's second subject; the first has the rest."""
TASTE_STRENGTH = 10.0
"""Log odds between an item all of whose taste fits and one that does not fit at all."""
LIKES = (1.0, 0.9, 0.75)
"""How much a user likes each of their three subjects."""
SHORTEST_HISTORY = 5
N_CIRCLES = 30
"""Hidden circles of users and items that no text mentions: taste only a collaborative model can learn."""
EPOCH_S = 1_735_689_600
"""2025-01-01 UTC: the catalogue's first day."""


@dataclass(frozen=True)
class Difficulty:
    """How much of the taste the text explains, and how clearly it says so."""

    text_share: float
    """Share of a taste that goes by subject (in the text); the rest goes by hidden circle (in no text)."""
    word_noise: float
    """Share of subject words drawn from a random other subject."""
    vague_share: float
    """Share of items whose text names no subject at all."""
    popularity_noise: float
    """Share of interactions that follow popularity alone."""
    mean_history: float
    """Mean interactions per user before the split."""


DIFFICULTIES: Mapping[str, Difficulty] = {
    "easy": Difficulty(text_share=0.9, word_noise=0.05, vague_share=0.0, popularity_noise=0.10, mean_history=9.0),
    "medium": Difficulty(text_share=0.75, word_noise=0.15, vague_share=0.05, popularity_noise=0.20, mean_history=10.0),
    "hard": Difficulty(text_share=0.5, word_noise=0.35, vague_share=0.20, popularity_noise=0.35, mean_history=14.0),
}


@dataclass(frozen=True)
class DemoCatalogue:
    """What was written: the folder, the sizes and the arguments that give the same bytes again."""

    directory: Path
    n_users: int
    n_items: int
    n_interactions: int
    difficulty: str
    seed: int


class DemoArgumentError(FlowError, ValueError):
    """An argument `generate` cannot work with."""

    exit_code = 2

    def __init__(self, name: str, got: object, expected: str) -> None:
        super().__init__(name, got, expected)
        self.name, self.got, self.expected = name, got, expected

    def __str__(self) -> str:
        return f"demo catalogue: `{self.name}` is {self.got!r}, expected {self.expected}"


@dataclass(frozen=True)
class _Latents:
    """The truth behind the catalogue."""

    item_topics: np.ndarray  # (items, 2) first and second subject
    item_circle: np.ndarray  # (items,)
    item_popularity: np.ndarray  # (items,) log weight
    user_topics: np.ndarray  # (users, likes) liked subjects, most liked first
    user_circle: np.ndarray  # (users,)


def generate(
    directory: Path | str,
    *,
    seed: int = 0,
    difficulty: str = "medium",
    n_users: int = DEFAULT_USERS,
    n_items: int = DEFAULT_ITEMS,
) -> DemoCatalogue:
    """items.jsonl, users.jsonl, interactions.csv, topics.json (the truth) and README.md in `directory`.

    The same arguments give the same bytes. The only link from an item's text to who likes it is its
    subject: users have no attributes that matter, and ids carry no order.

    Raises:
        DemoArgumentError: unknown difficulty, or fewer than ten users or items.
    """
    import numpy as np

    if difficulty not in DIFFICULTIES:
        raise DemoArgumentError("difficulty", difficulty, "one of " + ", ".join(DIFFICULTIES))
    for name, got in (("n_users", n_users), ("n_items", n_items)):
        if got < LEAST:
            raise DemoArgumentError(name, got, f"at least {LEAST}")
    level = DIFFICULTIES[difficulty]
    # one stream per part: a new attribute never moves the interactions
    draw_latents, draw_text, draw_choices, draw_users = (np.random.default_rng([seed, part]) for part in range(4))
    latents = _latents(draw_latents, n_users, n_items)
    items = list(_items(draw_text, latents, level))
    pairs = list(_interactions(draw_choices, latents, level))

    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "items.jsonl", (_json(item) for item in items))
    _write(folder / "users.jsonl", (_json(user) for user in _users(draw_users, n_users)))
    _write(folder / "interactions.csv", ["user_id,item_id,timestamp", *(f"{u},{i},{t}" for u, i, t in pairs)])
    _write(folder / "topics.json", [_json(_truth(latents, level))])
    made = DemoCatalogue(folder, n_users, n_items, len(pairs), difficulty, seed)
    _write(folder / "README.md", _readme(made, level))
    return made


def _latents(rng: np.random.Generator, n_users: int, n_items: int) -> _Latents:
    """Subjects, circles and popularity, each independent of the others."""
    import numpy as np

    n_topics = len(words.TOPICS)
    first = rng.permutation(np.arange(n_items) % n_topics)  # every subject has items
    second = (first + rng.integers(1, n_topics, n_items)) % n_topics
    rank = rng.permutation(n_items) + 1
    user_topics = np.argsort(rng.random((n_users, n_topics)), axis=1)[:, : len(LIKES)]
    return _Latents(
        item_topics=np.stack([first, second], axis=1),
        item_circle=rng.integers(0, N_CIRCLES, n_items),
        item_popularity=-0.7 * np.log(rank + 0.02 * n_items),
        user_topics=user_topics,
        user_circle=rng.integers(0, N_CIRCLES, n_users),
    )


def _affinity(latents: _Latents, level: Difficulty) -> np.ndarray:
    """(users, items) log preference: subject in the text, circle in nobody's text, and popularity."""
    import numpy as np

    n_topics = len(words.TOPICS)
    n_users, n_items = len(latents.user_topics), len(latents.item_topics)
    taste = np.zeros((n_users, n_topics))
    np.put_along_axis(taste, latents.user_topics, np.array([LIKES]), axis=1)
    subject = np.zeros((n_items, n_topics))
    rows = np.arange(n_items)
    subject[rows, latents.item_topics[:, 0]] = 1 - SECOND_SUBJECT
    subject[rows, latents.item_topics[:, 1]] = SECOND_SUBJECT
    circle = (latents.user_circle[:, None] == latents.item_circle[None, :]).astype(float)
    by_subject = taste @ subject.T  # (users, topics) @ (topics, items) -> (users, items)
    return TASTE_STRENGTH * (level.text_share * by_subject + (1 - level.text_share) * circle) + latents.item_popularity


def _interactions(rng: np.random.Generator, latents: _Latents, level: Difficulty) -> Iterator[tuple[str, str, int]]:
    """(user_id, item_id, timestamp) rows, by user and then time; no pair twice."""
    import numpy as np

    preference = _affinity(latents, level)
    n_users, n_items = preference.shape
    liked = _softmax(preference)
    popular = _softmax(np.broadcast_to(latents.item_popularity, preference.shape))
    chance = (1 - level.popularity_noise) * liked + level.popularity_noise * popular
    # Gumbel top-k: k draws without replacement, in the order they would be drawn
    keys = np.log(chance) + rng.gumbel(size=chance.shape)
    beyond = level.mean_history - SHORTEST_HISTORY
    lengths = SHORTEST_HISTORY + rng.negative_binomial(2, 2 / (2 + beyond), n_users)
    lengths = np.minimum(lengths, max(n_items // 4, 3))
    order = np.argsort(-keys, axis=1)
    for user in range(n_users):
        times = np.sort(rng.integers(0, 365 * 86_400, lengths[user])) + EPOCH_S
        for item, time in zip(order[user, : lengths[user]], times, strict=True):
            yield _user_id(user), _item_id(int(item)), int(time)


def _softmax(logits: np.ndarray) -> np.ndarray:
    import numpy as np

    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _items(rng: np.random.Generator, latents: _Latents, level: Difficulty) -> Iterator[dict[str, Any]]:
    """One mapping per item: id, title, publisher, genres, tags, description."""
    vague = rng.random(len(latents.item_topics)) < level.vague_share
    titles: set[str] = set()
    genres = sorted({topic.genre for topic in words.TOPICS})
    for index, (first, second) in enumerate(latents.item_topics):
        speaker = _Speaker(rng, int(first), int(second), level.word_noise)
        title = speaker.title(titles, is_vague=bool(vague[index]))
        titles.add(title)
        told = speaker.subject_words(5)
        genre = words.TOPICS[speaker.subject()].genre
        tone = _pick(rng, words.TONES)
        tags = [_pick(rng, words.PLAY_TAGS)]
        if vague[index]:
            genre, description = _pick(rng, genres), _pick(rng, words.VAGUE_DESCRIPTIONS).format(tone=tone)
        else:
            tags = [*told[3:], *tags]
            description = _pick(rng, words.DESCRIPTIONS).format(tone=tone, a=told[0], b=told[1], c=told[2])
        yield {
            "item_id": _item_id(index),
            "title": title,
            "publisher": _pick(rng, words.STUDIOS),
            "genres": [genre],
            "tags": tags,
            "description": description[0].upper() + description[1:],
        }


@dataclass(frozen=True)
class _Speaker:
    """Draws words about one item, now and then from a subject that is not its own."""

    rng: np.random.Generator
    first: int
    second: int
    word_noise: float

    def subject(self) -> int:
        """The subject the next word is about."""
        if self.rng.random() < self.word_noise:
            return int(self.rng.integers(len(words.TOPICS)))
        return self.second if self.rng.random() < SECOND_SUBJECT else self.first

    def subject_words(self, count: int) -> list[str]:
        """`count` different words."""
        drawn: list[str] = []
        while len(drawn) < count:
            word = _pick(self.rng, words.TOPICS[self.subject()].words)
            if word not in drawn:
                drawn.append(word)
        return drawn

    def title(self, taken: set[str], *, is_vague: bool) -> str:
        """A title nobody has yet; a vague one is made of mood and place alone."""
        while True:
            pattern = "{mood} {place}" if is_vague else _pick(self.rng, words.TITLE_PATTERNS)
            noun, other = (_pick(self.rng, words.TOPICS[self.subject()].title_words) for _ in range(2))
            title = pattern.format(
                mood=_pick(self.rng, words.MOODS), place=_pick(self.rng, words.PLACES), noun=noun, other=other
            )
            number = int(self.rng.integers(2, 9))
            for candidate in (title, f"{title} {number}"):
                if candidate not in taken and noun != other:
                    return candidate


def _users(rng: np.random.Generator, n_users: int) -> Iterator[dict[str, Any]]:
    """Ids and the year they joined, which says nothing about taste."""
    for index, year in enumerate(rng.integers(2015, 2025, n_users)):
        yield {"user_id": _user_id(index), "joined": int(year)}


def _truth(latents: _Latents, level: Difficulty) -> dict[str, Any]:
    """Subjects and circles by id: what tests may know and models may not."""
    names = [topic.name for topic in words.TOPICS]
    return {
        "about": "The truth the generator drew from. No stage of the pipeline reads this file.",
        "difficulty": asdict(level),
        "topics": names,
        "item_topics": {_item_id(i): [names[t] for t in row] for i, row in enumerate(latents.item_topics)},
        "item_circle": {_item_id(i): int(circle) for i, circle in enumerate(latents.item_circle)},
        "user_topics": {_user_id(u): [names[t] for t in row] for u, row in enumerate(latents.user_topics)},
        "user_circle": {_user_id(u): int(circle) for u, circle in enumerate(latents.user_circle)},
    }


def _readme(made: DemoCatalogue, level: Difficulty) -> list[str]:
    """The note beside the files: generated, by which arguments, and what the numbers mean."""
    text = f"""\
# Generated catalogue

Nothing here is real: the games, their publishers and the people who like them were invented by
`flows/demo_catalogue.py` (difficulty {made.difficulty}, seed {made.seed}). The same arguments give the same bytes.

{made.n_users} users, {made.n_items} items, {made.n_interactions} interactions.

* Of a user's taste, {level.text_share:.0%} goes by subject, which the texts speak of, and {1 - level.text_share:.0%}
  by a hidden circle, which no text mentions.
* {level.word_noise:.0%} of the subject words are about something else, {level.vague_share:.0%} of the items say
  nothing of their subject, and {level.popularity_noise:.0%} of the interactions follow popularity alone.
* topics.json is the truth the generator drew from; it is for tests, and no stage reads it.

A gain measured here shows that the machinery finds a link that exists. It says nothing about your own catalogue."""
    return text.split("\n")


def _pick(rng: np.random.Generator, choices: tuple[str, ...] | list[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _item_id(index: int) -> str:
    return f"g{index:05d}"


def _user_id(index: int) -> str:
    return f"u{index:05d}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=False)


def _write(path: Path, lines: Iterator[str] | list[str]) -> None:
    """Whole or not at all, with the same line ends everywhere."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(("\n".join(lines) + "\n").encode())
    partial.replace(path)
