"""Every engine and encoder there is, and the way from a plain mapping to its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel, ValidationError

from providers.attributes import AttributesConfig
from providers.errors import BadSettingError, UnknownNameError
from providers.local import LocalConfig
from providers.openai_batch import OpenAIBatchConfig
from providers.openai_chat import OpenAIConfig
from providers.openai_embeddings import OpenAIEmbeddingsConfig
from providers.request_file import RequestFileConfig
from providers.sentence_encoder import SentenceEncoderConfig

EngineConfig: TypeAlias = AttributesConfig | OpenAIConfig | OpenAIBatchConfig | LocalConfig | RequestFileConfig
EncoderConfig: TypeAlias = SentenceEncoderConfig | OpenAIEmbeddingsConfig

DEFAULT_ENGINE = "attributes"
DEFAULT_ENCODER = "sentence-transformers"


def parse_engine(settings: Mapping[str, Any]) -> EngineConfig:
    """The validated settings of the engine that `name` names ("attributes" without one).

    Raises:
        UnknownNameError: no engine has this name.
        BadSettingError: a setting is misspelt, missing or out of range.
    """
    return _parse("engine", EngineConfig, DEFAULT_ENGINE, settings)


def parse_encoder(settings: Mapping[str, Any]) -> EncoderConfig:
    """The validated settings of the encoder that `name` names ("sentence-transformers" without one).

    Raises:
        UnknownNameError: no encoder has this name.
        BadSettingError: a setting is misspelt, missing or out of range.
    """
    return _parse("encoder", EncoderConfig, DEFAULT_ENCODER, settings)


def members(union: Any) -> dict[str, type[BaseModel]]:
    """{name: config class} of a union of configs, or of a single one."""
    configs: tuple[type[BaseModel], ...] = get_args(union) or (union,)
    return {config.model_fields["name"].default: config for config in configs}


def _parse(what: str, union: Any, default: str, settings: Mapping[str, Any]) -> Any:
    known = members(union)
    name = settings.get("name", default)
    config = known.get(name) if isinstance(name, str) else None
    if config is None:
        raise UnknownNameError(what, name, tuple(known))
    try:
        return config.model_validate(dict(settings))
    except ValidationError as error:
        raise _first_fault(f"{what} `{name}`", config, error) from None


def _first_fault(what: str, config: type[BaseModel], error: ValidationError) -> BadSettingError:
    fault = error.errors(include_url=False, include_context=False)[0]
    path = [str(part) for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        return BadSettingError(what, ".".join(path), "unknown", _known_settings(config, path[:-1]))
    if fault["type"] == "missing":
        return BadSettingError(what, ".".join(path), "missing, and there is no default")
    problem = fault["msg"].removeprefix("Value error, ")
    shown = "" if fault["type"] == "value_error" else f" (got {fault['input']!r})"
    return BadSettingError(what, ".".join(path) or "(all)", f"{problem}{shown}")


def _known_settings(config: type[BaseModel], path: list[str]) -> tuple[str, ...]:
    for part in path:
        annotation = config.model_fields[part].annotation
        inner = [arg for arg in (annotation, *get_args(annotation)) if isinstance(arg, type)]
        config = next((arg for arg in inner if issubclass(arg, BaseModel)), config)
    return tuple(config.model_fields)
