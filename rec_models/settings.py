"""Plain mappings from a settings file to typed settings, with errors that name the option."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from rec_models.errors import HeldOutUsersError, ModelSettingsError, ProtocolError, UnknownModelError
from rec_models.protocols import PROTOCOLS

if TYPE_CHECKING:
    from rec_models.evaluation import EvaluationConfig
    from rec_models.recommender import RecommenderConfig
    from rec_models.training_config import TrainingConfig


T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class ModelCard:
    """One line of the catalogue."""

    name: str
    paper: str
    reads_language: bool
    reads_words: bool
    scores_new_users: bool
    options: dict[str, Any]


def catalogue() -> list[ModelCard]:
    """Every model of the union, with its options and their defaults."""
    from rec_models.models import CONFIGS

    cards = []
    for kind in CONFIGS:
        defaults = kind().model_dump(mode="json")
        reads = kind.reads_language, kind.reads_words
        cards.append(ModelCard(defaults.pop("name"), kind.paper, *reads, kind.scores_new_users, defaults))
    return cards


def parse_config(mapping: Mapping[str, Any]) -> RecommenderConfig:
    """The model settings of a mapping with a `name`.

    Raises:
        UnknownModelError: the name is not in the catalogue.
        ModelSettingsError: an option is unknown or has a value that does not fit.
    """
    from rec_models.models import CONFIGS, ModelConfig

    known = [kind.model_fields["name"].default for kind in CONFIGS]
    if mapping.get("name") not in known:
        raise UnknownModelError(mapping.get("name"), known)
    try:
        return cast("RecommenderConfig", TypeAdapter(ModelConfig).validate_python(dict(mapping)))
    except ValidationError as error:
        kind = CONFIGS[known.index(mapping["name"])]
        raise ModelSettingsError("model", _problems(error, kind)) from error


def parse_training(mapping: Mapping[str, Any]) -> TrainingConfig:
    """The training settings of a mapping."""
    from rec_models.training_config import TrainingConfig

    return _parse("training", TrainingConfig, mapping)


def parse_evaluation(mapping: Mapping[str, Any]) -> EvaluationConfig:
    """The evaluation settings of a mapping."""
    from rec_models.evaluation import EvaluationConfig

    return _parse("evaluation", EvaluationConfig, mapping)


def refuse_protocol(protocol: str, held_out: bool, configs: Mapping[str, RecommenderConfig] | None = None) -> None:
    """Nothing, when the protocol was made for the split, and the models can score the users it tests.

    Args:
        held_out: whether the split holds users out of training; it has fold-in rows then.
        configs: what an error calls each model -> its settings.

    Raises:
        ProtocolError: the one holds users out and the other does not.
        HeldOutUsersError: a model keeps a vector for each user, and tested users are held out.
    """
    if PROTOCOLS[protocol].held_out_users != held_out:
        raise ProtocolError(
            protocol, held_out, [name for name in PROTOCOLS if PROTOCOLS[name].held_out_users == held_out]
        )
    for name, config in (configs or {}).items():
        if held_out and not config.scores_new_users:
            raise HeldOutUsersError(name, protocol)


def _parse(branch: str, kind: type[T], mapping: Mapping[str, Any]) -> T:
    try:
        return kind.model_validate(dict(mapping))
    except ValidationError as error:
        raise ModelSettingsError(branch, _problems(error, kind)) from error


def _problems(error: ValidationError, kind: type[BaseModel]) -> list[str]:
    problems = []
    for found in error.errors():
        path, owner = _place(found["loc"], kind)
        if found["type"] == "extra_forbidden":
            option = str(found["loc"][-1])
            known = sorted(owner.model_fields)
            near = difflib.get_close_matches(option, known, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
            problems.append(f"unknown option `{'.'.join([*path, option])}` ({hint})")
        else:
            where = f"`{'.'.join(path)}`: " if path else ""
            problems.append(f"{where}{found['msg']}, got {found['input']!r}")
    return problems


def _place(location: tuple[str | int, ...], kind: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """The path as a settings file spells it, and the settings it ends in.

    Pydantic puts the branch it took at every union between the names: the `name` of a part, or a type.
    """
    path, owner, parts = [], kind, list[type[BaseModel]]()
    for step in location:
        chosen = [part for part in parts if "name" in part.model_fields and part.model_fields["name"].default == step]
        if step in owner.model_fields:
            path.append(str(step))
            parts = _parts(owner.model_fields[step].annotation)
            owner = parts[0] if len(parts) == 1 else owner
        elif chosen:
            [owner], parts = chosen, []
        elif isinstance(step, int):
            path.append(str(step))
    return path, owner


def _parts(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for argument in get_args(annotation) for part in _parts(argument)]
