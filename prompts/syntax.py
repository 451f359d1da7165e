"""From a reply's text to one JSON object: strictly, then out of its wrapping, then mended where nothing can be lost."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any, Literal, NoReturn, TypeAlias

from prompts.errors import ReplyError

Repair: TypeAlias = Literal["", "unwrapped", "mended"]
"""What had to be done: nothing, a fence or prose taken off, or JSON mended by json-repair"""

MAX_BYTES = 64 * 1024
_MAX_DEPTH = 32
_MAX_DIGITS = 300
_MAX_MENDED_CHARS = 16 * 1024
_MAX_TRIES = 32
# possessive, closing quote optional: one pass over any text, also over one that opens quotes without end
_NESTING = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
_THOUGHT = re.compile(r"\A.{0,20000}</(?:think|thinking|thought)>", re.DOTALL | re.IGNORECASE)
_THINKING = re.compile(r"</?(?:think|thinking)>", re.IGNORECASE)
_LOOKS_LIKE_JSON = re.compile(r"""\{\s*(?:["'“”]|//|/\*|\#|[a-z_]+\s*:)""", re.IGNORECASE)
_HALF_ESCAPE = re.compile(r"\\u(?![0-9a-fA-F]{4})")
_QUOTES = "\"'“”"
_AFTER_A_VALUE = re.compile(r"""["'“”]\s*(?:[,}\]"'“”\n/#]|\Z)""")


def read_object(text: str, keys: Collection[str]) -> tuple[dict[str, Any], Repair]:
    """The object a reply holds, and how it had to be got out.

    Raises:
        ReplyError: not_text, too_large, too_deep, not_json, duplicate_key, not_an_object, several_objects, cut_off.
    """
    _refuse_size(text)
    stripped = text.strip(" \t\r\n")  # what JSON calls white space; anything else around it is a repair
    bare = stripped.strip().removeprefix("\ufeff").strip()
    try:
        document = strict_json(bare)
    except ReplyError as error:
        if error.code != "not_json":
            raise
        return _unwrapped(bare, keys, error)
    if not isinstance(document, dict):
        raise ReplyError("not_an_object", f"a JSON {type(document).__name__}")
    return document, "" if bare == stripped else "unwrapped"


def strict_json(text: str) -> Any:
    """JSON as the standard has it: no NaN, no duplicate keys, no endless numbers, no deep nesting.

    Raises:
        ReplyError: not_json, too_deep, duplicate_key.
    """
    _refuse_depth(text)
    with _Coded():
        return json.loads(text, **_STRICT)


def _refuse_size(text: str) -> None:
    try:
        n_bytes = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise ReplyError("not_text", "a lone surrogate") from error
    if n_bytes > MAX_BYTES:
        raise ReplyError("too_large", f"{n_bytes} bytes, at most {MAX_BYTES}")


def _refuse_depth(text: str) -> None:
    depth = 0
    for match in _NESTING.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(match[0], 0)
        if depth > _MAX_DEPTH:
            raise ReplyError("too_deep", f"nested deeper than {_MAX_DEPTH}")


def _unwrapped(text: str, keys: Collection[str], fault: ReplyError) -> tuple[dict[str, Any], Repair]:
    """The single top-level object between fences, thoughts and prose; else the mended one."""
    rest = _THOUGHT.sub("", text, count=1)
    if _THINKING.search(rest):
        raise ReplyError("not_json", "a thought without an end")
    found, broken_at = [], None
    for start, document in _objects(rest):
        if document is None:
            broken_at = start
            break
        found.append(document)
    if broken_at is not None and not found:
        return _mended(rest[broken_at:], keys, fault), "mended"
    if len(found) > 1 or broken_at is not None:
        raise ReplyError("several_objects", f"{len(found) + (broken_at is not None)} objects, expected one")
    if not found:
        raise fault
    return found[0], "unwrapped"


def _objects(text: str) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """(start, object) of every top-level object, None for one that is broken; braces of prose are passed over."""
    decoder = json.JSONDecoder(**_STRICT)
    at = text.find("{")
    for _ in range(_MAX_TRIES):
        if at < 0:
            return
        try:
            with _Coded():
                document, end = decoder.raw_decode(text, at)
        except ReplyError as error:
            if error.code != "not_json":
                raise
            if _LOOKS_LIKE_JSON.match(text, at):
                yield at, None
                return
            document, end = None, at + 1
        if document is not None:
            yield at, document
        at = text.find("{", end)


def _mended(text: str, keys: Collection[str], fault: ReplyError) -> dict[str, Any]:
    """What json-repair makes of it, where every string stands in the source between quotes: nothing was cut off."""
    text = text.rstrip().removesuffix("```").rstrip()
    if len(text) > _MAX_MENDED_CHARS or _HALF_ESCAPE.search(text):
        raise fault
    _refuse_depth(text)
    for key in keys:
        if len(re.findall(rf"""(?<!\w)["'“”]?{re.escape(key)}["'“”]?\s*:""", text)) > 1:
            raise ReplyError("duplicate_key", f"`{key}` is given twice in text that is not JSON")
    import json_repair

    try:
        document: Any = json_repair.repair_json(text, return_objects=True, skip_json_loads=True)
    except (ValueError, RecursionError, IndexError, TypeError, KeyError) as error:
        raise fault from error
    if not isinstance(document, dict) or set(document) != set(keys):
        raise fault
    _refuse_cut(text, document)
    return document


def _refuse_cut(text: str, document: dict[str, Any]) -> None:
    last = list(document.values())[-1]
    if not text.endswith("}") and not text.endswith("]" if isinstance(last, list) else tuple(_QUOTES)):
        raise ReplyError("cut_off", "the text ends in the middle of a value")
    for name, value in document.items():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, str) and not _stands_quoted(text, part):
                raise ReplyError("cut_off", f"it cannot be told where `{name}` ends")


def _stands_quoted(text: str, value: str) -> bool:
    """Whether the source has this very string between an opening quote and one that ends a value."""
    text = text.replace("\\'", "'")  # escaped as in other languages
    for written in {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}:
        at = text.find(written)
        while at >= 0:
            if at and text[at - 1] in _QUOTES and _AFTER_A_VALUE.match(text, at + len(written)):
                return True
            at = text.find(written, at + 1)
    return False


class _Coded:
    """Turns what the JSON decoder raises into codes."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RecursionError):
            raise ReplyError("too_deep", "nested too deep") from error
        if isinstance(error, json.JSONDecodeError):
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


_STRICT: dict[str, Any] = {
    "parse_constant": _refuse_constant,
    "parse_int": _short_int,
    "object_pairs_hook": _distinct_keys,
}
