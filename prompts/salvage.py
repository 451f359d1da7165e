"""The best text or choice in a reply that was not accepted, for a person who decides to take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prompts.errors import ReplyError
from prompts.loader import Prompt
from prompts.syntax import MAX_BYTES, read_object
from prompts.text import clean, shorten


def best_text(text: str, prompt: Prompt) -> str | None:
    """What a reply says in the fields of the profile, else its prose; None where neither holds a letter."""
    shapes = {name: shape for name, shape in prompt.reply.items() if shape.part == "profile"}
    text = text[:MAX_BYTES].encode("utf-8", "ignore").decode("utf-8")
    document = _loosely(text, prompt)
    if document is None:
        found = text if "{" not in text else ""
    else:
        found = " ".join(_labelled(document.get(name), shape.label) for name, shape in shapes.items())
    limit = sum(shape.max_chars * (shape.max_items or 1) for shape in shapes.values())
    short, _ = shorten(clean(found), limit)
    return short if any(char.isalpha() for char in short) else None


def best_choice(text: str, prompt: Prompt) -> dict[str, str] | None:
    """What a reply chose, for every field that has choices; None where one of them is not among those offered."""
    document = _loosely(text, prompt) or {}
    shapes = {name: shape for name, shape in prompt.reply.items() if shape.choices}
    chosen = {name: str(document.get(name)).strip() for name in shapes}
    offered = all(chosen[name] in shape.choices for name, shape in shapes.items())
    distinct = all(chosen[name] != chosen.get(shape.unlike or "") for name, shape in shapes.items())
    return chosen if offered and distinct else None


def _labelled(value: Any, label: str) -> str:
    said = ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
    return f"{label}: {said}" if label and said else said


def _loosely(text: str, prompt: Prompt) -> Mapping[str, Any] | None:
    try:
        return read_object(text, prompt.reply)[0]
    except ReplyError as error:
        if error.code in ("too_deep", "too_large") or "{" not in text or len(text) > MAX_BYTES // 4:
            return None
    import json_repair

    try:
        document: Any = json_repair.repair_json(text[text.index("{") :], return_objects=True, skip_json_loads=True)
    except (ValueError, RecursionError, IndexError, TypeError, KeyError):
        return None
    return document if isinstance(document, dict) else None
