"""Characters that nobody sees and letters that look like others: where they belong, and where they hide something."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_WORD = re.compile(r"\w+", re.UNICODE)
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_MARKS = frozenset("\u200e\u200f\u061c")  # of writing direction: at home in Arabic and Hebrew
_JOINERS = frozenset("\u200c\u200d")
_HARMLESS = frozenset("\n\t\r\u2028\u2029\u00ad")  # folded into spaces or dropped when a text is cleaned
_WORD_BREAK = "\u200b"
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")  # Thai, Lao, Burmese, Khmer: U+200B parts words
_HIDDEN_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2}")
_DRESSED_LETTERS = 4


def hidden_characters(text: str) -> Iterator[tuple[str, str]]:
    """(code, what it is) of every character that shows nothing, or shows something else than it is."""
    if text.isascii() and text.isprintable():
        return
    if "\r" in text.replace("\r\n", ""):
        yield "control", "a carriage return alone, which overwrites its line"
    if _HIDDEN_SELECTORS.search(text):
        yield "zero_width", "variation selectors in a row, which spell what nobody sees"
    harmless = _HARMLESS | ({_WORD_BREAK} if _UNSPACED.search(text) else set())
    for char in sorted(set(text) - harmless):
        if code := _code_of(char, text):
            yield code, f"{text.count(char)} × U+{ord(char):04X}"
    if sum(map(_is_dressed, text)) >= _DRESSED_LETTERS:
        yield "mixed_scripts", "letters dressed up as other characters"
    if any(map(_mixes_scripts, _WORD.findall(text))):
        yield "mixed_scripts", "words of letters from several alphabets"


def _code_of(char: str, text: str) -> str:
    category = unicodedata.category(char)
    if category in ("Cc", "Co", "Cn", "Cs"):
        return "control"
    if category != "Cf" or (char in _JOINERS and not _is_out_of_place(text, char)) or _is_flag(text, char):
        return ""
    if char in _MARKS and any(unicodedata.bidirectional(other) in ("R", "AL") for other in text):
        return ""
    return "bidi" if char in _BIDI or char in _MARKS else "zero_width"


def _is_dressed(char: str) -> bool:
    return not char.isascii() and char.isalpha() and unicodedata.normalize("NFKC", char).isascii()


def _is_out_of_place(text: str, joiner: str) -> bool:
    """A joiner belongs between emoji and between letters of scripts that join; never beside Latin letters."""
    for place, char in enumerate(text):
        if char != joiner:
            continue
        before, after = text[place - 1 : place], text[place + 1 : place + 2]
        if not before or not after or before.isascii() or after.isascii() or before == joiner:
            return True
    return False


def _is_flag(text: str, char: str) -> bool:
    # tags spell the flags of regions behind a black flag; anywhere else they are hidden letters
    return 0xE0020 <= ord(char) <= 0xE007F and "\U0001f3f4" in text


def _mixes_scripts(word: str) -> bool:
    scripts = {name for char in word if char.isalpha() and (name := _script(char))}
    return len(scripts) > 1 and len(word) > 2


def _script(char: str) -> str:
    """LATIN, CYRILLIC or GREEK, whose letters look alike; "" for all other scripts and for signs such as µ."""
    if char.isascii():
        return "LATIN"
    name = unicodedata.name(char, "").split(" ", 1)[0]
    return name if name in ("LATIN", "CYRILLIC", "GREEK") else ""
