"""What no screen, page or log may be shown: characters it would obey, and secrets."""

from __future__ import annotations

import re
from collections.abc import Sequence

# control characters, halves of surrogate pairs, and marks that reorder the text around them; tab and line feed pass
_TREACHEROUS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff]")
# a name in a settings tree or anywhere in a --set, `engine={api_key="…"}` too; `api_key_env` names a variable
_SECRET = re.compile(r"(?<![a-z0-9])(api_?key|token|password|passwd|secret)\b", re.IGNORECASE)
_USERINFO = re.compile(r"//[^/\s@]*@")
HIDDEN = "…"


def clean(text: str) -> str:
    """The text with a mark in place of every character that a terminal or browser would obey."""
    return _TREACHEROUS.sub("\ufffd", text)


def names_a_secret(name: str) -> bool:
    """Whether a setting of that name holds a secret."""
    return bool(_SECRET.search(name))


def without_userinfo(text: str) -> str:
    """The text without the user and password of any address in it."""
    return _USERINFO.sub(f"//{HIDDEN}@", text)


def masked(words: Sequence[str], everything: bool = False) -> list[str]:
    """A command's words, fit to be printed: the values of --set that are or may hold secrets are left out.

    Args:
        everything: leave the values of every --set out.
    """
    shown: list[str] = []
    for place, word in enumerate(words):
        follows_set = place > 0 and words[place - 1] == "--set"
        lead = "" if follows_set else "--set="
        if follows_set or word.startswith("--set="):
            shown.append(lead + _masked_setting(word.removeprefix(lead), everything))
        else:
            shown.append(without_userinfo(word))
    return shown


def _masked_setting(text: str, everything: bool) -> str:
    path, equals, _ = text.partition("=")
    if equals and (everything or _SECRET.search(text) or _USERINFO.search(text)):
        return f"{path}={HIDDEN}"
    return without_userinfo(text)
