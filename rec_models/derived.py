"""Arrays that are dear to make and follow from others, such as neighbour graphs: kept by what they were made of."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

_HASH_BYTES = 32


@dataclass(frozen=True)
class DerivedArrays:
    """Arrays in one folder, shared by every training process; without a folder each is made when it is asked for."""

    folder: Path | None = None

    def get(
        self, what: str, of: Sequence[Tensor], options: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """What `make` gives, from the folder where it was made before of the same numbers under the same options.

        Args:
            what: names the computation and its version, such as `item_knn 1`; change it with the code.
            of: all numbers that the arrays depend on; hashing them must be cheap beside making the arrays.
            options: everything else, as JSON.
            make: dense tensors.
        """
        if self.folder is None:
            return dict(make())
        asked = hashlib.sha256(json.dumps([what, dict(options)], sort_keys=True).encode())
        for tensor in of:
            asked.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            asked.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        path = self.folder / f"{asked.hexdigest()[:40]}.safetensors"
        if (kept := _read(path)) is not None:
            return kept
        made = dict(make())
        _write(path, made)
        return made


def _read(path: Path) -> dict[str, Tensor] | None:
    """None for what is not there or is not what was written, which the hash before it tells."""
    try:
        stored = path.read_bytes()
        os.utime(path)  # what nobody asks for is collected
    except OSError:
        return None
    own, content = stored[:_HASH_BYTES], stored[_HASH_BYTES:]
    return load(content) if hashlib.sha256(content).digest() == own else None


def _write(path: Path, made: Mapping[str, Tensor]) -> None:
    """Whole or not at all. A folder that cannot be written costs time and no result."""
    content = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in made.items()})
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as stream:
            partial = stream.name
            stream.write(hashlib.sha256(content).digest())
            stream.write(content)
        os.replace(partial, path)
    except OSError:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
