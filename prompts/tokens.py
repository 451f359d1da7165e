"""How many tokens a text takes, without any model's vocabulary: the same number everywhere, rather too high."""

from __future__ import annotations

import re

# Common vocabularies spend one token on most words, on three digits, on most signs; long and rare words are split.
_PIECE = re.compile(r"[A-Za-z]{1,6}|[0-9]{1,3}|[^\sA-Za-z0-9]|\s{2,}")


def count_tokens(text: str) -> int:
    """An upper estimate of the tokens of a text, in at most one pass: letters by six, other alphabets one by one."""
    return sum(1 if piece.isascii() else _beyond_ascii(piece) for piece in _PIECE.findall(text))


def _beyond_ascii(char: str) -> int:
    """Byte-level vocabularies fall back to up to four bytes outside the basic plane, and hardly ever in it."""
    return 1 if ord(char) < 0x10000 else 3
