"""Templates that can print data only as JSON: whatever a text says, it stays inside its quotes and its block."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from prompts.text import as_json

_SAMPLE_NONCE = "0" * 16
VARIABLES = {
    "item": ("open", "close", "attributes", "reviews"),
    "user": ("open", "close", "attributes", "history", "candidates"),
}


class TemplateFault(ValueError):
    """Why a template cannot be used, and on which of its lines (1-based) where that is known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason, line)
        self.reason, self.line = reason, line


class _Delimiter(str):
    """The only text a template may print as it is."""


def opening(nonce: str) -> str:
    return f'<data id="{nonce}">'


def closing(nonce: str) -> str:
    return f'</data id="{nonce}">'


def fill(template: str, kind: str, nonce: str, values: Mapping[str, Any]) -> str:
    """The template with the values of its kind as JSON.

    Raises:
        TemplateFault: undefined name, refused expression or a value that is not JSON.
    """
    names = {"open": _Delimiter(opening(nonce)), "close": _Delimiter(closing(nonce))}
    names |= {name: values[name] for name in VARIABLES[kind] if name in values}
    try:
        return _compiled(template).render(names)
    except (jinja2.TemplateError, TypeError, ValueError, OverflowError) as error:
        raise TemplateFault(f"{type(error).__name__}: {error}") from error


def read_block(message: str, nonce: str) -> Any:
    """The data a rendered message carries, parsed back.

    Raises:
        TemplateFault: not exactly one block, or no JSON inside.
    """
    before, found, rest = message.partition(opening(nonce))
    inside, closed, after = rest.partition(closing(nonce))
    if not found or not closed or nonce in before + inside + after:
        raise TemplateFault("expected the data between one {{ open }} and one {{ close }}")
    try:
        return json.loads(inside)
    except ValueError as error:
        raise TemplateFault(f"the text between {{{{ open }}}} and {{{{ close }}}} is not JSON: {error}") from error


def without_block(message: str, nonce: str) -> str:
    """The message's own words, without its data."""
    return message.partition(opening(nonce))[0] + message.partition(closing(nonce))[2]


def check_template(template: str, kind: str) -> None:
    """Returns when the template renders and its block holds JSON, with values and without any.

    Raises:
        TemplateFault: the reason and the line, where it is known.
    """
    try:
        tree = _environment().parse(template)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateFault(f"template: {error.message}", error.lineno) from error
    unknown = sorted(meta.find_undeclared_variables(tree) - set(VARIABLES[kind]))
    if unknown:
        line = next((n for n, text in enumerate(template.splitlines(), 1) if unknown[0] in text), None)
        known = ", ".join(VARIABLES[kind])
        raise TemplateFault(f"template: unknown variable `{unknown[0]}`; known for {kind} prompts: {known}", line)
    entry = {"title": "t", "description": "d", "rating": "5", "review": "r"}
    offered = {"number": "1", "title": "t", "description": "d"}
    for values in (
        {"attributes": {"title": "<data>"}, "reviews": ["a", "b"], "history": [entry, entry], "candidates": [offered]},
        {"attributes": {}, "reviews": [], "history": [], "candidates": []},
    ):
        read_block(fill(template, kind, _SAMPLE_NONCE, values), _SAMPLE_NONCE)


def _printed(value: Any) -> str:
    """A value as JSON; delimiters pass as they are."""
    if isinstance(value, _Delimiter):
        return value
    if isinstance(value, jinja2.Undefined):
        str(value)  # a strict undefined raises here and says which name it is
    return as_json(value)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, finalize=_printed, autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.clear()
    return environment


@lru_cache(maxsize=64)
def _compiled(template: str) -> jinja2.Template:
    return _environment().from_string(template)
