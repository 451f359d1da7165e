"""What every engine that asks a chat model shares: the request, its key, and the checks before money is spent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from providers.completion import FieldText, Message, Request
from providers.errors import MissingCapError, MissingKeyError, UnknownPriceError, UnusableKeyError
from providers.prices import PRICES, Price, PriceOverride, price_of
from providers.spending import Cap

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


class HostedModel(ChatModel):
    """A chat model behind an address; its key comes from the environment only.

    Args:
        token_limit_field: newer hosted models want "max_completion_tokens".
        cap: what one run may spend.
        price: of an ordinary call; wins over the dated table.
    """

    base_url: str = "https://api.openai.com/v1"
    api_key_env: str = Field(default="OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    token_limit_field: TokenLimitField = "max_tokens"
    cap: Cap = Cap()
    price: PriceOverride | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_key_in_settings(cls, settings: Any) -> Any:
        if isinstance(settings, Mapping) and "api_key" in settings:
            raise ValueError("`api_key` is never read from settings; set the environment variable OPENAI_API_KEY")
        return settings

    @field_validator("base_url")
    @classmethod
    def _https_or_loopback(cls, base_url: str) -> str:
        url = urlsplit(base_url)
        if url.username or url.password or url.query or url.fragment or not url.hostname:
            raise ValueError("expected an address such as https://host/v1 without user, password, query or fragment")
        if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(url.hostname)):
            raise ValueError(f"expected https, or http on this machine only; got {url.scheme}://{url.hostname}")
        return base_url.rstrip("/")

    @property
    def paid(self) -> bool:
        return not _is_loopback(urlsplit(self.base_url).hostname or "")

    def known_price(self) -> Price | None:
        """The user's price; else, for a paid server, the listed one; else None, which is not 0."""
        return price_of(self.model, self.price) if self.paid or self.price else None

    def checked_key(self) -> SecretStr:
        """The key to send, once everything that money needs is there.

        Raises:
            MissingCapError: the server may cost money and nothing limits it.
            UnknownPriceError: the cap is in USD and the model has no price.
            MissingKeyError: a server away from this machine, and no key in the environment.
            UnusableKeyError: a key that no header can carry.
        """
        if self.paid and not self.cap.is_set:
            raise MissingCapError(self.model, self.base_url)
        if self.cap.usd is not None and self.known_price() is None:
            raise UnknownPriceError(self.model, tuple(listed.model for listed in PRICES))
        return self.key_of_environment()

    def key_of_environment(self) -> SecretStr:
        """The key alone, for calls that cost nothing.

        Raises:
            MissingKeyError, UnusableKeyError: as `checked_key`.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and self.paid:
            raise MissingKeyError(self.api_key_env, self.base_url)
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UnusableKeyError(self.api_key_env)
        return SecretStr(key or "not-needed")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
