"""Everything `prompts` can refuse, each with its facts and its cure."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path


class PromptError(Exception):
    """Base of all errors of this package; `exit_code` is what the command line leaves with."""

    exit_code = 2


class UnknownPromptError(PromptError, LookupError):
    """A domain or kind for which no prompt file exists."""

    def __init__(self, prompt_id: str, known: tuple[str, ...], directory: Path | None) -> None:
        super().__init__(prompt_id, known, directory)
        self.prompt_id, self.known, self.directory = prompt_id, known, directory

    def __str__(self) -> str:
        close = get_close_matches(self.prompt_id, self.known, n=1)
        hint = f" Did you mean `{close[0]}`?" if close else ""
        where = f"{self.directory} or the shipped prompts" if self.directory else "the shipped prompts"
        return f"no prompt `{self.prompt_id}` in {where}; known: {', '.join(self.known)}.{hint}"


class PromptFileError(PromptError, ValueError):
    """A prompt file that cannot be used as it is written."""

    def __init__(self, path: Path, line: int | None, reason: str) -> None:
        super().__init__(path, line, reason)
        self.path, self.line, self.reason = path, line, reason

    def __str__(self) -> str:
        where = f"{self.path}, line {self.line}" if self.line else str(self.path)
        return f"prompt file {where}: {self.reason}"


class MissingAttributeError(PromptError, LookupError):
    """An attribute the prompt needs and the data does not have as a column."""

    def __init__(self, prompt_id: str, attribute: str, known: tuple[str, ...]) -> None:
        super().__init__(prompt_id, attribute, known)
        self.prompt_id, self.attribute, self.known = prompt_id, attribute, known

    def __str__(self) -> str:
        close = get_close_matches(self.attribute, self.known, n=1)
        hint = f" `{close[0]}` looks close:" if close else ""
        kind = self.prompt_id.rpartition("/")[2]
        return (
            f"prompt {self.prompt_id} needs the attribute `{self.attribute}`, which the data does not have; columns:"
            f" {', '.join(self.known) or '(none)'}.{hint} map a column with source.columns.{kind}s.{self.attribute} ="
            ' "<your column>", or choose another profiles.domain'
        )


class UnknownAttributeError(PromptError, LookupError):
    """An attribute that was asked for and that the prompt file does not allow to be read."""

    def __init__(self, prompt_id: str, attribute: str, allowed: tuple[str, ...]) -> None:
        super().__init__(prompt_id, attribute, allowed)
        self.prompt_id, self.attribute, self.allowed = prompt_id, attribute, allowed

    def __str__(self) -> str:
        return (
            f"prompt {self.prompt_id} does not read the attribute `{self.attribute}`; it reads:"
            f" {', '.join(self.allowed) or '(none)'}. To read more, copy the prompt file into profiles.prompts_dir and"
            " list the attribute there"
        )


class RenderError(PromptError, ValueError):
    """A template that fails on evidence it was promised."""

    def __init__(self, prompt_id: str, reason: str) -> None:
        super().__init__(prompt_id, reason)
        self.prompt_id, self.reason = prompt_id, reason

    def __str__(self) -> str:
        return f"prompt {self.prompt_id} cannot be rendered: {self.reason}"


class ReplyError(PromptError, ValueError):
    """A reply that is not what the prompt asked for; one such row goes to quarantine under its code."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"
