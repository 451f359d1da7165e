"""How a reply's form is asked for: by its schema, or as any JSON object where a server does not know schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

ResponseForm: TypeAlias = Literal["json_schema", "json_object"]

FALLBACK_NOTE = (
    "the server knows no response_format json_schema; from here on this run asks for json_object, so that replies are"
    " checked by us alone"
)
_REFUSING = frozenset({400, 422})
_NAMES = ("response_format", "json_schema")


def response_format(schema: Mapping[str, Any], form: ResponseForm) -> dict[str, Any]:
    """The `response_format` of a chat body."""
    if form == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "profile", "schema": dict(schema)}}


def form_after_refusal(form: ResponseForm, status: int | None, message: str) -> ResponseForm | None:
    """The form to ask in from now on, or None when the refusal was about something else.

    `message` is the error body or its text. Only a first refusal that names response_format or json_schema counts: a
    server that refuses json_object too gets no third try.
    """
    if form == "json_schema" and status in _REFUSING and any(name in message.casefold() for name in _NAMES):
        return "json_object"
    return None


def recorded_usage(usage: str | None, form: ResponseForm) -> str | None:
    """An outcome's `usage` with the form of the question in it, where that is not the usual one; no part of any key."""
    if form == "json_schema":
        return usage
    return json.dumps({**(json.loads(usage) if usage else {}), "response_format": form}, sort_keys=True)
