"""How many tokens a text takes, without any model's vocabulary: the same number everywhere, mostly too high."""

from __future__ import annotations

import re

# Common vocabularies spend one token on most words, on three digits, on most signs; long and rare words are split, and
# outside the basic plane byte-level ones fall back to single bytes.
_PIECE = re.compile(r"[A-Za-z]{1,5}|[0-9]{1,3}|[^\sA-Za-z0-9]")
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")


def count_tokens(text: str) -> int:
    """An estimate of the tokens of a text: letters by five, digits by three, every other character alone."""
    return len(_PIECE.findall(text)) + (0 if text.isascii() else 2 * len(_ASTRAL.findall(text)))
