"""What every command takes, before its name or after it: --config, --root, --set, --json."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from flows.settings import Settings

CommandFunction = Callable[..., int | None]

CONFIG = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file; semalign.toml of this folder by default.")
]
ROOT = Annotated[
    Path | None, typer.Option("--root", help="The warehouse; [warehouse] root of the settings by default.")
]
SET = Annotated[list[str] | None, typer.Option("--set", help="One setting, a.b=value; may be repeated.")]
JSON = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else.")]
THREADS = Annotated[
    int | None, typer.Option("--threads", min=1, help="Compute threads of training: speed, not results.")
]


@dataclass(frozen=True)
class Options:
    """The common options of one call."""

    config: Path | None = None
    root: Path | None = None
    overrides: tuple[str, ...] = ()
    json: bool = False

    def settings(self) -> Settings:
        """The settings these options lead to."""
        from flows.settings_layers import load_settings

        root = [f"warehouse.root={self.root.absolute()}"] if self.root else []
        return load_settings(self.config, [*self.overrides, *root])

    def over(self, below: Options) -> Options:
        """These options, and those given before the command's name where these say nothing."""
        return Options(
            self.config or below.config,
            self.root or below.root,
            (*below.overrides, *self.overrides),
            self.json or below.json,
        )

    def flags(self) -> list[str]:
        """The words that lead another command to the same settings."""
        words = ["--config", str(self.config)] if self.config else []
        words += ["--root", str(self.root)] if self.root else []
        for text in self.overrides:
            words += ["--set", text]
        return words


def command(app: typer.Typer, name: str) -> Callable[[CommandFunction], CommandFunction]:
    """Registers a function as a command: `options` come from the common flags, the exit code is what it returns.

    A parameter that is a dataclass stands for an option each of its fields, so that commands can share them.
    """

    def register(function: CommandFunction) -> CommandFunction:
        hints = get_type_hints(function, include_extras=True)
        own: list[inspect.Parameter] = []
        grouped: dict[str, type] = {}
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            kind = hints[parameter.name]
            if is_dataclass(kind) and isinstance(kind, type):
                grouped[parameter.name] = kind
                own += _fields_as_parameters(kind)
            else:
                own.append(parameter.replace(annotation=kind))

        def run(
            ctx: typer.Context, config: Any = None, root: Any = None, set_: Any = None, json: bool = False, **given: Any
        ) -> None:
            options = Options(config, root, tuple(set_ or ()), json).over(ctx.obj or Options())
            for place, kind in grouped.items():
                given[place] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
            code = function(options, **given)
            if code:
                raise typer.Exit(code)

        shared = [("config", CONFIG, None), ("root", ROOT, None), ("set_", SET, None), ("json", JSON, False)]
        parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context), *own]
        parameters += [
            inspect.Parameter(word, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
            for word, annotation, default in shared
        ]
        # typer reads parameters from the signature; a default may precede none here, so all become keyword-only
        keyword_only = [parameters[0], *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters[1:])]
        run.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in keyword_only}
        run.__doc__ = function.__doc__
        app.command(name)(run)
        return function

    return register


def _fields_as_parameters(kind: type) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]
