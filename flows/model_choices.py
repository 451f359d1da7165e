"""Which models a command trains: catalogue names, with overrides and alternatives, as plain mappings.

`dmrec` is the [model] of the settings, `mult_vae` the same base without language unless [models.mult_vae] says
otherwise; `pia@base.name=mult_vae` wraps just that one. `dmrec@matching.beta=0.3|0.5;fuse=add` is two models,
`@modalities=profiles+image` one that reads two sets of vectors. A grid adds alternatives from outside the name.
`training.learning_rate` and the like speak of [training] for that model alone, as [models.<name>.training] does, and
`words.texts=title+tags` of [words].
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flows.errors import SettingSyntaxError, SettingValueError
from flows.settings import PlainMapping, Settings
from flows.settings_layers import merged, nested, parse_value

Role = Literal["model", "base", "baseline", "control"]
# Options that take the meaning out of what a model reads: what is left of its gain is not the language.
CONTROLS = ("shuffled", "random")
SPEC = "NAME or NAME@option=value|value;option=value, e.g. dmrec@matching.beta=0.3|0.5;fuse=add"
# Branches of the settings that a model may have otherwise than the rest.
_BRANCHES = ("training", "words")
# Options whose value is a list of names, written as a sum: a comma would begin the next model.
_SUMS = ("modalities", "texts")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_OPTION = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")


@dataclass(frozen=True)
class ModelChoice:
    """A model to train: what tables call it, its settings as rec_models takes them, its own [training] and [words]."""

    label: str
    mapping: PlainMapping
    role: Role = "baseline"
    training: PlainMapping = field(default_factory=dict)
    words: PlainMapping = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.mapping.get("name"))


def run_choices(settings: Settings) -> list[ModelChoice]:
    """The models of a run: [model] first, then its baselines."""
    primary = str(settings.model.get("name"))
    choices = [ModelChoice(primary, settings.model, "model", **_own(primary, settings))]
    for spec in settings.evaluation.baselines:
        choices.extend(expand(spec, settings))
    return unique(choices)


def choices_of(specs: Sequence[str], grids: Sequence[str], settings: Settings) -> list[ModelChoice]:
    """The models that `--models` and `--grid` name, in their order, none twice.

    Raises:
        SettingSyntaxError: a specification that does not parse.
    """
    named = [spec.strip() for text in specs for spec in text.split(",") if spec.strip()]
    if not named:
        raise SettingSyntaxError(",".join(specs), f"--models {SPEC}")
    alternatives: dict[str, list[tuple[str, list[object]]]] = {}
    first = _split_spec(named[0])[0]
    for text in grids:
        owner, option, values = _grid(text)
        alternatives.setdefault(owner or first, []).append((option, values))
    used = {_split_spec(spec)[0] for spec in named}
    for owner in alternatives:
        if owner not in used:
            raise SettingSyntaxError(
                owner, f"a model named in --models ({', '.join(sorted(used))}) before the colon of --grid"
            )
    return unique(
        choice for spec in named for choice in expand(spec, settings, alternatives.get(_split_spec(spec)[0], ()))
    )


def expand(spec: str, settings: Settings, grid: Iterable[tuple[str, list[object]]] = ()) -> list[ModelChoice]:
    """Every model one specification stands for: the product of its alternatives."""
    name, options = _split_spec(spec)
    axes = [*options, *grid]
    choices = []
    for values in itertools.product(*(values for _, values in axes)):
        tree = {"model": defaults_of(name, settings), **_own(name, settings)}
        words = []
        for (option, _), value in zip(axes, values, strict=True):
            tree = merged(tree, _laid_over(option, value, settings))
            words.append(f"{option}={_word(value)}")
        label = f"{name}@{';'.join(words)}" if words else name
        mapping = tree.pop("model")
        choices.append(ModelChoice(label, mapping, _role(mapping, settings), **tree))
    return choices


def _laid_over(option: str, value: object, settings: Settings) -> PlainMapping:
    """The tree of one option. A base that is named comes with the settings that it has on its own, so that a model
    and what wraps it differ by the wrapping alone."""
    if "." in option and option.partition(".")[0] in _BRANCHES:
        return nested(option, value)
    path, _, last = f"model.{option}".rpartition(".")
    if isinstance(value, str) and last == "name" and path.endswith(".base"):
        return nested(path, defaults_of(value, settings))
    return nested(f"model.{option}", value)


def defaults_of(name: str, settings: Settings) -> PlainMapping:
    """The settings a bare catalogue name stands for."""
    if name in settings.models:
        own = {option: value for option, value in settings.models[name].items() if option not in _BRANCHES}
        return {"name": name, **copy.deepcopy(own)}
    for known in (settings.model, settings.model.get("base")):
        if isinstance(known, dict) and known.get("name") == name:
            return copy.deepcopy(known)
    return {"name": name}


def _own(name: str, settings: Settings) -> dict[str, PlainMapping]:
    """What [models.<name>.training] changes of [training], and [models.<name>.words] of [words]."""
    own = {branch: settings.models.get(name, {}).get(branch, {}) for branch in _BRANCHES}
    for branch, value in own.items():
        if not isinstance(value, dict):
            raise SettingValueError(f"models.{name}.{branch}", value, f"expected a table of options of [{branch}]")
    return copy.deepcopy(own)


def is_option(text: str) -> bool:
    """Whether a text can be the path of an option, such as `matching.beta`."""
    return bool(_OPTION.fullmatch(text))


def clusters_of(mapping: PlainMapping) -> int:
    """Item clusters that a model or a base of it is over, by its settings; 1 where it has none."""
    asked, base = mapping.get("clusters"), mapping.get("base")
    if asked is None and isinstance(base, dict):
        return clusters_of(base)
    return asked if isinstance(asked, int) else 1


def earlier_choice(choices: Iterable[ModelChoice], settings: Settings) -> ModelChoice | None:
    """LightGCN as [models.lightgcn] has it, where item clusters are to be made from its item vectors."""
    if all(clusters_of(choice.mapping) == 1 for choice in choices):
        return None
    return ModelChoice("lightgcn", defaults_of("lightgcn", settings), training=_own("lightgcn", settings)["training"])


def unique(choices: Iterable[ModelChoice]) -> list[ModelChoice]:
    """The choices without repetitions of a label."""
    first: dict[str, ModelChoice] = {}
    for choice in choices:
        first.setdefault(choice.label, choice)
    return list(first.values())


def _role(mapping: PlainMapping, settings: Settings) -> Role:
    base = settings.model.get("base")
    if mapping.get("language") in CONTROLS:
        return "control"
    if mapping["name"] == settings.model.get("name"):
        return "model"
    return "base" if isinstance(base, dict) and base.get("name") == mapping["name"] else "baseline"


def _split_spec(spec: str) -> tuple[str, list[tuple[str, list[object]]]]:
    name, at, rest = spec.strip().partition("@")
    if not _NAME.fullmatch(name) or (at and not rest):
        raise SettingSyntaxError(spec, SPEC)
    return name, [_option(part, spec) for part in rest.split(";")] if rest else []


def _option(text: str, spec: str) -> tuple[str, list[object]]:
    option, equals, values = text.partition("=")
    if not equals or not _OPTION.fullmatch(option.strip()) or not values.strip():
        raise SettingSyntaxError(spec, SPEC)
    return option.strip(), [_value(option, value) for value in values.split("|")]


def _grid(text: str) -> tuple[str | None, str, list[object]]:
    target, equals, values = text.partition("=")
    owner, colon, option = target.rpartition(":")
    if (
        not equals
        or not _OPTION.fullmatch(option.strip())
        or not values.strip()
        or (colon and not _NAME.fullmatch(owner))
    ):
        raise SettingSyntaxError(text, "--grid [MODEL:]option=value,value, e.g. dmrec:matching.beta=0.3,0.5")
    return owner or None, option.strip(), [_value(option, value) for value in values.split(",")]


def _value(option: str, text: str) -> object:
    if option.strip().rpartition(".")[2] in _SUMS:
        return [] if text.strip() == "none" else [name.strip() for name in text.split("+")]
    return parse_value(text.strip())


def _word(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
