"""What a reply, or the lack of one, means: for its row, for the run, and for how fast to go on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal, TypeAlias

import httpx2

from providers.capped_http import CompressedReplyError, ReplyTooLargeError
from providers.envelope import BAD_ENVELOPE, Envelope, read_envelope

Kind: TypeAlias = Literal["answer", "content", "bad_envelope", "retry", "fatal_row", "fatal_run"]
"""What to do: take it, take it as a failure of the model, ask again at most twice, ask again after a pause, give the
row up, stop the run."""

QUOTA = "insufficient_quota"
LONGEST_WAIT_S = 600.0
_NO_MONEY = frozenset({QUOTA, "billing_hard_limit_reached", "billing_not_active", "quota_exceeded"})
_REFUSES_EVERYONE = frozenset({401, 403, 404})
_PASSING = frozenset({408, 409, 425, 429})
_OVERLOADED = frozenset({429, 503, 529})
_TOO_LARGE = "too large to process"  # llama.cpp says so of a text to embed, with status 500
_DETAIL_CHARS = 2_000
# the question never left: nobody can have been paid for it
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


@dataclass(frozen=True)
class Verdict:
    """The judgement of one attempt.

    Args:
        state: what the journal keeps; "sent" when nobody knows whether the call was paid.
        wait_s: how long the server asked everyone to stay away, at most 10 minutes.
        slow_down: the server has more calls than it likes.
        unsent: the call surely never reached the server.
        envelope: what a success said, whether or not it is of use.
    """

    kind: Kind
    state: Literal["ok", "retryable", "terminal", "sent"]
    code: str | None = None
    detail: str | None = None
    status: int | None = None
    wait_s: float | None = None
    slow_down: bool = False
    unsent: bool = False
    envelope: Envelope | None = None


def classify(
    status: int | None,
    headers: Mapping[str, str],
    body: bytes | Exception,
    *,
    now_s: float = 0.0,
    read: Callable[[bytes], Envelope] = read_envelope,
) -> Verdict:
    """The verdict on one attempt; no clock, no state, the same for the same arguments.

    Args:
        status: of the reply; None where none came.
        headers: of the reply, whatever their case.
        body: of the reply, or what was raised in its stead.
        now_s: seconds since 1970, for a Retry-After date in a reply that carries no date of its own.
        read: what a success says; of a chat reply where nothing else is named.
    """
    if isinstance(body, Exception):
        return _of_fault(status, body)
    if status is None:
        raise TypeError("a body without a status is no reply; hand over the exception that came in its stead")
    if 200 <= status < 300:
        return _of_envelope(status, read(body))
    named, message = _error_in(body)
    detail = f"{message}"[:_DETAIL_CHARS]
    code = f"http_{status}"
    if status == 402 or (status < 500 and named & _NO_MONEY):
        return Verdict("fatal_run", "terminal", QUOTA, detail, status)
    if status < 400 or status in _REFUSES_EVERYONE:  # a redirect is never followed
        return Verdict("fatal_run", "terminal", code, detail, status)
    if status in _PASSING or (status >= 500 and _TOO_LARGE not in detail):
        wait_s = retry_after_s(headers, now_s)
        return Verdict("retry", "retryable", code, detail, status, wait_s=wait_s, slow_down=status in _OVERLOADED)
    return Verdict("fatal_row", "terminal", code, detail, status)


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds to stay away: `retry-after-ms`, else `Retry-After` in seconds or as a date, at most 10 minutes."""
    named = {name.lower(): value.strip() for name, value in headers.items()}
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _number(named.get(name, ""))
        if seconds is not None:
            return _bounded(seconds * unit_s)
    until_s = _date_s(named.get("retry-after", ""))
    if until_s is None:
        return None
    sent_s = _date_s(named.get("date", ""))  # the server's own clock, where it tells it
    return _bounded(until_s - (now_s if sent_s is None else sent_s))


def _of_envelope(status: int, envelope: Envelope) -> Verdict:
    if envelope.error_code is None:
        return Verdict("answer", "ok", status=status, envelope=envelope)
    if envelope.error_code == BAD_ENVELOPE:
        return Verdict("bad_envelope", "retryable", BAD_ENVELOPE, envelope.detail, status, envelope=envelope)
    return Verdict("content", "terminal", envelope.error_code, envelope.detail, status, envelope=envelope)


def _of_fault(status: int | None, error: Exception) -> Verdict:
    detail = f"{type(error).__name__} {error}"  # whole: half a key would not be recognised as one
    if isinstance(error, ReplyTooLargeError):
        return Verdict("bad_envelope", "retryable", "too_large", detail, status)
    if isinstance(error, CompressedReplyError):
        return Verdict("bad_envelope", "retryable", "compressed_reply", detail, status)
    if isinstance(error, _UNSENT):
        return Verdict("retry", "retryable", "connection", detail, unsent=True)
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        return Verdict("retry", "sent", "deadline", detail)
    return Verdict("retry", "retryable", "connection", detail)


def _error_in(body: bytes) -> tuple[set[str], str]:
    """({code, type}, message) of an error body, whatever it is made of."""
    text = body[: 4 * _DETAIL_CHARS].decode("utf-8", "replace")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return set(), text
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        return set(), text
    named = {value for name in ("code", "type") if isinstance(value := error.get(name), str)}
    message = error.get("message")
    return named, message if isinstance(message, str) else text


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _date_s(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_WAIT_S)
