"""Checkpoints: safetensors and JSON only, written whole or not at all, checked before they are loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from rec_models.bundle import sha256_of
from rec_models.errors import BundleError, ForeignCheckpointError, UntrustedBytesError


def write_atomically(path: Path, write: Any) -> None:
    """Calls `write(temporary path)` and moves the result to `path`, durably: readers see the old file or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, content: Any) -> None:
    """JSON at `path`, atomically."""
    write_atomically(
        path, lambda temporary: temporary.write_text(json.dumps(content, indent=1, sort_keys=True), "utf-8")
    )


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Tensors and what they belong to, in one safetensors file, atomically."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"about": json.dumps(about, sort_keys=True)}
    write_atomically(path, lambda temporary: save_file(contiguous, temporary, metadata=header))


def load_tensors(
    path: Path, belongs_to: Mapping[str, Any], device: str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a file that `save_tensors` wrote, and all it says about itself.

    Args:
        belongs_to: facts (such as the hash of the bundle's settings) that must match those in the file.

    Raises:
        BundleError: the file is missing or cut short.
        ForeignCheckpointError: the file belongs to something else.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            about = json.loads((stream.metadata() or {}).get("about", "{}"))
        tensors = load_file(path, device=device)
    except (FileNotFoundError, SafetensorError, json.JSONDecodeError) as error:
        raise BundleError(str(path.parent.parent), f"{path.name} cannot be read: {error}") from error
    for what, expected in belongs_to.items():
        if about.get(what) != expected:
            raise ForeignCheckpointError(str(path), what, about.get(what), expected)
    return tensors, about


def seal(checkpoint: Path) -> None:
    """Writes sha256.json over every other file of a checkpoint directory."""
    sums = {path.name: sha256_of(path) for path in sorted(checkpoint.iterdir()) if path.name != "sha256.json"}
    write_json(checkpoint / "sha256.json", sums)


def verify(checkpoint: Path) -> None:
    """Checks a sealed checkpoint's bytes.

    Raises:
        BundleError: it was never sealed, or a file is missing.
        UntrustedBytesError: a file changed.
    """
    recorded = checkpoint / "sha256.json"
    if not recorded.is_file():
        raise BundleError(str(checkpoint.parent), "checkpoint/sha256.json is missing: training has not finished")
    for name, expected in json.loads(recorded.read_text("utf-8")).items():
        if not (checkpoint / name).is_file():
            raise BundleError(str(checkpoint.parent), f"checkpoint/{name} is missing")
        got = sha256_of(checkpoint / name)
        if got != expected:
            raise UntrustedBytesError(str(checkpoint / name), got, expected)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as flat named tensors."""
    flat = {}
    for position, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            flat[f"{position}.{name}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return flat


def restore_optimiser(optimiser: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    """Puts back what `optimiser_tensors` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        position, _, field = name.partition(".")
        state.setdefault(int(position), {})[field] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
