"""Replies read strictly: exactly the JSON that was asked for becomes a profile, anything else a code."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from prompts.errors import ReplyError
from prompts.loader import Prompt, ReplyField
from prompts.text import clean

_MAX_BYTES = 64 * 1024
_MAX_DEPTH = 32
_MAX_DIGITS = 300
_FENCE = re.compile(r"\A```[A-Za-z0-9_-]*[ \t]*\r?\n(?P<inside>.*?)\r?\n?```\Z", re.DOTALL)
# possessive, closing quote optional: one pass over any text, also over one that opens quotes without end
_NESTING = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
_NO_ANSWER = frozenset({"", "none", "n/a", "null", "unknown"})


@dataclass(frozen=True)
class Reply:
    """A profile and why it was written so; `repaired` says that a code fence had to be taken off."""

    profile: str
    reasoning: str
    repaired: bool = False


def parse_reply(text: str, prompt: Prompt) -> Reply:
    """The reply a model gave, when it is what the prompt asked for.

    Raises:
        ReplyError: with one of the codes not_text, too_large, not_json, too_deep, duplicate_key, not_an_object,
            wrong_keys, wrong_type, no_profile, too_short, too_long, not_a_choice.
    """
    try:
        n_bytes = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise ReplyError("not_text", "a lone surrogate") from error
    if n_bytes > _MAX_BYTES:
        raise ReplyError("too_large", f"{n_bytes} bytes, at most {_MAX_BYTES}")
    stripped = text.strip().removeprefix("\ufeff")
    fence = _FENCE.match(stripped)
    document = _strict_json(fence["inside"] if fence else stripped)
    if not isinstance(document, dict):
        raise ReplyError("not_an_object", f"a JSON {type(document).__name__}")
    expected = set(prompt.reply_schema["properties"])
    if set(document) != expected:
        got = ", ".join(sorted(clean(key)[:40] for key in document)[:8])
        raise ReplyError("wrong_keys", f"got {got or 'none'}; expected {', '.join(sorted(expected))}")
    profile = _checked("profile", document["profile"], prompt.reply.profile)
    reasoning = _checked("reasoning", document["reasoning"], prompt.reply.reasoning)
    if profile.strip(" .").casefold() in _NO_ANSWER and not prompt.reply.profile.choices:
        raise ReplyError("no_profile", "the model wrote that it has none")
    return Reply(profile, reasoning, repaired=fence is not None)


def _strict_json(text: str) -> Any:
    """JSON as the standard has it: no NaN, no duplicate keys, no endless numbers, no deep nesting."""
    depth = 0
    for match in _NESTING.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(match[0], 0)
        if depth > _MAX_DEPTH:
            raise ReplyError("too_deep", f"nested deeper than {_MAX_DEPTH}")
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_short_int, object_pairs_hook=_distinct_keys)
    except RecursionError as error:
        raise ReplyError("too_deep", "nested too deep") from error
    except json.JSONDecodeError as error:
        raise ReplyError("not_json", f"{error.msg} at character {error.pos}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ReplyError("not_json", f"{name} is not JSON")


def _short_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ReplyError("not_json", f"a number of {len(digits)} digits")
    return int(digits)


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ReplyError("duplicate_key", "a key is given twice")
    return document


def _checked(name: str, value: Any, shape: ReplyField) -> str:
    if not isinstance(value, str):
        raise ReplyError("wrong_type", f"`{name}` is a {type(value).__name__}, expected a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ReplyError("not_text", f"`{name}` holds a lone surrogate") from error
    if shape.choices:
        if value not in shape.choices:
            raise ReplyError("not_a_choice", f"`{name}` is {clean(value)[:40]!r}, expected one of {shape.choices}")
        return value
    text = clean(value)
    if not text and name == "profile":
        raise ReplyError("no_profile", "the profile is empty")
    if len(text) < shape.min_chars and text.strip(" .").casefold() not in _NO_ANSWER:
        raise ReplyError("too_short", f"`{name}` has {len(text)} characters, at least {shape.min_chars}")
    if len(text) > shape.max_chars:
        raise ReplyError("too_long", f"`{name}` has {len(text)} characters, at most {shape.max_chars}")
    return text
