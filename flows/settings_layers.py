"""Settings from their layers: --set, the environment, semalign.local.toml, semalign.toml, the defaults."""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError

from flows.caution import names_a_secret
from flows.errors import (
    SecretInSettingsError,
    SettingsFileError,
    SettingSyntaxError,
    SettingValueError,
    UndefinedVariableError,
    UnknownSettingError,
)
from flows.settings import DEFAULT_ENCODER, DEFAULT_ENGINE, DEFAULT_MODEL, PlainMapping, Settings
from flows.vector_sources import PATHS, ROWS, VECTORS

CONFIG_NAME = "semalign.toml"
LOCAL_NAME = "semalign.local.toml"
ENV_PREFIX = "SEMALIGN_"
MAX_FILE_BYTES = 1 << 20

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
# Settings that name a file or folder; a source may be a query instead. Relative to the file that holds them.
_PATHS = ("source.interactions", "source.items", "source.users", "profiles.prompts_dir", "warehouse.root")
_ENGINE_PATHS = ("requests_path", "results_path", "gguf")
_DEFAULTS: PlainMapping = {
    "warehouse": {"root": "var/warehouse"},
    "profiles": {"engine": DEFAULT_ENGINE},
    "embeddings": DEFAULT_ENCODER,
    "model": DEFAULT_MODEL,
}


def load_settings(
    config: Path | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Settings:
    """The settings of a run.

    Args:
        config: settings file; None takes semalign.toml of `directory` if there is one.
        overrides: `a.b=value` texts of --set; values are TOML, anything else is a string.
        environ: the environment; None reads this process's.
        directory: where the command was called; None is the working directory.

    Raises:
        SettingsFileError, UnknownSettingError, SettingValueError, SettingSyntaxError, SecretInSettingsError,
        UndefinedVariableError: all of them name the key and the cure.
    """
    environ = os.environ if environ is None else environ
    directory = (directory or Path.cwd()).absolute()
    path = _config_path(config, directory)
    home = path.parent if path else directory
    layers = [_with_paths(_DEFAULTS, home)]
    for file in [path, home / LOCAL_NAME]:
        if file and file.is_file():
            layers.append(_with_paths(_expanded(_read_toml(file), environ, str(file)), home))
    layers.append(_with_paths(_from_environment(environ), directory))
    layers.append(_with_paths(_expanded(_from_overrides(overrides), environ, "--set"), directory))
    tree: PlainMapping = {}
    for layer in layers:
        tree = merged(tree, layer)
    return validated(tree)


def validated(tree: Mapping[str, Any]) -> Settings:
    """Settings of a plain tree; every refusal names the path of the key."""
    for path in _secret_paths(tree, ()):
        raise SecretInSettingsError(path)
    for path, value in _numbers_that_are_none(tree, ()):
        raise SettingValueError(path, value, "expected a finite number")
    try:
        return _with_threads(Settings.model_validate(tree))
    except ValidationError as error:
        problem = error.errors()[0]
        location = [str(part) for part in problem["loc"]]
        if problem["type"] == "extra_forbidden":
            raise _unknown_setting(location) from None
        raise SettingValueError(".".join(location), problem["input"], problem["msg"]) from None


def merged(below: Mapping[str, Any], above: Mapping[str, Any], depth: int = 0) -> PlainMapping:
    """`above` laid over `below`, table by table; a table that changes its `name` replaces the one below instead.

    So `--set model.name=ease` gives the plain EASE, not EASE with the options of the model it replaces.
    """
    renamed = depth > 0 and "name" in above and "name" in below and above["name"] != below["name"]
    if renamed:
        return dict(above)
    result = dict(below)
    for key, value in above.items():
        lower = result.get(key)
        if isinstance(value, Mapping) and isinstance(lower, Mapping):
            result[key] = merged(lower, value, depth + 1)
        elif isinstance(value, str) and isinstance(lower, Mapping) and "name" in lower:
            result[key] = dict(lower) if lower["name"] == value else {"name": value}
        else:
            result[key] = value
    return result


def parse_value(text: str) -> object:
    """A value written on the command line or in the environment: TOML if it is, else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def nested(path: str, value: object) -> PlainMapping:
    """`a.b.c`, 1 → {a: {b: {c: 1}}}."""
    tree: Any = value
    for name in reversed(path.split(".")):
        tree = {name: tree}
    return tree


def known_settings() -> list[str]:
    """Every path of the tree, dotted."""
    return list(_paths_of(Settings, ()))


def _config_path(config: Path | None, directory: Path) -> Path | None:
    if config is None:
        found = directory / CONFIG_NAME
        return found if found.is_file() else None
    path = (directory / config).resolve()
    if path.is_dir():
        path = path / CONFIG_NAME
    if not path.is_file():
        raise SettingsFileError(str(path), "no such file")
    return path


def _read_toml(path: Path) -> PlainMapping:
    content = path.read_bytes()
    if len(content) > MAX_FILE_BYTES:
        raise SettingsFileError(str(path), f"{len(content)} bytes; expected at most {MAX_FILE_BYTES}")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise SettingsFileError(str(path), f"not UTF-8 at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsFileError(str(path), f"not TOML: {error}") from None


def _expanded(value: Any, environ: Mapping[str, str], origin: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _expanded(inner, environ, origin) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expanded(inner, environ, origin) for inner in value]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        found = environ.get(name) or default
        if found is None:
            raise UndefinedVariableError(name, origin)
        return found

    return _VARIABLE.sub(replacement, value)


def _with_paths(tree: Mapping[str, Any], home: Path) -> PlainMapping:
    from warehouse import is_query

    result = dict(tree)
    for path in _PATHS:
        branch_name, key = path.split(".")
        branch = result.get(branch_name)
        named = branch.get(key) if isinstance(branch, Mapping) else None
        if isinstance(branch, Mapping) and isinstance(named, str) and named and not is_query(named):
            result[branch_name] = {**branch, key: _absolute(named, home)}
    profiles = result.get("profiles")
    engine = profiles.get("engine") if isinstance(profiles, Mapping) else None
    if isinstance(profiles, Mapping) and isinstance(engine, Mapping):
        named = {key: _absolute(engine[key], home) for key in _ENGINE_PATHS if isinstance(engine.get(key), str)}
        result["profiles"] = {**profiles, "engine": {**engine, **named}}
    if "embeddings" in result:
        result["embeddings"] = _with_model(result["embeddings"], home)
    if isinstance(sets := result.get("encoders"), Mapping):
        result["encoders"] = {name: _with_model(encoder, home) for name, encoder in sets.items()}
    return result


def _with_model(encoder: Any, home: Path) -> Any:
    """An encoder's settings with the path of its model, where it is written as one, or of files of vectors."""
    if isinstance(encoder, Mapping) and encoder.get("name") == VECTORS:
        named = {key: value for key in PATHS if isinstance(value := encoder.get(key), str) and value != ROWS}
        return {**encoder, **{key: _absolute(value, home) for key, value in named.items()}}
    if isinstance(encoder, Mapping) and str(encoder.get("model", "")).startswith((".", "~")):
        return {**encoder, "model": _absolute(encoder["model"], home)}
    return encoder


def _absolute(path: str, home: Path) -> str:
    return os.path.normpath(home / os.path.expanduser(path))


def _from_environment(environ: Mapping[str, str]) -> PlainMapping:
    tree: PlainMapping = {}
    for key in sorted(environ):
        path = key.removeprefix(ENV_PREFIX).lower().replace("__", ".")
        # SEMALIGN_DATA and the like belong to whoever uses them in ${…}; a nested key is meant for this tree
        if key.startswith(ENV_PREFIX) and ("." in path or path == "name"):
            tree = merged(tree, nested(path, parse_value(environ[key])))
    return tree


def _from_overrides(overrides: Sequence[str]) -> PlainMapping:
    tree: PlainMapping = {}
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not all(path.strip().split(".")):
            raise SettingSyntaxError(text, "--set a.b=value")
        tree = merged(tree, nested(path.strip(), parse_value(value.strip())))
    return tree


def _secret_paths(tree: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[str]:
    for key, value in tree.items():
        path = (*above, str(key))
        if isinstance(value, Mapping):
            yield from _secret_paths(value, path)
        elif names_a_secret(str(key)) and isinstance(value, str):
            yield ".".join(path)


def _numbers_that_are_none(tree: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """(path, value) of every NaN and infinity, in the branches that other packages validate too."""
    for key, value in tree.items():
        path = (*above, str(key))
        if isinstance(value, Mapping):
            yield from _numbers_that_are_none(value, path)
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                yield ".".join(path), number


def _with_threads(settings: Settings) -> Settings:
    """The settings, their `training.threads` looked at: it never reaches the package that validates the rest."""
    threads = settings.training.get("threads")
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise SettingValueError("training.threads", threads, "expected a whole number from 1")
    return settings


def _unknown_setting(location: Sequence[str]) -> UnknownSettingError:
    *above, key = location
    branch: Any = Settings
    for name in above:
        branch = branch.model_fields[name].annotation
    known = sorted(branch.model_fields)
    prefix = "".join(f"{name}." for name in above)
    nearest = [prefix + name for name in difflib.get_close_matches(key, known, n=2, cutoff=0.6)]
    if not nearest:
        last_names = {path: path.rsplit(".", 1)[-1] for path in known_settings()}
        close = set(difflib.get_close_matches(key, sorted(set(last_names.values())), n=2, cutoff=0.8))
        nearest = [path for path, name in last_names.items() if name in close]
    return UnknownSettingError(".".join(location), nearest[:3], known)


def _paths_of(branch: type[BaseModel], above: tuple[str, ...]) -> Iterator[str]:
    for name, field in branch.model_fields.items():
        path = (*above, name)
        annotation = field.annotation
        if isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel):
            yield from _paths_of(annotation, path)
        else:
            yield ".".join(path)
