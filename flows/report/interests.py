"""What a report tells of the interests behind one user's list."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ShownItem:
    """An item that one factor alone would show; `score` is the factor's part of its log-odds."""

    item_id: str
    title: str
    score: float


@dataclass(frozen=True)
class Factor:
    """One interest of a user: its share of the history, titles of what it holds of it, and what it would show."""

    share: float
    held: tuple[str, ...]
    shown: tuple[ShownItem, ...]


@dataclass(frozen=True)
class TextFactor:
    """One theme of a user's texts: its share of them, and the words, concepts or titles it speaks of most."""

    share: float
    units: tuple[str, ...]


@dataclass(frozen=True)
class TextChannel:
    """The themes in one kind of text, and how interests go with them."""

    name: str
    """What is counted: `words`, `concepts`, `hybrid` or `items`."""
    factors: tuple[TextFactor, ...]
    plan: tuple[tuple[float, ...], ...]
    """A row for each interest: the mass that goes to each theme, all cells sum to 1; or, where `signed`, the weight
    from -1 to 1 with which it takes on each theme."""
    sharp: tuple[tuple[float, ...], ...] | None
    """The same at a small epsilon: which theme is nearest to which interest. None where `signed`."""
    signed: bool
    """Whether interests attend to themes, and may take on the opposite, rather than share out mass."""
    entropy: float | None
    """Of the plan, in bits; None where `signed`."""
    overlap: float
    """Mean share of units that two themes have in common, 0..1."""

    @property
    def most_entropy(self) -> float:
        """Bits of an even plan, which does not say what goes with what."""
        return (math.log2(len(self.plan)) + math.log2(len(self.factors))) / 2


@dataclass(frozen=True)
class UserFactors:
    """What stands behind one user's list; `similarity` is the mean cosine between two interests."""

    user_id: str
    n_history: int
    similarity: float
    factors: tuple[Factor, ...]
    channels: tuple[TextChannel, ...]
