"""What tuning may try: options of models with the values or ranges they may take."""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.errors import SettingsFileError, SettingSyntaxError
from flows.model_choices import is_option
from flows.settings_layers import parse_value

SPACE = (
    "a TOML file, [MODEL:]option=v,v or [MODEL:]option=low..high[:log], "
    "e.g. matching.beta=0,0.5,1 or training.learning_rate=1e-4..1e-2:log"
)
# Digits that a drawn number keeps, so that it reads like one somebody chose.
_DIGITS = 4


@dataclass(frozen=True)
class Axis:
    """One option: the values it may take, or the range they lie in.

    Args:
        values: what may be tried; empty for a range.
        low, high: both ends included.
        log: drawn evenly in the logarithm.
        whole: only whole numbers.
    """

    option: str
    values: tuple[object, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def at(self, place: float) -> object:
        """The value at a place 0..1 of a range."""
        if self.log:
            value = math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + place * (self.high - self.low)
        return self.rounded(value)

    def rounded(self, value: float) -> object:
        """The value as it is written down: whole, or with four digits, and inside the range."""
        if self.whole:
            return min(max(round(value), math.ceil(self.low)), math.floor(self.high))
        return min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high)

    def ends(self) -> list[object]:
        """The values whose validity speaks for all: each listed one, or both ends."""
        return list(self.values) or [self.rounded(self.low), self.rounded(self.high)]


@dataclass(frozen=True)
class SearchSpace:
    """The axes of one model, in the order they are applied."""

    axes: tuple[Axis, ...]

    def size(self) -> int | None:
        """How many combinations there are; None with a range."""
        return math.prod(len(axis.values) for axis in self.axes) if all(axis.values for axis in self.axes) else None

    def combinations(self) -> Iterator[dict[str, object]]:
        """Every combination of a space without ranges, the last option changing fastest."""
        for values in itertools.product(*(axis.values for axis in self.axes)):
            yield {axis.option: value for axis, value in zip(self.axes, values, strict=True)}

    def plain(self) -> dict[str, Any]:
        """The space as JSON, for the record of a run."""
        return {
            axis.option: list(axis.values) or {"low": axis.low, "high": axis.high, "log": axis.log, "whole": axis.whole}
            for axis in self.axes
        }


def spaces_of(texts: Sequence[str], models: Sequence[str]) -> dict[str, SearchSpace]:
    """Label of each model → its space; an option without a model is everybody's.

    Args:
        texts: each a file or `[MODEL:]option=…`, where MODEL is a label or the catalogue name before its `@`.
        models: labels.

    Raises:
        SettingSyntaxError: a text that does not parse, a model that is not tuned, or one that has nothing to try.
        SettingsFileError: a file that is not there or is not TOML.
    """
    found: dict[str, dict[str, Axis]] = {name: {} for name in models}
    names = {name for label in models for name in (label, label.partition("@")[0])}
    for text in texts:
        for owner, axis in _inline(text) if "=" in text else _from_file(Path(text), names):
            if owner is not None and owner not in names:
                raise SettingSyntaxError(owner, f"a model named in --models: {', '.join(found)}")
            for label in found:
                if owner in (None, label, label.partition("@")[0]):
                    found[label][axis.option] = axis
    for name, axes in found.items():
        if not axes:
            raise SettingSyntaxError(", ".join(texts), f"--space with something to try for {name}: {SPACE}")
    return {name: SearchSpace(tuple(axes.values())) for name, axes in found.items()}


def _inline(text: str) -> Iterator[tuple[str | None, Axis]]:
    target, _, values = text.partition("=")
    owner, _, option = target.strip().rpartition(":")
    if not is_option(option) or not values.strip():
        raise SettingSyntaxError(text, f"--space {SPACE}")
    low, dots, rest = values.partition("..")
    if not dots:
        yield owner or None, Axis(option, tuple(parse_value(value.strip()) for value in values.split(",")))
        return
    high, _, scale = rest.partition(":")
    ends = {"low": parse_value(low.strip()), "high": parse_value(high.strip()), "log": scale.strip() == "log"}
    if scale.strip() not in ("", "log"):
        raise SettingSyntaxError(text, f"--space {SPACE}")
    yield owner or None, _range(option, ends, text)


def _from_file(path: Path, models: Collection[str]) -> Iterator[tuple[str | None, Axis]]:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsFileError(str(path), error.strerror or "cannot be read") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsFileError(str(path), f"not TOML: {error}") from None
    for option, values in _leaves(tree, ""):
        first, _, rest = option.partition(".")
        owner, name = (first, rest) if first in models else (None, option)
        where = f"{path}: {option} = {values!r}"
        if not is_option(name):
            raise SettingSyntaxError(where, "option = [values] or option = { low = …, high = … }")
        if isinstance(values, Mapping):
            yield owner, _range(name, values, where)
        elif isinstance(values, list) and values:
            yield owner, Axis(name, tuple(values))
        else:
            raise SettingSyntaxError(where, "a list of values or { low = …, high = …, log = true, whole = true }")


def _leaves(tree: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping) and not {"low", "high"} & set(value):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _range(option: str, ends: Mapping[str, Any], where: str) -> Axis:
    """The range; whole where both ends are, unless it says otherwise."""
    unknown = set(ends) - {"low", "high", "log", "whole"}
    low: Any = ends.get("low")
    high: Any = ends.get("high")
    log = ends.get("log", False)
    if unknown or not _is_number(low) or not _is_number(high) or not low < high or (log and not low > 0):
        raise SettingSyntaxError(where, "low < high, both numbers, and low > 0 where log is true")
    whole = ends.get("whole", isinstance(low, int) and isinstance(high, int))
    return Axis(option, (), float(low), float(high), bool(log), bool(whole))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
