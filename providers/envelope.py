"""A chat reply's envelope, read without trust: text and counts, or the code of what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from providers.completion import Completion, Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BAD_ENVELOPE = "bad_envelope"
TRUNCATED = "truncated"
REFUSED = "refused"
FILTERED = "content_filter"
EMPTY = "empty_content"


@dataclass(frozen=True)
class Envelope:
    """What a body said: text or vectors. `is_reply` is false when it is no reply at all, so hardly paid for."""

    text: str | None = None
    error_code: str | None = None
    detail: str | None = None
    model: str | None = None
    finish_reason: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    usage: dict[str, Any] | None = None
    fingerprint: str | None = None
    vectors: NDArray[np.float32] | None = field(default=None, compare=False)

    @property
    def recorded_usage(self) -> str | None:
        """Canonical JSON of the server's own counts, with its system_fingerprint where it gave one."""
        told = {**(self.usage or {}), **({"system_fingerprint": self.fingerprint} if self.fingerprint else {})}
        return json.dumps(told, sort_keys=True) if told else None

    @property
    def is_reply(self) -> bool:
        return self.error_code != BAD_ENVELOPE


def completion_of(request: Request, envelope: Envelope) -> Completion:
    """What a reply out of the journal says to a request: no call was made for it."""
    return Completion(
        request,
        envelope.text,
        error_code=envelope.error_code,
        cached=True,
        detail=envelope.detail,
        answered_by=envelope.model,
        calls=0,
        vectors=envelope.vectors,
    )


def read_envelope(body: bytes) -> Envelope:
    """The first choice of a chat reply; never raises, whatever the bytes are."""
    try:
        document = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return Envelope(error_code=BAD_ENVELOPE, detail=f"not JSON ({type(error).__name__})")
    if not isinstance(document, dict):
        return Envelope(error_code=BAD_ENVELOPE, detail=f"a JSON {type(document).__name__} instead of an object")
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        what = "an error inside a reply of status 200" if document.get("error") else "no choices with a message"
        return Envelope(error_code=BAD_ENVELOPE, detail=what)
    return _read_choice(document, choice, message)


def stored_completion(request: Request, body: bytes) -> Completion:
    """The completion that a kept body gives, with the server's count of its tokens; no call was made for it."""
    envelope = read_envelope(body)
    completion = completion_of(request, envelope)
    return replace(completion, tokens_in=envelope.tokens_in, tokens_out=envelope.tokens_out)


def _read_choice(document: dict[str, Any], choice: dict[str, Any], message: dict[str, Any]) -> Envelope:
    usage = document.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    reason = choice.get("finish_reason")
    content = message.get("content")
    error_code, detail = _fault(reason, content, message.get("refusal"))
    model, fingerprint = document.get("model"), document.get("system_fingerprint")
    return Envelope(
        text=content if error_code is None else None,
        error_code=error_code,
        detail=detail,
        model=readable_name(model),
        finish_reason=readable_name(reason),
        tokens_in=known_count(usage.get("prompt_tokens")),
        tokens_out=known_count(usage.get("completion_tokens")),
        usage={name: count for name, value in sorted(usage.items()) if (count := known_count(value)) is not None}
        or None,
        fingerprint=fingerprint[:200] if isinstance(fingerprint, str) and _is_utf8(fingerprint) else None,
    )


def _fault(reason: object, content: object, refusal: object) -> tuple[str | None, str | None]:
    if refusal:
        return REFUSED, "the model refused"
    if reason == "content_filter":
        return FILTERED, "the server's content filter stopped the reply"
    if reason == "length":
        return TRUNCATED, "the reply hit the token limit (profiles.engine.max_tokens)"
    if not isinstance(content, str) or not content.strip():
        return EMPTY, "no content"
    if not _is_utf8(content):
        return EMPTY, "the content holds a lone surrogate, which is no text"
    return None, None


def readable_name(value: object) -> str | None:
    """What a reply gives as a name, None where it is no text."""
    return value if isinstance(value, str) and _is_utf8(value) else None


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def known_count(value: object) -> int | None:
    """A number of tokens, None where a server sent something else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
