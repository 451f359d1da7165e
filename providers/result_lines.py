"""Result lines of batches, as OpenAI and `vllm run-batch` write them, read without trust."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from providers.completion import Outcome
from providers.envelope import Envelope, read_envelope
from providers.prices import Price
from providers.public_text import public_line

BAD_LINE = "bad_line"
NO_LINE = "no_line"
UNFINISHED = frozenset({"batch_expired", "batch_cancelled"})

_CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*"([0-9a-f]{64})"')


@dataclass(frozen=True)
class ResultLine:
    """What one line says of one request.

    Args:
        custom_id: None where the line does not say whose it is.
        body: the chat reply as JSON, when there is one.
        error: code, colon, one line of detail, when there is none.
        unfinished: the batch ended before this request's turn, so nothing was paid for it.
    """

    custom_id: str | None
    status: int | None = None
    body: bytes | None = None
    error: str | None = None
    unfinished: bool = False


def split_lines(chunks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """Lines at b"\\n" alone, without it; of a line longer than `max_bytes` only its start, which is no JSON."""
    rest, skipping = b"", False
    for chunk in chunks:
        *whole, rest_of_chunk = chunk.split(b"\n")
        for end in whole:
            if not skipping:
                yield (rest + end)[:max_bytes]
            rest, skipping = b"", False
        rest = rest if skipping else rest + rest_of_chunk
        if len(rest) > max_bytes and not skipping:
            yield rest[:max_bytes]
            rest, skipping = b"", True
    if rest and not skipping:
        yield rest[:max_bytes]


def read_result(line: bytes) -> ResultLine:
    """The line's result; never raises. A line that is no JSON still tells whose it is where its custom_id survived."""
    try:
        document = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return _bad(line, f"not JSON ({type(error).__name__})")
    if not isinstance(document, dict) or not isinstance(document.get("custom_id"), str):
        return _bad(line, "no object with a custom_id")
    response, error = document.get("response"), document.get("error")
    response = response if isinstance(response, dict) else {}
    status = response.get("status_code")
    status = status if isinstance(status, int) and not isinstance(status, bool) else None
    body = response.get("body")
    if isinstance(body, dict) and (status is None or status == 200) and not error:
        try:
            return ResultLine(document["custom_id"], status or 200, json.dumps(body, ensure_ascii=True).encode("ascii"))
        except (ValueError, RecursionError):
            return _bad(line, "the body cannot be written again")
    code, detail = _described(error or body, status)
    return ResultLine(document["custom_id"], status, None, f"{code}: {detail}", code in UNFINISHED)


def outcome_of(result: ResultLine, latency_ms: int, price: Price | None) -> tuple[Outcome, Envelope | None]:
    """The outcome of one attempt; an envelope where the line holds a body."""
    if result.body is None:
        passing = result.unfinished or result.status is None or result.status in (408, 409, 425, 429)
        passing = passing or (result.status or 0) >= 500
        # a line that says why there is no reply is not charged; one that cannot be read may be
        free = not (result.error or "").startswith((BAD_LINE, NO_LINE))
        state = "retryable" if passing else "terminal"
        nothing: dict[str, Any] = {"tokens_in": 0, "tokens_out": 0, "usd": 0.0} if free else {}
        return Outcome(state, latency_ms, result.status, result.error, **nothing), None
    envelope = read_envelope(result.body)
    counted = envelope.tokens_in is not None and envelope.tokens_out is not None
    usd = price.cost(envelope.tokens_in or 0, envelope.tokens_out or 0) if price is not None and counted else None
    error = None if envelope.error_code is None else f"{envelope.error_code}: {envelope.detail}"
    outcome = Outcome(
        state="ok" if error is None else ("terminal" if envelope.is_reply else "retryable"),
        latency_ms=latency_ms,
        status=200,
        error=error,
        tokens_in=envelope.tokens_in,
        tokens_out=envelope.tokens_out,
        usd=usd,
        model=envelope.model,
        body=result.body if envelope.is_reply else None,
        rejected=None if envelope.is_reply else result.body,
        finish_reason=envelope.finish_reason,
        usage=envelope.recorded_usage,
    )
    return outcome, envelope


def _bad(line: bytes, problem: str) -> ResultLine:
    named = set(_CUSTOM_ID.findall(line))
    custom_id = named.pop().decode("ascii") if len(named) == 1 else None
    return ResultLine(custom_id, error=f"{BAD_LINE}: {problem}")


def _described(error: Any, status: int | None) -> tuple[str, str]:
    """(code, detail) of an error in any of the shapes servers give it."""
    if isinstance(error, dict) and isinstance(error.get("error"), dict):
        error = error["error"]
    code = error.get("code") if isinstance(error, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    if status is not None and status != 200:
        name = f"http_{status}"
    else:
        name = code if isinstance(code, str) and re.fullmatch(r"[a-z0-9_]{1,40}", code) else "no_reply"
    said = message if isinstance(message, str) and message else "the line holds neither a reply nor an error"
    return name, public_line(said)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
