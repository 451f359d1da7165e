"""Unit vectors from a local sentence-transformers model, whose every byte is part of the key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from providers.completion import canonical_json
from providers.encoding import EncoderIdentity, OnEncoded
from providers.errors import (
    BadSettingError,
    BadVectorError,
    EmptyTextError,
    EncoderMemoryError,
    UnsafeModelError,
)
from providers.model_directory import check_model_directory, check_pinned, find_model, hash_model, read_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

_LENGTH_TOLERANCE = 1e-3
# A batch is as many texts as have so many tokens together, padding included. On a CPU a few long texts or many short
# ones fill the caches equally well (texts/s on one core, float32: 54 at 256 tokens, 59 at 1,024, 56 at 2,048).
_CPU_TOKENS, _GPU_TOKENS = 1_024, 65_536
_LETTERS_A_TOKEN = 4  # of models whose tokenizer cannot be asked


@dataclass(frozen=True)
class LocalIdentity(EncoderIdentity):
    """The same with the directory the model lies in."""

    path: Path


class SentenceEncoderConfig(BaseModel):
    """Settings of a sentence-transformers encoder.

    Args:
        model: a directory, the name of an installed model package, or a name on the hub.
        dtype: of the weights; "auto" is float32, on every machine, so that the same settings are the same vectors
            everywhere. bfloat16 is about 1.7 times as fast where the device multiplies it; float16 wants a GPU.
            Vectors are float32 in every case.
        dim: keeps the first so many numbers of a vector, at length 1 again, for models trained to be cut (Matryoshka);
            None keeps all.
        batch_size: texts at a time; None fills batches by tokens. Device and batch change speed only and are no part
            of the key.
        max_tokens: reads fewer tokens of a text than the model could; None leaves it to the model.
        device: "auto" takes the GPUs that are there, all of them; else the CPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["sentence-transformers"] = "sentence-transformers"
    model: str = Field(default="all-MiniLM-L6-v2", min_length=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    dim: int | None = Field(default=None, gt=0)
    batch_size: int | None = Field(default=None, gt=0)
    max_tokens: int | None = Field(default=None, gt=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def short_name(self) -> str:
        """An identifier such as `all_minilm_l6_v2`, from the last part of the model's name."""
        last = Path(self.model).name if self.model.strip("/.") else "model"
        name = re.sub(r"[^a-z0-9]+", "_", last.lower()).strip("_")[:48] or "model"
        return name if name[0].isalpha() else f"m_{name}"[:48]

    def identity(self) -> str:
        """The encoder's key, without loading the model or importing torch."""
        return self.describe().key

    def describe(self, *, download: bool = True) -> LocalIdentity:
        """Everything known about the vectors before a model is loaded; hashes every model file (0.2 s for 90 MB).

        Raises:
            ModelNotFoundError, UnsafeModelError, ModelFileError
            BadSettingError: the model has fewer numbers than `dim`, or the device cannot work in `dtype`.
        """
        if self.dtype == "float16" and self._device() == "cpu":
            raise self._refused("dtype", 'float16 wants a GPU; a CPU takes "bfloat16" or "float32"')
        directory = find_model(self.model, download=download)
        check_model_directory(directory)
        hashes = hash_model(directory)
        check_pinned(self.model, directory, hashes)
        dtype = "float32" if self.dtype == "auto" else self.dtype
        told: dict[str, Any] = {"files": hashes, "dtype": dtype, "max_tokens": self.max_tokens, "normalised": True}
        whole = _declared_dim(directory)
        dim = self._truncated(whole)
        if dim != whole:
            told["dim"] = dim
        key = hashlib.sha256(canonical_json(told)).hexdigest()
        return LocalIdentity(key, self.short_name, dim, self.model, dtype, directory)

    def open(self) -> SentenceEncoder:
        """The loaded encoder; its directory is checked before anything is imported.

        Raises:
            ModelNotFoundError, UnsafeModelError, ModelFileError, BadSettingError
        """
        identity = self.describe()
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as loading

        device = self._device()
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
        if (whole := model.get_embedding_dimension()) is None:
            raise UnsafeModelError(identity.path, "modules.json", "its modules do not say how wide a vector is")
        n_gpus = torch.cuda.device_count() if device == "cuda" else 0
        return SentenceEncoder(
            identity,
            model,
            self.batch_size,
            dim=self._truncated(whole),
            batch_tokens=_GPU_TOKENS * n_gpus or _CPU_TOKENS,
            pool=model.start_multi_process_pool() if n_gpus > 1 else None,
        )

    def _device(self) -> str:
        if self.device != "auto":
            return self.device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    def _truncated(self, whole: int | None) -> int | None:
        if self.dim is not None and whole is not None and self.dim > whole:
            raise self._refused("dim", f"the vectors of {self.model} have {whole} numbers (got {self.dim})")
        return self.dim or whole

    def _refused(self, setting: str, problem: str) -> BadSettingError:
        return BadSettingError(f"encoder `{self.name}`", setting, problem)


class SentenceEncoder:
    """A loaded model; equal texts are encoded once, those with more tokens first.

    Args:
        batch_size: texts at a time; None takes as many as have `batch_tokens` tokens with their padding.
        dim: numbers kept of each vector; None for all.
        pool: worker processes of sentence-transformers, one a GPU; stopped when the block ends.
    """

    def __init__(
        self,
        identity: EncoderIdentity,
        model: SentenceTransformer,
        batch_size: int | None = None,
        *,
        dim: int | None = None,
        batch_tokens: int = _CPU_TOKENS,
        pool: dict[Any, Any] | None = None,
    ) -> None:
        self.identity = identity
        self.dim: int = dim or model.get_embedding_dimension() or 0
        self._model = model
        self._most_texts = batch_size
        self._most_tokens = None if batch_size else batch_tokens
        self._pool = pool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._model.stop_multi_process_pool(self._pool)
            self._pool = None

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
            EncoderMemoryError: a single text does not fit into the device's memory.
        """
        import numpy as np

        for index, text in enumerate(texts):
            if not text.strip():
                raise EmptyTextError(index)
        distinct = list(dict.fromkeys(texts))
        n_tokens = self._count_tokens(distinct)
        order = sorted(range(len(distinct)), key=lambda place: (-n_tokens[place], distinct[place]))
        vectors = np.empty((len(distinct), self.dim), dtype=np.float32)
        done = 0
        while done < len(order):
            longest = n_tokens[order[done]]
            batch = [distinct[place] for place in order[done : done + self._fitting(longest)]]
            encoded = self._encode_fitting(batch, longest)
            vectors[order[done : done + len(encoded)]] = encoded
            done += len(encoded)
            if on_progress is not None:
                on_progress(done, len(order))
        row_of = {text: row for row, text in enumerate(distinct)}
        rows = np.fromiter((row_of[text] for text in texts), dtype=np.int64, count=len(texts))
        bad = _unusable(vectors)
        if bad.any():
            raise BadVectorError(self.short_name, tuple(int(index) for index in np.flatnonzero(bad[rows])))
        return vectors[rows]

    def _count_tokens(self, texts: list[str]) -> list[int]:
        """Tokens of each text as the model cuts it: batches of equal length carry no padding."""
        from transformers import PreTrainedTokenizerBase

        tokenizer = getattr(self._model, "tokenizer", None)
        if not texts or not isinstance(tokenizer, PreTrainedTokenizerBase):
            return [len(text) // _LETTERS_A_TOKEN + 1 for text in texts]
        most = self._model.max_seq_length
        cut = {"truncation": True, "max_length": most} if most else {}
        return [len(ids) for ids in tokenizer(texts, return_attention_mask=False, verbose=False, **cut)["input_ids"]]

    def _fitting(self, longest: int) -> int:
        by_tokens = max(1, self._most_tokens // longest) if self._most_tokens else None
        return min(most for most in (self._most_texts, by_tokens) if most)

    def _encode_fitting(self, batch: list[str], longest: int) -> NDArray[np.float32]:
        """Vectors of the first texts of a batch, of as many as fit into memory; that number is remembered."""
        while True:
            try:
                return self._encode_checked(batch)
            except (MemoryError, RuntimeError) as error:
                if not _lacks_memory(error):
                    raise
                if len(batch) == 1:
                    device = str(getattr(self._model, "device", "this machine"))
                    raise EncoderMemoryError(self.short_name, device, longest) from error
                self._most_texts = len(batch) // 2
                batch = batch[: self._most_texts]
            _give_back_memory()  # only here: the error above held on to the tensors of the batch

    def _encode_checked(self, batch: list[str]) -> NDArray[np.float32]:
        """Normalised vectors; rows that came out unusable were tried again alone."""
        vectors = self._encode_raw(batch)
        for row in _unusable(vectors).nonzero()[0]:
            vectors[row] = self._encode_raw([batch[row]])[0]
        return vectors

    def _encode_raw(self, batch: list[str]) -> NDArray[np.float32]:
        import numpy as np

        shared: dict[str, Any] = {} if self._pool is None else {"pool": self._pool}
        raw = self._model.encode(batch, batch_size=len(batch), convert_to_numpy=True, show_progress_bar=False, **shared)
        vectors = np.array(raw[:, : self.dim], dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return vectors / lengths


def _lacks_memory(error: Exception) -> bool:
    """torch says it in the words of whoever refused: CUDA, its own CPU allocator, the system's."""
    words = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(said in str(error).lower() for said in words)


def _give_back_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
