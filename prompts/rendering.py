"""Rendering: evidence in, messages out, byte for byte the same on every machine and under every hash seed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from prompts.contents import Asked
from prompts.errors import RenderError
from prompts.evidence import Evidence, shown_values
from prompts.loader import Prompt
from prompts.templates import TemplateFault, fill, read_block, without_block
from prompts.text import MISSING

Message: TypeAlias = tuple[str, str]
"""(role, content)"""


@dataclass(frozen=True)
class Rendered:
    """A prompt filled with one entity's evidence.

    Args:
        fields: (label, text) of the attributes that hold text, for engines that use no model.
        nonce: 16 hex digits in the delimiters of the data, which no text inside can know beforehand.
    """

    prompt: Prompt
    evidence: Evidence
    fields: tuple[tuple[str, str], ...]
    nonce: str

    @property
    def schema(self) -> dict[str, Any]:
        return self.prompt.reply_schema

    @property
    def truncated(self) -> bool:
        return self.evidence.truncated

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """The system text, and the data inside its block.

        Raises:
            RenderError: the template fails on this evidence, or its data does not read back.
        """
        try:
            content = fill(self.prompt.template, self.prompt.kind, self.nonce, shown_values(self.evidence))
            read_block(content, self.nonce)
        except TemplateFault as fault:
            raise RenderError(self.prompt.id, fault.reason) from fault
        return (("system", self.prompt.system), ("user", content))

    @property
    def asked(self) -> Asked:
        """What the model saw, for `parse_reply` to notice copies of it."""
        (_, system), (_, content) = self.messages
        values = shown_values(self.evidence)
        texts = [text for _, text in self.fields] + values["reviews"]
        # not the items' profiles in a history: they are in our own words, which may be used again
        texts += [entry["review"] for entry in values["history"]]
        labelled = " ".join(f"{name} {text}" for name, text in values["attributes"].items())
        instructions = f"{system}\n{without_block(content, self.nonce)}"
        return Asked(instructions, [*texts, labelled], self.nonce, self.prompt.front.language)


def render(prompt: Prompt, evidence: Evidence) -> Rendered:
    """The messages, schema and fields of one request; the messages are made when they are first asked for."""
    values = shown_values(evidence)
    canonical = json.dumps([prompt.fingerprint, values], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    nonce = hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:16]
    return Rendered(prompt, evidence, _fields(prompt, evidence), nonce)


def rendered_data(rendered: Rendered) -> Any:
    """The data of a rendered message, read back from its text."""
    return read_block(rendered.messages[-1][1], rendered.nonce)


def _fields(prompt: Prompt, evidence: Evidence) -> tuple[tuple[str, str], ...]:
    labels = {field.name: field.label for field in prompt.fields}
    return tuple(
        (labels[name], value if isinstance(value, str) else ", ".join(value))
        for name, value in evidence.attributes
        if value != MISSING
    )
