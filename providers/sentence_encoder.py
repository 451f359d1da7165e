"""Unit vectors from a local sentence-transformers model, whose every byte is part of the key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from providers.completion import canonical_json
from providers.encoding import EncoderIdentity, OnEncoded
from providers.errors import BadVectorError, EmptyTextError, UnsafeModelError
from providers.model_directory import check_model_directory, check_pinned, find_model, hash_model, read_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

_LENGTH_TOLERANCE = 1e-3
_CPU_BATCH, _GPU_BATCH = 8, 256  # small batches waste less padding on a CPU: 64-68 texts/s at 8, 41-46 at 128
_BATCHES_A_CALL = 16


@dataclass(frozen=True)
class LocalIdentity(EncoderIdentity):
    """The same with the directory the model lies in."""

    path: Path


class SentenceEncoderConfig(BaseModel):
    """Settings of a sentence-transformers encoder.

    Args:
        model: a directory, the name of an installed model package, or a name on the hub.
        dtype: of the weights; "auto" is float32. Vectors are float32 in every case.
        batch_size: None chooses by device; device and batch change speed only and are no part of the key.
        max_tokens: reads fewer tokens of a text than the model could; None leaves it to the model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["sentence-transformers"] = "sentence-transformers"
    model: str = Field(default="all-MiniLM-L6-v2", min_length=1)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    batch_size: int | None = Field(default=None, gt=0)
    max_tokens: int | None = Field(default=None, gt=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def short_name(self) -> str:
        """An identifier such as `all_minilm_l6_v2`, from the last part of the model's name."""
        last = Path(self.model).name if self.model.strip("/.") else "model"
        name = re.sub(r"[^a-z0-9]+", "_", last.lower()).strip("_")[:48] or "model"
        return name if name[0].isalpha() else f"m_{name}"[:48]

    @property
    def dim(self) -> int | None:
        """Numbers in a vector, as the model's directory declares; None when it does not."""
        directory = find_model(self.model)
        return _declared_dim(directory)

    def identity(self) -> str:
        """The encoder's key, without loading the model or importing torch."""
        return self.describe().key

    def describe(self, *, download: bool = True) -> LocalIdentity:
        """Everything known about the vectors before a model is loaded; hashes every model file (0.2 s for 90 MB).

        Raises:
            ModelNotFoundError, UnsafeModelError, ModelFileError
        """
        directory = find_model(self.model, download=download)
        check_model_directory(directory)
        hashes = hash_model(directory)
        check_pinned(self.model, directory, hashes)
        dtype = "float32" if self.dtype == "auto" else self.dtype
        told = {"files": hashes, "dtype": dtype, "max_tokens": self.max_tokens, "normalised": True}
        key = hashlib.sha256(canonical_json(told)).hexdigest()
        return LocalIdentity(key, self.short_name, _declared_dim(directory), self.model, dtype, directory)

    def open(self) -> SentenceEncoder:
        """The loaded encoder; its directory is checked before anything is imported.

        Raises:
            ModelNotFoundError, UnsafeModelError, ModelFileError
        """
        identity = self.describe()
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as loading

        device = self.device if self.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        bars_were_on = loading.is_progress_bar_enabled()
        loading.disable_progress_bar()  # the run has its own progress line
        try:
            model = SentenceTransformer(
                str(identity.path),
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"dtype": getattr(torch, identity.dtype), "use_safetensors": True},
            )
        finally:
            if bars_were_on:
                loading.enable_progress_bar()
        model.eval()
        if self.max_tokens is not None:
            model.max_seq_length = min(self.max_tokens, model.max_seq_length or self.max_tokens)
        batch_size = self.batch_size or (_CPU_BATCH if device == "cpu" else _GPU_BATCH)
        return SentenceEncoder(identity, model, batch_size)


class SentenceEncoder:
    """A loaded model; equal texts are encoded once, longer ones first."""

    def __init__(self, identity: LocalIdentity, model: SentenceTransformer, batch_size: int) -> None:
        dim = model.get_embedding_dimension()
        if dim is None:
            raise UnsafeModelError(identity.path, "modules.json", "its modules do not say how wide a vector is")
        self.identity = identity
        self.dim: int = dim
        self._model = model
        self._batch_size = batch_size

    @property
    def key(self) -> str:
        return self.identity.key

    @property
    def short_name(self) -> str:
        return self.identity.short_name

    def encode(self, texts: Sequence[str], on_progress: OnEncoded | None = None) -> NDArray[np.float32]:
        """float32 [n, dim], every row finite and of length 1 within 1e-3.

        Raises:
            EmptyTextError: a text has no visible character.
            BadVectorError: some texts give no usable vector, even alone.
        """
        import numpy as np

        for index, text in enumerate(texts):
            if not text.strip():
                raise EmptyTextError(index)
        distinct = sorted(set(texts), key=lambda text: (-len(text), text))
        row_of = {text: row for row, text in enumerate(distinct)}
        vectors = np.empty((len(distinct), self.dim), dtype=np.float32)
        step = self._batch_size * _BATCHES_A_CALL
        for start in range(0, len(distinct), step):
            batch = distinct[start : start + step]
            vectors[start : start + len(batch)] = self._encode_checked(batch)
            if on_progress is not None:
                on_progress(start + len(batch), len(distinct))
        rows = np.fromiter((row_of[text] for text in texts), dtype=np.int64, count=len(texts))
        bad = _unusable(vectors)
        if bad.any():
            raise BadVectorError(self.short_name, tuple(int(index) for index in np.flatnonzero(bad[rows])))
        return vectors[rows]

    def _encode_checked(self, batch: list[str]) -> NDArray[np.float32]:
        """Normalised vectors; rows that came out unusable were tried again alone."""
        vectors = self._encode_raw(batch, self._batch_size)
        for row in _unusable(vectors).nonzero()[0]:
            vectors[row] = self._encode_raw([batch[row]], 1)[0]
        return vectors

    def _encode_raw(self, batch: list[str], batch_size: int) -> NDArray[np.float32]:
        import numpy as np

        raw = self._model.encode(batch, batch_size=batch_size, convert_to_numpy=True, show_progress_bar=False)
        vectors = np.array(raw, dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return vectors / lengths


def _unusable(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=1)
    return ~(np.abs(lengths - 1) <= _LENGTH_TOLERANCE)  # a NaN compares false, so it is unusable too


def _declared_dim(directory: Path) -> int | None:
    """From the last module that says how wide its output is."""
    modules = read_json(directory, "modules.json")
    declared = None
    for module in modules:
        name = f"{module.get('path', '')}/config.json".lstrip("/")
        if not (directory / name).is_file():
            continue
        config = read_json(directory, name)
        if isinstance(config, dict):
            declared = _output_width(config) or declared
    return declared


def _output_width(config: dict[str, object]) -> int | None:
    for key in ("out_features", "word_embedding_dimension", "hidden_size"):
        width = config.get(key)
        if isinstance(width, int):
            return width
    return None
