"""What a kind of request is over the wire: where it goes, what it says, and how its reply is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol

from providers.chat_body import chat_body
from providers.completion import Request
from providers.envelope import Envelope, read_envelope
from providers.response_form import ResponseForm


class Exchange(Protocol):
    """All that the executor does not know of what it sends; no state, the same for the same arguments."""

    @property
    def path(self) -> str:
        """What follows the server's address."""
        ...

    @property
    def reply_tokens(self) -> int:
        """The longest reply that is paid for, of a request that does not say."""
        ...

    def body(self, request: Request, form: ResponseForm) -> bytes:
        """The JSON document that is sent."""
        ...

    def read(self, request: Request, body: bytes) -> Envelope:
        """What a reply of status 200 said; never raises, whatever the bytes are."""
        ...

    def divisible(self, request: Request) -> bool:
        """Whether a refused request may still be asked in parts, so that a refusal loses nothing yet."""
        ...


@dataclass(frozen=True)
class ChatExchange:
    """Chat completions."""

    token_limit_field: str = "max_tokens"
    reply_tokens: int = 0
    path: str = "/chat/completions"

    def body(self, request: Request, form: ResponseForm) -> bytes:
        body = chat_body(request, self.token_limit_field, form)
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()

    def read(self, request: Request, body: bytes) -> Envelope:
        return read_envelope(body)

    def divisible(self, request: Request) -> bool:
        return False
