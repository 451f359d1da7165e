"""What every server behind an address shares: the checks before money is spent, and how patiently it is called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from providers.errors import MissingCapError, MissingKeyError, UnknownPriceError, UnusableKeyError
from providers.pacing import Limits
from providers.prices import PRICES, Price, PriceOverride, price_of
from providers.spending import Cap

if TYPE_CHECKING:
    from providers.exchange import Exchange


class HostedServer(BaseModel):
    """A model behind an address; its key comes from the environment only.

    Args:
        cap: what one run may spend.
        price: of an ordinary call; wins over the dated table.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    section: ClassVar[str] = "profiles.engine"  # where these settings stand, as errors name it

    model: str = Field(min_length=1)
    base_url: str = "https://api.openai.com/v1"
    api_key_env: str = Field(default="OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
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
            raise MissingCapError(self.model, self.base_url, self.section)
        if self.cap.usd is not None and self.known_price() is None:
            raise UnknownPriceError(self.model, tuple(listed.model for listed in PRICES), self.section)
        return self.key_of_environment()

    def key_of_environment(self) -> SecretStr:
        """The key alone, for calls that cost nothing.

        Raises:
            MissingKeyError, UnusableKeyError: as `checked_key`.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and self.paid:
            raise MissingKeyError(self.api_key_env, self.base_url, self.section)
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UnusableKeyError(self.api_key_env)
        return SecretStr(key or "not-needed")


class CalledServer(HostedServer):
    """A server that is asked one request a call, each call made and settled by the executor.

    Args:
        concurrency: calls in flight at most; fewer while the server says that it has too many.
        deadline_s: for one call from the first byte sent to the last received.
        max_attempts: how often a request is sent in one run when faults of the network or the server eat the reply.
        max_attempts_ever: the same in all runs together, counted from the ledger, so that no unlucky request is sent
            again by every run for ever; it then ends as `exhausted`, with a detail that names this setting.
        backoff_s: the longest first pause before a request is sent again; it doubles each time, to 30 s.
        drain_s: how long calls in flight are waited for when a run is stopped from outside; what comes in this time is
            kept. A run that stops by itself, at a cap or a quota, waits for them as long as `deadline_s` allows.
        max_bytes: the longest body that is read.
    """

    concurrency: int = Field(default=16, gt=0, le=1024)
    deadline_s: float = Field(default=120, gt=0)
    max_attempts: int = Field(default=5, gt=0, le=100)
    max_attempts_ever: int = Field(default=10, gt=0)
    backoff_s: float = Field(default=0.5, ge=0, le=30)
    drain_s: float = Field(default=10, ge=0)
    limits: Limits = Limits()
    max_bytes: int = Field(default=4 * 1024 * 1024, gt=0)

    @property
    def exchange(self) -> Exchange:
        """What is sent to this server, and how its replies are read."""
        raise NotImplementedError


@lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
