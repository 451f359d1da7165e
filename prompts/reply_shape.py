"""What a prompt file may ask for in a reply: named strings and lists of strings, and which become the profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ReplyField(BaseModel):
    """A string of the reply, or with `max_items` a list of strings: so many characters each, or one of a few choices.

    Args:
        part: fields of the part `profile` are joined into the text that is embedded, those of `reasoning` into its
            reasoning, in the order of the file; others are asked for, checked and left out.
        label: stands before the field's text where several are joined.
        unlike: name of another field that must not have made the same choice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str = ""
    min_chars: int = Field(default=1, ge=0)
    max_chars: int = Field(default=1600, gt=0)
    choices: tuple[str, ...] = ()
    min_items: int = Field(default=1, ge=0)
    max_items: int | None = Field(default=None, gt=0, le=100)
    part: Literal["profile", "reasoning"] | None = None
    label: str = Field(default="", max_length=40)
    unlike: str | None = None

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> ReplyField:
        if self.min_chars > self.max_chars or self.min_items > (self.max_items or self.min_items):
            raise ValueError("a lower bound is above its upper bound")
        return self

    @property
    def is_list(self) -> bool:
        return self.max_items is not None

    def schema_of(self) -> dict[str, Any]:
        """The field as JSON schema."""
        about = {"description": self.about} if self.about else {}
        if self.choices:
            string: dict[str, Any] = {"type": "string", "enum": list(self.choices)}
        else:
            string = {"type": "string", "minLength": self.min_chars, "maxLength": self.max_chars}
        if self.max_items is None:
            return {"type": string.pop("type"), **about, **string}
        return {"type": "array", **about, "items": string, "minItems": self.min_items, "maxItems": self.max_items}


def completed(declared: Mapping[str, ReplyField]) -> dict[str, ReplyField]:
    """The fields of a reply in their order, every role filled.

    Where no field names its part, the reply is `reasoning` and `profile`; the reasoning comes first so that it helps.

    Raises:
        ValueError: a field nobody could use, or no field for the profile.
    """
    if any(field.part for field in declared.values()):
        if not any(field.part == "profile" for field in declared.values()):
            raise ValueError("no field has `part: profile`, so there would be nothing to embed")
        return dict(declared)
    unknown = sorted(set(declared) - {"reasoning", "profile"})
    if unknown:
        raise ValueError(f"`{unknown[0]}` is no known field; give the fields of a reply of your own a `part`")
    whole = {"reasoning": ReplyField(), "profile": ReplyField(min_chars=20), **declared}
    return {name: field.model_copy(update={"part": name}) for name, field in whole.items()}


def schema_of(fields: Mapping[str, ReplyField]) -> dict[str, Any]:
    """The JSON schema of a reply: these fields, all of them, and nothing else."""
    return {
        "type": "object",
        "properties": {name: field.schema_of() for name, field in fields.items()},
        "required": list(fields),
        "additionalProperties": False,
    }
