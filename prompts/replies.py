"""Replies read strictly: exactly the JSON that was asked for becomes a profile, anything else a code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from prompts.contents import Asked, refuse_contents, refuse_runaway
from prompts.errors import ReplyError
from prompts.loader import Prompt
from prompts.reply_shape import ReplyField
from prompts.syntax import Repair, read_object
from prompts.text import clean

RULES = 1
"""Grows whenever a rule for replies changes: stored replies are then judged again, without a call."""

_NO_ANSWER = frozenset({"", "none", "n/a", "null", "unknown"})


@dataclass(frozen=True)
class Reply:
    """A profile and why it was written so; `fields` are all parts of the reply, `repair` what had to be done first."""

    profile: str
    reasoning: str
    repair: Repair = ""
    fields: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)

    @property
    def repaired(self) -> bool:
        return self.repair != ""


def parse_reply(text: str, prompt: Prompt, asked: Asked | None = None, tolerate: Collection[str] = ()) -> Reply:
    """The reply a model gave, when it is what the prompt asked for.

    Args:
        asked: what the model was shown, to notice copies of it; None looks at the reply alone.
        tolerate: codes of `prompts.contents` that are let through.

    Raises:
        ReplyError: with a code of `prompts.syntax` or `prompts.contents`, or one of wrong_keys, wrong_type,
            no_profile, too_short, too_long, too_few, too_many, not_a_choice, same_choice.
    """
    refuse_runaway(text)
    document, repair = read_object(text, prompt.reply)
    if set(document) != set(prompt.reply):
        # in words of our own: the keys of a reply may hold anything
        missing = ", ".join(name for name in prompt.reply if name not in document) or "none"
        unknown = len(set(document) - set(prompt.reply))
        raise ReplyError("wrong_keys", f"missing: {missing}; {unknown} keys that nobody asked for")
    values = {name: _checked(name, document[name], shape) for name, shape in prompt.reply.items()}
    for name, shape in prompt.reply.items():
        if shape.unlike is not None and values[name] == values.get(shape.unlike):
            raise ReplyError("same_choice", f"`{name}` repeats the choice of `{shape.unlike}`")
    profile = _joined(values, prompt.reply, "profile")
    _refuse_no_answer(profile, prompt)
    refuse_contents(document, prompt.reply, asked or Asked(language=prompt.front.language), tolerate)
    return Reply(profile, _joined(values, prompt.reply, "reasoning"), repair, values)


def _refuse_no_answer(profile: str, prompt: Prompt) -> None:
    chosen = any(shape.choices for shape in prompt.reply.values() if shape.part == "profile")
    if profile.strip(" .").casefold() in _NO_ANSWER and not chosen:
        raise ReplyError("no_profile", "the model wrote that it has none")


def _joined(values: Mapping[str, str | tuple[str, ...]], shapes: Mapping[str, ReplyField], part: str) -> str:
    texts = []
    for name, shape in shapes.items():
        value = values[name]
        text = value if isinstance(value, str) else ", ".join(value)
        if shape.part == part and text:
            texts.append(f"{shape.label}: {text}" if shape.label else text)
    return " ".join(texts)


def _checked(name: str, value: Any, shape: ReplyField) -> str | tuple[str, ...]:
    if not shape.is_list:
        return _checked_string(name, value, shape)
    if not isinstance(value, list):
        raise ReplyError("wrong_type", f"`{name}` is a {type(value).__name__}, expected a list of strings")
    if len(value) < shape.min_items:
        raise ReplyError("too_few", f"`{name}` has {len(value)} entries, at least {shape.min_items}")
    if len(value) > (shape.max_items or 0):
        raise ReplyError("too_many", f"`{name}` has {len(value)} entries, at most {shape.max_items}")
    return tuple(_checked_string(name, entry, shape) for entry in value)


def _checked_string(name: str, value: Any, shape: ReplyField) -> str:
    if not isinstance(value, str):
        raise ReplyError("wrong_type", f"`{name}` is a {type(value).__name__}, expected a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ReplyError("not_text", f"`{name}` holds a lone surrogate") from error
    if shape.choices:
        if value not in shape.choices:
            raise ReplyError("not_a_choice", f"`{name}` is none of {', '.join(shape.choices)}")
        return value
    text = clean(value)
    if not text and shape.part == "profile":
        raise ReplyError("no_profile", f"`{name}` is empty")
    no_answer = shape.part is not None and text.strip(" .").casefold() in _NO_ANSWER
    if len(text) < shape.min_chars and not no_answer:
        raise ReplyError("too_short", f"`{name}` has {len(text)} characters, at least {shape.min_chars}")
    if len(text) > shape.max_chars:
        raise ReplyError("too_long", f"`{name}` has {len(text)} characters, at most {shape.max_chars}")
    return text
