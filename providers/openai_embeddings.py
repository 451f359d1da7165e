"""Unit vectors from any server of the OpenAI protocol, every call written down before and after."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from providers.completion import Message, OnProgress, canonical_json
from providers.embedding_calls import EmbeddingJournal, OpenAIEncoder, grouped, shown, text_hash
from providers.embedding_reply import INPUT, EmbeddingExchange, TextsRequest
from providers.encoding import EncoderIdentity
from providers.hosted_server import CalledServer
from providers.openai_chat import opened_engine
from providers.spending import worst_case

_WIDTHS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}


class OpenAIEmbeddingsConfig(CalledServer):
    """Settings of a server that embeds texts.

    Args:
        dimensions: a shorter vector, for models that give one; None is the model's own length.
        texts_per_call: at most, and never more than the API's 300,000 tokens together. A crash repeats at most the
            calls in flight, so this is also how much one of them is.
        max_tokens: longer texts are cut, at three bytes a token; None sends them whole, and what the server finds too
            long is put aside. Part of the key.
        price: needs no output_usd_per_million.
    """

    section: ClassVar[str] = "embeddings"

    name: Literal["openai"] = "openai"
    model: str = Field(default="text-embedding-3-small", min_length=1)
    dimensions: int | None = Field(default=None, gt=0)
    texts_per_call: int = Field(default=256, gt=0, le=2048)
    max_tokens: int | None = Field(default=None, gt=0)
    max_bytes: int = Field(default=64 * 1024 * 1024, gt=0)

    @field_validator("price", mode="before")
    @classmethod
    def _no_tokens_out(cls, price: Any) -> Any:
        return {"output_usd_per_million": 0.0, **price} if isinstance(price, Mapping) else price

    @property
    def exchange(self) -> EmbeddingExchange:
        return EmbeddingExchange(self.dim)

    @property
    def short_name(self) -> str:
        """An identifier such as `text_embedding_3_small_256`, from the model's name and the dimensions asked for."""
        ending = "" if self.dimensions is None else f"_{self.dimensions}"
        name = re.sub(r"[^a-z0-9]+", "_", self.model.rsplit("/", 1)[-1].lower()).strip("_") or "model"
        return (name if name[0].isalpha() else f"m_{name}")[: 48 - len(ending)] + ending

    @property
    def dim(self) -> int | None:
        """Numbers in a vector, where they are known before the first reply."""
        return self.dimensions or _WIDTHS.get(self.model)

    def identity(self) -> str:
        """The encoder's key; address, key, caps and speed are no part of it."""
        told = {"series": self.series, "max_tokens": self.max_tokens, "normalised": True}
        return hashlib.sha256(canonical_json(told)).hexdigest()

    @property
    def series(self) -> str:
        """Which vectors a text as it is sent can have: what was paid for stays of use when `max_tokens` changes."""
        told = {"protocol": "openai embeddings", "model": self.model, "dimensions": self.dimensions}
        return hashlib.sha256(canonical_json(told)).hexdigest()

    def describe(self) -> EncoderIdentity:
        """Everything known about the vectors before anything is asked; no network."""
        return EncoderIdentity(self.identity(), self.short_name, self.dim, self.model, "float32")

    def hashes(self, texts: Iterable[str]) -> list[str]:
        """What each text, as it is sent, is found under among the replies of this `series`."""
        return [text_hash(shown(text, self.max_tokens)) for text in texts]

    def forecast(self, texts: Sequence[str]) -> tuple[int, int]:
        """(calls, tokens) that these texts take when nothing fails; tokens as worst cases are booked."""
        sent = [shown(text, self.max_tokens) for text in texts]
        groups = grouped(range(len(sent)), sent, self.texts_per_call)
        booked = [worst_case(self.request([sent[row] for row in group]), 0, None).tokens for group in groups]
        return len(groups), sum(booked)

    def request(self, texts: Sequence[str], rows: Sequence[int] = (), attempt_class: str = "first") -> TextsRequest:
        """The request of some texts; its key is made of model, dimensions, texts and the class of the attempt."""
        messages: tuple[Message, ...] = tuple((INPUT, text) for text in texts)
        sampling = {} if self.dimensions is None else {"dimensions": self.dimensions}
        about = f"{len(texts)} texts"
        return TextsRequest(self.model, messages, {}, sampling, "texts", about, (), attempt_class, tuple(rows))

    def open(
        self, journal: EmbeddingJournal, on_progress: OnProgress | None = None, width: int | None = None
    ) -> OpenAIEncoder:
        """The encoder with a fresh budget: open it once a run, as a context manager, so that calls in flight are kept.

        Args:
            width: of the vectors that are there already, to which new ones have to fit.

        Raises:
            MissingCapError, UnknownPriceError, MissingKeyError, UnusableKeyError: see `checked_key`.
        """
        return OpenAIEncoder(self, opened_engine(self), journal, on_progress, width)
