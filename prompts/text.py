"""Text from outside, made safe to send and to store: one line of visible characters, never longer than its limit."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

MISSING = "None"
_MISSING_WORDS = frozenset({"", "none", "null", "nan", "n/a"})
_SAME_TAG = re.compile(r"[\s_\-]+")


def clean(text: str) -> str:
    """NFC, white space folded into single spaces, no control, format, private or surrogate characters."""
    if text.isascii() and text.isprintable():  # most texts: nothing to compose, nothing to drop
        return " ".join(text.split())
    composed = unicodedata.normalize("NFC", text)
    kept = (" " if char.isspace() else char for char in composed if char.isspace() or _is_visible(char))
    return " ".join("".join(kept).split())


def _is_visible(char: str) -> bool:
    # Cf holds bidirectional overrides and invisible tags, but also the joiner of emoji and Indic scripts
    return char.isprintable() or char in "\u200c\u200d"


def as_text(value: object) -> str:
    """A single attribute value as clean text; "" when there is nothing to say."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, dict):
        return clean(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str))
    text = clean(str(value))
    return "" if text.casefold() in _MISSING_WORDS else text


def as_texts(values: Iterable[object]) -> tuple[str, ...]:
    """Clean, distinct texts in the given order; `space-ship`, `Space Ship` and `space_ship` are one."""
    distinct: dict[str, str] = {}
    for value in values:
        text = as_text(value)
        if text:
            distinct.setdefault(_SAME_TAG.sub("", text).casefold() or text, text)
    return tuple(distinct.values())


def shorten(text: str, max_chars: int) -> tuple[str, bool]:
    """(text, was cut): at most max_chars long, cut after a word, the cut marked by an ellipsis."""
    if len(text) <= max_chars:
        return text, False
    head = text[: max_chars - 1]
    word_end = head.rfind(" ")
    if word_end > max_chars // 2:
        head = head[:word_end]
    return head.rstrip(" ,;:-") + "…", True


def as_json(value: Any) -> str:
    """JSON on one line without `<` or `>`, as it stands in a prompt: no text can forge a delimiter."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e")
