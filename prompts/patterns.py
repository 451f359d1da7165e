"""Wordings as regular expressions, which look at a text only where the letters they need stand in it."""

from __future__ import annotations

import re
import re._constants as op  # pyright: ignore[reportMissingImports] # how `re` reads a pattern; nothing public tells it
import re._parser as parser  # pyright: ignore[reportMissingImports]
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from typing import Any

OPENS = r"\A[\s\"'“«>*_\[(]*"
"""Where a text opens, quotes and bullets passed over."""

_COMMON = frozenset("abcdefghijklmnopqrstuvwxyz .,;'’\"!?-")
"""What most prose holds: alone it tells nothing."""
_NARROW = 16
"""Up to so many characters a range is read as each of them; a wider one may be anything."""

_Node = tuple[Any, Any]
"""A piece of a parsed pattern: what it is, and its parts."""


class Pattern:
    """Any of several patterns, whatever the case; those that open a text are looked for at its beginning only.

    Nothing is compiled before a text asks for it, and few of the others are ever asked for.
    """

    def __init__(self, *patterns: str) -> None:
        opening = [pattern.removeprefix(OPENS) for pattern in patterns if pattern.startswith(OPENS)]
        self._opening = f"{OPENS}(?:{'|'.join(f'(?:{pattern})' for pattern in opening)})" if opening else None
        self.anywhere = [pattern for pattern in patterns if not pattern.startswith(OPENS)]

    @cached_property
    def _at_the_opening(self) -> re.Pattern[str] | None:
        return None if self._opening is None else re.compile(self._opening, re.IGNORECASE)

    @cached_property
    def _needed(self) -> list[tuple[str, list[tuple[str, ...]]]]:
        return [(pattern, needed(pattern)) for pattern in self.anywhere]

    def is_in(self, text: str) -> bool:
        """Whether any of them fits."""
        if self._at_the_opening is not None and self._at_the_opening.match(text):
            return True
        folded = fold(text)
        for pattern, sets in self._needed:  # plain loops: this is asked twenty times of every text
            for literals in sets:
                for literal in literals:
                    if literal in folded:
                        break
                else:
                    break
            else:
                if _compiled(pattern).search(text):
                    return True
        return False


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def fold(text: str) -> str:
    """One text for all that `re.IGNORECASE` takes for the same, and perhaps for more."""
    if text.isascii():
        return text.lower()
    # the dotless and the dotted i are an i to `re`, and letters of their own to Unicode
    return text.casefold().replace("i̇", "i").replace("ı", "i")


def needed(pattern: str) -> list[tuple[str, ...]]:
    """Sets of folded strings: whatever the pattern fits holds one of each; the most telling set first."""
    sets = {tuple(sorted(found)) for found in _of_sequence(parser.parse(pattern, re.IGNORECASE))}
    telling = (literals for literals in sets if _telling(literals) > 1)
    return sorted(telling, key=lambda literals: (-_telling(literals), len(literals), literals))


def _of_sequence(nodes: Iterable[_Node]) -> list[frozenset[str]]:
    """What each part of a sequence asks for; parts that may be missing ask for nothing."""
    found: list[frozenset[str]] = []
    run: list[_Node] = []
    for kind, value in nodes:
        if kind is op.LITERAL:
            run.append((kind, value))
            continue
        if kind is op.BRANCH:  # `re` takes out what alternatives begin with; with it they tell more
            found += _of_alternatives([_of_sequence([*run, *branch]) for branch in value[1]])
            run = []
            continue
        found += _of_run(run)
        run = []
        if kind is op.SUBPATTERN:
            found += _of_sequence(value[-1])
        elif kind is op.IN:
            found += _of_alternatives([_of_choice(*choice) for choice in value])
        elif kind in (op.MAX_REPEAT, op.MIN_REPEAT) and value[0] > 0:
            found += _of_sequence(value[2])
        elif kind is op.ASSERT:
            found += _of_sequence(value[1])
    return found + _of_run(run)


def _of_run(literals: Sequence[_Node]) -> list[frozenset[str]]:
    text = "".join(chr(value) for _, value in literals)
    return [frozenset({fold(text)})] if text else []


def _of_choice(kind: Any, value: Any) -> list[frozenset[str]]:
    """Of one of the characters between brackets; classes such as \\w may be anything."""
    if kind is op.LITERAL:
        return [frozenset({fold(chr(value))})]
    if kind is op.RANGE and value[1] - value[0] < _NARROW:
        return [frozenset(fold(chr(place)) for place in range(value[0], value[1] + 1))]
    return []


def _of_alternatives(branches: Sequence[list[frozenset[str]]]) -> list[frozenset[str]]:
    """One of the sets of each; nothing where one of them asks for nothing."""
    if not all(branches):
        return []
    return [frozenset[str]().union(*(max(branch, key=_telling) for branch in branches))]


def _telling(literals: Iterable[str]) -> int:
    """How seldom a text holds one of them: letters of the shortest; signs that prose hardly has count for more."""
    return min(len(literal) + 9 * (not _COMMON.issuperset(literal)) for literal in literals)
