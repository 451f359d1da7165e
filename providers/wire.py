"""One request over HTTP and back as raw bytes. One attempt: who asks again is decided elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from providers.capped_http import capped_client
from providers.completion import Request
from providers.public_text import public_line
from providers.response_form import ResponseForm

if TYPE_CHECKING:
    from pydantic import SecretStr

    from providers.hosted_server import CalledServer

_ACCOUNT_HEADERS = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}


class Wire:
    """An open line to one server; must be used inside one event loop. `form` is how it asks for a reply's form."""

    def __init__(self, config: CalledServer, key: SecretStr) -> None:
        self.form: ResponseForm = "json_schema"
        self._config = config
        self._exchange = config.exchange
        self._key = key
        self._http = capped_client(
            max_bytes=config.max_bytes,
            connections=config.concurrency,
            timeout_s=config.deadline_s,
            secret=key.get_secret_value(),
        )
        account = {header: os.environ[name] for name, header in _ACCOUNT_HEADERS.items() if os.environ.get(name)}
        self._headers = {
            "Authorization": f"Bearer {key.get_secret_value()}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            **account,
        }

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, request: Request) -> tuple[int, Mapping[str, str], bytes]:
        """(status, headers, body) of whatever came, the key blotted out where a server echoes it.

        Raises:
            httpx2.HTTPError, OSError: no whole reply came.
        """
        url = f"{self._config.base_url}{self._exchange.path}"
        content = self._exchange.body(request, self.form)
        async with self._http.stream("POST", url, content=content, headers=self._headers) as response:
            return response.status_code, response.headers, await response.aread()

    def public(self, text: str) -> str:
        """One short line without the key, whatever a server echoed."""
        return public_line(text, self._key.get_secret_value())
