"""What a well-formed reply must not say: refusals, copies, runaways, hidden characters, markup, the wrong language."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from operator import eq
from typing import Any

from prompts.errors import ReplyError
from prompts.hidden import hidden_characters
from prompts.languages import refuse_language
from prompts.reply_shape import ReplyField
from prompts.wordings import CONTENT, EMPTY_WORDS

_WORD = re.compile(r"\w+", re.UNICODE)
_LONG_SPACE = re.compile(r"\s{120}")
_LONG_BLANK = re.compile(r"\s{12}|(?:\n\s*){5}")
_NO_DIGIT = re.compile(r"[^0-9a-z]+")
_SHINGLE = 5
_COPIED_PROMPT, _COPIED_EVIDENCE = 12, 25
_COPIED_RULE = 5
_END_OF_RULE = re.compile(r"[.!?:;\n]+")


CONTENT_CODES = frozenset(wording.code for wording in CONTENT) | {
    *("control", "bidi", "zero_width", "mixed_scripts", "no_words", "whitespace", "repeated"),
    *("echo_prompt", "echo_evidence", "wrong_language"),
}


@dataclass(frozen=True)
class Asked:
    """What a model was shown.

    Args:
        instructions: system text and the message's own words, without the data.
        evidence: the texts inside the data block.
        nonce: the digits of the block's delimiters.
        language: two letters, where a reply must be in one language.
    """

    instructions: str = ""
    evidence: Sequence[str] = ()
    nonce: str = ""
    language: str | None = None

    @cached_property
    def shingles_of_evidence(self) -> frozenset[tuple[str, ...]]:
        """Every five words in a row of a text of the evidence."""
        return frozenset(shingle for text in self.evidence for shingle in _shingles(folded_words(text)))

    @property
    def shingles_of_instructions(self) -> frozenset[tuple[str, ...]]:
        return _shingles_of(self.instructions)


def refuse_runaway(text: str) -> None:
    """Returns when a raw reply is not mostly white space.

    Raises:
        ReplyError: whitespace.
    """
    blanks = sum(map(text.count, " \n\t\r"))
    if (len(text) > 400 and blanks > 0.6 * len(text)) or _LONG_SPACE.search(text):
        raise ReplyError("whitespace", f"{blanks} of {len(text)} characters are white space")


def refuse_contents(
    values: Mapping[str, Any], shapes: Mapping[str, ReplyField], asked: Asked, tolerate: Collection[str] = ()
) -> None:
    """Returns when no field says what a profile does not say; `values` are the fields as they came.

    Raises:
        ReplyError: refusal, meta_talk, obeyed, leak, placeholder, schema_echo, delimiter, email, url, markdown, html,
            template, escapes, broken_text, control, bidi, zero_width, mixed_scripts, no_words, whitespace, repeated,
            echo_prompt, echo_evidence, wrong_language.
    """
    for name, shape in shapes.items():
        if shape.choices:
            continue
        texts = values[name] if isinstance(values[name], list) else [values[name]]
        if "placeholder" not in tolerate and texts and all(EMPTY_WORDS.is_in(text) for text in texts):
            raise ReplyError("placeholder", f"`{name}` holds only words that stand for nothing")
        for text in texts:
            for code, meaning in _faults(text, asked, whole=not shape.is_list):
                if code not in tolerate:
                    raise ReplyError(code, f"`{name}` holds {meaning}")
    _refuse_copies_between(values, shapes, tolerate)
    if asked.language and "wrong_language" not in tolerate:
        longest = max((text for text in values.values() if isinstance(text, str)), key=len, default="")
        refuse_language(longest, asked.language)


def _faults(text: str, asked: Asked, *, whole: bool) -> Iterator[tuple[str, str]]:
    """(code, what it is) of everything that is wrong with one string; `whole` for a text, not an entry of a list."""
    yield from hidden_characters(text)
    folded = unicodedata.normalize("NFKC", text)
    for wording in CONTENT:
        if wording.is_in(text) or (folded != text and wording.is_in(folded)):
            yield wording.code, wording.meaning
    if _nonce_in(folded, asked.nonce):
        yield "delimiter", "the digits of the data marks"
    if _wordless(text, whole=whole):
        yield "no_words", "hardly any letters"
    if _LONG_BLANK.search(text):
        yield "whitespace", "a run of white space"
    if repeated := _repeated(text):
        yield "repeated", repeated
    if whole:
        yield from _copies(text, asked)


def _nonce_in(text: str, nonce: str) -> bool:
    if not nonce:
        return False
    digits = _NO_DIGIT.sub("", text.casefold())
    return nonce in digits or nonce[::-1] in digits


def _wordless(text: str, *, whole: bool) -> bool:
    shown = "".join(text.split())
    if not whole:
        return not any(char.isalnum() or unicodedata.category(char)[0] in "LMS" for char in shown)
    if sum(map(str.isalpha, shown)) >= 0.5 * len(shown):  # most texts, without a look at marks
        return False
    return sum(unicodedata.category(char)[0] in "LM" for char in shown) < 0.5 * len(shown)


def _repeated(text: str) -> str:
    """What runs away in a text, or ""."""
    words = tuple(map(str.casefold, _WORD.findall(text)))
    for period in range(1, 13) if _repeats_any(words, 4) else ():
        if _runs(words, period, {1: 4, 2: 6}.get(period, 2 * period)):
            return f"{period} words over and over"
    chars = "".join(text.split())
    for period in range(1, 25) if _repeats_any(chars, 12) else ():
        if _runs(chars, period, max(12, 4 * period)):
            return f"{period} characters over and over"
    distinct = len(set(words))
    if (len(words) >= 30 and distinct < 0.35 * len(words)) or (len(words) >= 6 and distinct <= len(words) / 3):
        return f"{distinct} distinct words among {len(words)}"
    raw = text.encode("utf-8")
    if len(raw) >= 300 and len(zlib.compress(raw)) < 0.28 * len(raw):
        return "hardly anything new from one end to the other"
    return ""


def _repeats_any(tokens: Sequence[str], length: int) -> bool:
    """Whether so many tokens in a row stand anywhere a second time, which every run of at least so many does."""
    pieces = [tokens[at : at + length] for at in range(len(tokens) - length + 1)]
    return len(set(pieces)) < len(pieces)


def _runs(tokens: Sequence[str], period: int, least: int) -> bool:
    """Whether `least` tokens in a row equal the one `period` places before them."""
    # Such a run holds four neighbours of every grid of a quarter its length; texts without one seldom do.
    step = least // 4
    if b"\1\1\1\1" not in bytes(map(eq, tokens[::step], tokens[period::step])):
        return False
    return b"\1" * least in bytes(map(eq, tokens, tokens[period:]))


def _copies(text: str, asked: Asked) -> Iterator[tuple[str, str]]:
    said = folded_words(text)
    if share := _copied(said, asked.shingles_of_instructions, _COPIED_PROMPT):
        yield "echo_prompt", f"words of the prompt ({share})"
    elif any(rule in said for rule in _rules(asked.instructions)):
        yield "echo_prompt", "a whole sentence of the prompt"
    if share := _copied(said, asked.shingles_of_evidence, _COPIED_EVIDENCE):
        yield "echo_evidence", f"a copy of the evidence ({share})"


def folded_words(text: str) -> str:
    """The words of a text between single spaces, one before the first and one behind the last."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _shingles(said: str) -> list[tuple[str, ...]]:
    words = tuple(said.split())
    return [words[at : at + _SHINGLE] for at in range(len(words) - _SHINGLE + 1)]


@lru_cache(maxsize=8)
def _shingles_of(instructions: str) -> frozenset[tuple[str, ...]]:
    return frozenset(_shingles(folded_words(instructions)))


@lru_cache(maxsize=8)
def _rules(instructions: str) -> tuple[str, ...]:
    rules = map(folded_words, _END_OF_RULE.split(instructions))
    return tuple(rule for rule in rules if rule.count(" ") > _COPIED_RULE)


def _copied(said: str, source: Collection[tuple[str, ...]], most: int) -> str:
    """How much of a text stands in the source word for word, where it is half of it or `most` words in a row."""
    hits = bytes(shingle in source for shingle in _shingles(said))
    if len(hits) < 2:
        return ""
    share = sum(hits) / len(hits)
    return f"{share:.0%}" if share >= 0.5 or b"\1" * (most - _SHINGLE + 1) in hits else ""


def _refuse_copies_between(
    values: Mapping[str, Any], shapes: Mapping[str, ReplyField], tolerate: Collection[str]
) -> None:
    """A field written twice, or a list of one entry written many times."""
    if "repeated" in tolerate:
        return
    free = {name: value for name, value in values.items() if not shapes[name].choices}
    long = [
        " ".join(value.casefold().split()) for value in free.values() if isinstance(value, str) and len(value) >= 20
    ]
    if len(set(long)) < len(long):
        raise ReplyError("repeated", "two fields hold the same text")
    for name, value in free.items():
        if isinstance(value, list) and len(value) > 2 and len({entry.casefold() for entry in value}) == 1:
            raise ReplyError("repeated", f"`{name}` holds one entry {len(value)} times")
