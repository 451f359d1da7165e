"""Completions from a GGUF file of the user's: llama.cpp inside this process, no server to start, nothing paid."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from providers.chat_model import ChatModel
from providers.completion import Completion, Journal, OnProgress, Request
from providers.errors import BadModelFileError, MissingExtraError
from providers.openai_chat import OpenAIConfig, OpenAIEngine
from providers.prices import Price

_MAGIC = b"GGUF"
_LOG_ERRORS = 1  # llama.cpp otherwise tells of every request on standard error


class LocalConfig(ChatModel):
    """Settings of a model file. Requests have the keys that `openai` gives them for a model of this name.

    Args:
        model: what the model is called in keys and profiles; another file under one name is taken for the same model.
        gguf: the file, in the format of llama.cpp.
        context: tokens of question and reply together, for each of `concurrency` requests at a time.
        threads: compute threads; all cores without it.
        gpu_layers: layers put on a GPU, where xllamacpp was built for one.
        deadline_s: the longest one request may take.
    """

    name: Literal["local"] = "local"
    gguf: Path
    context: int = Field(default=4096, ge=256)
    concurrency: int = Field(default=1, gt=0, le=64)
    threads: int | None = Field(default=None, gt=0)
    gpu_layers: int = Field(default=0, ge=0)
    deadline_s: float = Field(default=600, gt=0)

    @property
    def paid(self) -> bool:
        return False

    def known_price(self) -> Price | None:
        """None: a price is for what is paid."""
        return None

    def open(self) -> LocalEngine:
        """The engine; the model is loaded when the first request comes.

        Raises:
            BadModelFileError: there is no such file, or it is no GGUF.
            MissingExtraError: xllamacpp is not installed.
        """
        _check_gguf(self.gguf)
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingExtraError("xllamacpp", "local-llm")
        return LocalEngine(self)


class LocalEngine:
    """The `openai` engine over llama.cpp's server, which listens on loopback inside this process until closed."""

    def __init__(self, config: LocalConfig) -> None:
        self._config = config
        self._opened = ExitStack()
        self._engine: OpenAIEngine | None = None

    def complete(
        self, requests: Iterable[Request], journal: Journal | None = None, on_progress: OnProgress | None = None
    ) -> Iterator[Completion]:
        """One completion a request, in any order; replies keep to the schema, which llama.cpp enforces as a grammar.

        Raises:
            EngineStoppedError: at the end, after every reply was handed on.
        """
        if self._engine is None:
            base_url = self._opened.enter_context(_serving(self._config))
            self._engine = self._opened.enter_context(_asking(self._config, base_url))
        return self._engine.complete(requests, journal, on_progress)

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine = None
        self._opened.close()


def _asking(config: LocalConfig, base_url: str) -> OpenAIEngine:
    asked = OpenAIConfig(
        model=config.model,
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        base_url=base_url,
        concurrency=config.concurrency,
        deadline_s=config.deadline_s,
        api_key_env="SEMALIGN_LOCAL_ENGINE_HAS_NO_KEY",
    )
    return asked.open()


@contextmanager
def _serving(config: LocalConfig) -> Iterator[str]:
    import xllamacpp

    library: Any = xllamacpp  # a compiled module without types
    parameters = library.CommonParams()
    parameters.model.path = str(config.gguf)
    parameters.model_alias = {config.model}
    parameters.n_ctx = config.context * config.concurrency
    parameters.n_parallel = config.concurrency
    parameters.n_gpu_layers = config.gpu_layers
    threads = config.threads or os.cpu_count() or 1
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    parameters.warmup = False
    parameters.verbosity = _LOG_ERRORS
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    try:
        server = library.Server(parameters)
    except RuntimeError as error:
        raise BadModelFileError(config.gguf, f"llama.cpp cannot load it ({error})") from error
    try:
        yield f"{server.listening_address}/v1"
    finally:
        del server  # its end is the server's


def _check_gguf(path: Path) -> None:
    if not path.is_file():
        raise BadModelFileError(path, "no such file" if not path.exists() else "not a file")
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if start != _MAGIC:
        raise BadModelFileError(path, f"it begins with {start!r}")
