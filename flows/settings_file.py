"""A settings tree written as TOML that the same settings are read from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from flows.settings import PlainMapping, Settings

if TYPE_CHECKING:
    from flows.steps.tune import TunedModel

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def tuned_settings(settings: Settings, tuned: tuple[TunedModel, ...]) -> PlainMapping:
    """The tree of the settings with every tuned model's choice under [models.<name>], and under [model] if it is that.

    What a choice trains otherwise than [training] says goes into [models.<name>.training], and other words likewise.
    Of two choices of one name the one that did better on validation is written.
    """
    tree = settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    tree["models"] = dict(tree.get("models", {}))
    for model in sorted(tuned, key=lambda model: model.best.valid or 0.0):
        name = model.choice.name
        options = {option: value for option, value in model.choice.mapping.items() if option != "name"}
        branches = {"training": model.choice.training, "words": model.choice.words}
        own = {branch: value for branch, value in branches.items() if value}
        tree["models"][name] = options | own
        if name == settings.model.get("name"):
            tree["model"] = model.choice.mapping
    return tree


def as_toml(tree: Mapping[str, Any]) -> str:
    """The tree as TOML; a null, which TOML cannot say, is left to its default."""
    return "\n".join(_lines(tree, ())).strip() + "\n"


def _lines(tree: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[str]:
    plain = {name: value for name, value in tree.items() if not isinstance(value, Mapping) and value is not None}
    if above and (plain or not tree):
        yield f"\n[{'.'.join(_key(name) for name in above)}]"
    for name, value in plain.items():
        yield f"{_key(name)} = {_value(value)}"
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _lines(value, (*above, name))


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(name)} = {_value(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(inner) for inner in value)}]"
    if isinstance(value, str):
        # JSON's escapes are TOML's, all but the one control character that JSON may leave as it is
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
