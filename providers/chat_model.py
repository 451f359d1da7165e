"""What every engine that asks a chat model shares: the request and its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from providers.completion import FieldText, Message, Request
from providers.hosted_server import HostedServer

TokenLimitField = Literal["max_tokens", "max_completion_tokens"]


class ChatModel(BaseModel):
    """A model's name and its sampling: all that decides a reply. Where and how it is asked decides nothing.

    Args:
        max_tokens: the longest reply.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Any  # each engine's own Literal; declared here so that it comes first wherever settings are listed
    model: str = Field(min_length=1)
    temperature: float | None = Field(default=0.2, ge=0, le=2)
    max_tokens: int = Field(default=700, gt=0)

    @property
    def source(self) -> str:
        return self.model

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling parameters, as they enter a request's key."""
        chosen = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return {name: value for name, value in chosen.items() if value is not None}

    def identity(self) -> dict[str, Any]:
        """The same for every engine that asks this model in this way: `name` is the protocol, not the engine.

        So profiles that one engine began are the profiles that another ends, and moving a model from one address, or
        from single calls to batches, makes nothing anew.
        """
        return {"name": "openai", "model": self.model, "sampling": self.sampling}

    def request(
        self,
        *,
        messages: tuple[Message, ...],
        schema: Mapping[str, Any],
        kind: str,
        entity_id: str,
        fields: tuple[FieldText, ...] = (),
    ) -> Request:
        return Request(self.model, messages, schema, self.sampling, kind, entity_id, fields)


class HostedModel(HostedServer, ChatModel):
    """A chat model behind an address.

    Args:
        token_limit_field: newer hosted models want "max_completion_tokens".
    """

    token_limit_field: TokenLimitField = "max_tokens"
