"""What else may be asked of an item or a user than its profile: one prompt an aspect, for every domain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from prompts.errors import PromptFileError, UnknownPromptError
from prompts.loader import SHIPPED, Kind, Prompt, parse_prompt, read_prompt_file

ASPECTS: dict[str, Kind] = {
    "choice": "user",
    "facts": "user",
    "missing": "item",
    "preference": "user",
    "factual": "item",
}
"""Aspect -> whom it is asked of."""

_ANY_DOMAIN = "generic"


def load_aspect(aspect: str, profile: Prompt, directory: Path | str | None = None) -> Prompt:
    """The prompt of an aspect, reading the attributes that the domain's profile prompt may read and no others.

    A file `<domain>/<kind>_<aspect>.md` in `directory` wins over one that is shipped, one of the domain over that of
    `generic`.

    Args:
        profile: the domain's profile prompt of the same kind.

    Raises:
        UnknownPromptError: there is no such file.
        PromptFileError: the file cannot be used, or has attributes of its own.
    """
    name = f"{ASPECTS[aspect]}_{aspect}"
    overlay = None if directory is None else Path(directory)
    for root in (overlay, SHIPPED):
        for domain in dict.fromkeys((profile.id.partition("/")[0], _ANY_DOMAIN)):
            path = None if root is None else root / domain / f"{name}.md"
            if path is None or not path.is_file():
                continue
            prompt = parse_prompt(f"{domain}/{name}", ASPECTS[aspect], read_prompt_file(path), path)
            if prompt.fields:
                raise PromptFileError(path, None, "`attributes`: expected none; it reads those of the profile prompt")
            read = {"attributes": profile.fields, "personal": profile.personal}
            return replace(prompt, front=prompt.front.model_copy(update=read))
    known = tuple(f"{_ANY_DOMAIN}/{kind}_{known}" for known, kind in ASPECTS.items())
    raise UnknownPromptError(f"{_ANY_DOMAIN}/{name}", known, overlay)
