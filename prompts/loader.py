"""Prompt files: front matter that declares, a system text, and a template of the data; all checked before any use."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from prompts.errors import PromptFileError, UnknownAttributeError, UnknownPromptError
from prompts.reply_shape import ReplyField, completed, schema_of
from prompts.templates import TemplateFault, check_template

Kind = Literal["item", "user"]

SHIPPED = Path(__file__).parent / "profiles"
_MAX_BYTES = 1024 * 1024
_FIRST_LINE = 2  # the front matter's line 0 is the file's line 2
_NAME = r"^[a-z][a-z0-9_]{0,62}$"
_FRONT = re.compile(r"\A---\n(?P<front>.*?\n)---\n(?P<rest>.*)\Z", re.DOTALL)
_SECTIONS = re.compile(r"\A\s*# System\n(?P<system>.*?)\n# Message\n(?P<template>.*)\Z", re.DOTALL)


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AttributeField(_Declared):
    """An attribute the prompt may read, in the place where it is shown.

    Args:
        label: stands before the text in a composed profile; empty for a leading title.
        separator: splits a text column such as "a, b, c" into a list.
    """

    name: str = Field(pattern=_NAME)
    label: str = Field(default="", max_length=40)
    required: bool = False
    max_items: int = Field(default=20, gt=0)
    max_chars: int = Field(default=2000, gt=0)
    separator: str | None = Field(default=None, min_length=1, max_length=3)


class Limits(_Declared):
    """How much evidence is shown: reviews of an item, training items of a user, characters of each, tokens of all.

    Args:
        max_tokens: bound of the whole data block, as `prompts.tokens` counts them; the last samples go first.
    """

    history: int = Field(default=6, gt=0)
    description_chars: int = Field(default=900, gt=0)
    reviews: int = Field(default=6, ge=0)
    review_chars: int = Field(default=1500, gt=0)
    max_tokens: int = Field(default=6000, ge=100)


class FrontMatter(_Declared):
    """What a prompt file declares about itself.

    Args:
        language: two letters, such as "en"; a reply in another language is refused. None takes any.
    """

    version: int = Field(ge=1)
    about: str = Field(min_length=1)
    attributes: tuple[AttributeField, ...]
    personal: tuple[str, ...] = ()
    limits: Limits = Limits()
    reply: dict[Annotated[str, Field(pattern=_NAME)], ReplyField] = Field(default_factory=lambda: completed({}))
    language: str | None = Field(default=None, pattern=r"^[a-z]{2}$")

    @field_validator("reply")
    @classmethod
    def _reply_is_whole(cls, reply: dict[str, ReplyField]) -> dict[str, ReplyField]:
        return completed(reply)

    @model_validator(mode="after")
    def _names_are_distinct(self) -> FrontMatter:
        names = [field.name for field in self.attributes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"attribute `{twice[0]}` is listed twice")
        both = sorted(set(names) & set(self.personal))
        if both:
            raise ValueError(
                f"`{both[0]}` is listed as personal and among the attributes that are sent; remove it from one of them"
            )
        return self


@dataclass(frozen=True)
class Prompt:
    """One prompt file, checked. `id` is its path, such as "games/item"."""

    id: str
    kind: Kind
    front: FrontMatter
    system: str
    template: str
    text: str

    @property
    def version(self) -> int:
        return self.front.version

    @property
    def fields(self) -> tuple[AttributeField, ...]:
        """The attributes that may be read, most telling first."""
        return self.front.attributes

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields if field.required)

    @property
    def optional(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields if not field.required)

    @property
    def personal(self) -> tuple[str, ...]:
        """Attributes known to be personal, which are never read."""
        return self.front.personal

    @property
    def limits(self) -> Limits:
        return self.front.limits

    @property
    def reply(self) -> dict[str, ReplyField]:
        """The fields of a reply, in the order in which they are asked for."""
        return self.front.reply

    def restricted_to(self, attributes: Sequence[str]) -> Prompt:
        """This prompt reading only some of its attributes; it can be made to read less, never more.

        Raises:
            UnknownAttributeError: a name is not among those the prompt file allows.
        """
        allowed = tuple(field.name for field in self.fields)
        for name in attributes:
            if name not in allowed:
                raise UnknownAttributeError(self.id, name, allowed)
        kept = tuple(field for field in self.fields if field.name in attributes)
        return replace(self, front=self.front.model_copy(update={"attributes": kept}))

    def choosing_among(self, n: int) -> Prompt:
        """This prompt with the numbers 1 to n as the choices of every field that has choices."""
        numbers = tuple(str(number) for number in range(1, n + 1))
        shapes = {
            name: shape.model_copy(update={"choices": numbers}) if shape.choices else shape
            for name, shape in self.reply.items()
        }
        return replace(self, front=self.front.model_copy(update={"reply": shapes}))

    @cached_property
    def reply_schema(self) -> dict[str, Any]:
        """JSON schema of the reply."""
        return schema_of(self.reply)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of what the file means: a changed comment or line end changes nothing and costs nothing."""
        # without the defaults: a setting that prompt files may have from now on is no reason to pay for all again
        meaning = [self.id, self.front.model_dump(mode="json", exclude_defaults=True), self.system, self.template]
        canonical = json.dumps(meaning, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def load_prompt(domain: str, kind: str, directory: Path | str | None = None) -> Prompt:
    """The checked prompt of a domain and kind; a file in `directory` wins over the shipped one.

    Raises:
        UnknownPromptError: there is no such file.
        PromptFileError: the file cannot be used, with its line where that is known.
    """
    overlay = None if directory is None else Path(directory)
    known = known_prompts(overlay)
    prompt_id = f"{domain}/{kind}"
    if prompt_id not in known or kind not in ("item", "user"):
        raise UnknownPromptError(prompt_id, known, overlay)
    for root in (overlay, SHIPPED):
        path = None if root is None else root / domain / f"{kind}.md"
        if path is not None and path.is_file():
            return parse_prompt(prompt_id, kind, read_prompt_file(path), path)
    raise UnknownPromptError(prompt_id, known, overlay)


def known_prompts(directory: Path | str | None = None) -> tuple[str, ...]:
    """Ids such as "games/item" of every prompt file that is shipped or lies in `directory`, sorted."""
    roots = [SHIPPED] if directory is None else [Path(directory), SHIPPED]
    files = (path for root in roots for path in root.glob("*/*.md"))
    ids = {f"{path.parent.name}/{path.stem}" for path in files if path.stem in ("item", "user")}
    return tuple(sorted(name for name in ids if re.match(_NAME, name.partition("/")[0])))


def parse_prompt(prompt_id: str, kind: Kind, text: str, path: Path) -> Prompt:
    """The prompt a file's text holds.

    Raises:
        PromptFileError: naming the line where that is known.
    """
    text = text.replace("\r\n", "\n")
    whole = _FRONT.match(text)
    if whole is None:
        raise PromptFileError(path, 1, "expected front matter between two lines of `---`, then the texts")
    front = _front_matter(whole["front"], path)
    sections = _SECTIONS.match(whole["rest"])
    if sections is None:
        raise PromptFileError(path, None, "expected the two headings `# System` and `# Message`, in this order")
    prompt = Prompt(prompt_id, kind, front, sections["system"].strip(), sections["template"].strip(), text)
    try:
        check_template(prompt.template, kind)
    except TemplateFault as fault:
        start = text.index(prompt.template, text.index("\n# Message\n"))
        line = text[:start].count("\n") + fault.line if fault.line else None
        raise PromptFileError(path, line, fault.reason) from fault
    return prompt


def read_prompt_file(path: Path) -> str:
    """The text of a prompt file.

    Raises:
        PromptFileError: too large, or not UTF-8.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise PromptFileError(path, None, f"larger than {_MAX_BYTES} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PromptFileError(path, None, f"not UTF-8 (byte {error.start})") from error


def _front_matter(front: str, path: Path) -> FrontMatter:
    try:
        # aliases are how a few lines of YAML become gigabytes; a prompt needs none
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(front, Loader=yaml.SafeLoader)):
            raise PromptFileError(path, None, "YAML aliases (`*name`) are not read in front matter; write it out")
        tree = yaml.compose(front, Loader=yaml.SafeLoader)
        declared = yaml.safe_load(front)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or type(error).__name__
        line = mark.line + _FIRST_LINE if mark else None
        raise PromptFileError(path, line, f"not readable YAML: {problem}") from error
    try:
        return FrontMatter.model_validate(declared)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "front matter"
        known = f"; known: {', '.join(_known_keys(fault['loc']))}" if fault["type"] == "extra_forbidden" else ""
        problem = "unknown key" if known else fault["msg"].removeprefix("Value error, ")
        raise PromptFileError(path, _line_of(tree, fault["loc"]), f"`{where}`: {problem}{known}") from error


def _line_of(node: Any, location: tuple[int | str, ...]) -> int | None:
    """Line in the file of the deepest part of a location that is written there."""
    line = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if getattr(key, "value", None) == part]
            if not found:
                break
            key, node = found[0]
            line = key.start_mark.line + _FIRST_LINE
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + _FIRST_LINE
    return line


def _known_keys(location: tuple[int | str, ...]) -> tuple[str, ...]:
    models = {"attributes": AttributeField, "limits": Limits, "reply": ReplyField}
    return tuple(
        models.get(str(location[0]), FrontMatter).model_fields if len(location) > 1 else FrontMatter.model_fields
    )
