"""Every line of the table of verdicts, and the proof that no branch of the judge is without a line."""

from __future__ import annotations

import json
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest
from branches import Branches
from hypothesis import given
from hypothesis import strategies as st
from servers.counting import chat, failure

from providers import classify as module
from providers.capped_http import CompressedReplyError, ReplyTooLargeError
from providers.classify import LONGEST_WAIT_S, Verdict, classify, retry_after_s

NOW_S = 1_760_000_000.0


def date(offset_s: float) -> str:
    from datetime import UTC, datetime

    return format_datetime(datetime.fromtimestamp(NOW_S + offset_s, UTC), usegmt=True)


def error(code: str | None = None, kind: str | None = None, message: Any = "no") -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "code": code}}).encode()


# status, headers, body → kind, state, code
TABLE: list[tuple[int | None, dict[str, str], bytes | Exception, tuple[str, str, str | None]]] = [
    (200, {}, chat().body, ("answer", "ok", None)),
    (201, {}, chat().body, ("answer", "ok", None)),
    (200, {}, chat(finish_reason="length").body, ("content", "terminal", "truncated")),
    (200, {}, chat(finish_reason="content_filter").body, ("content", "terminal", "content_filter")),
    (200, {}, chat(refusal="no").body, ("content", "terminal", "refused")),
    (200, {}, chat("  ").body, ("content", "terminal", "empty_content")),
    (200, {}, b"<html>", ("bad_envelope", "retryable", "bad_envelope")),
    (200, {}, b"{}", ("bad_envelope", "retryable", "bad_envelope")),
    (200, {}, error(), ("bad_envelope", "retryable", "bad_envelope")),
    (204, {}, b"", ("bad_envelope", "retryable", "bad_envelope")),
    (None, {}, ReplyTooLargeError("big"), ("bad_envelope", "retryable", "too_large")),
    (None, {}, CompressedReplyError("gzip"), ("bad_envelope", "retryable", "compressed_reply")),
    (429, {}, failure(429).body, ("retry", "retryable", "http_429")),
    (429, {}, error("insufficient_quota"), ("fatal_run", "terminal", "insufficient_quota")),
    (429, {}, error(kind="insufficient_quota"), ("fatal_run", "terminal", "insufficient_quota")),
    (400, {}, error("billing_hard_limit_reached"), ("fatal_run", "terminal", "insufficient_quota")),
    (500, {}, error("insufficient_quota"), ("retry", "retryable", "http_500")),
    (500, {}, error(message="input (900 tokens) is too large to process"), ("fatal_row", "terminal", "http_500")),
    (402, {}, b"", ("fatal_run", "terminal", "insufficient_quota")),
    (401, {}, error("invalid_api_key"), ("fatal_run", "terminal", "http_401")),
    (403, {}, error(), ("fatal_run", "terminal", "http_403")),
    (404, {}, error("model_not_found"), ("fatal_run", "terminal", "http_404")),
    (302, {"location": "https://elsewhere"}, b"", ("fatal_run", "terminal", "http_302")),
    (101, {"upgrade": "h2c"}, b"", ("fatal_run", "terminal", "http_101")),
    (400, {}, error(), ("fatal_row", "terminal", "http_400")),
    (413, {}, b"too long", ("fatal_row", "terminal", "http_413")),
    (422, {}, b"[]", ("fatal_row", "terminal", "http_422")),
    (418, {}, b'{"error": "a text"}', ("fatal_row", "terminal", "http_418")),
    (422, {}, error(message=[1]), ("fatal_row", "terminal", "http_422")),
    (408, {}, b"", ("retry", "retryable", "http_408")),
    (409, {}, b"\xff", ("retry", "retryable", "http_409")),
    (425, {}, b"", ("retry", "retryable", "http_425")),
    (500, {}, b"[" * 100_000, ("retry", "retryable", "http_500")),
    (503, {}, b"", ("retry", "retryable", "http_503")),
    (529, {}, b"", ("retry", "retryable", "http_529")),
    (None, {}, TimeoutError(), ("retry", "sent", "deadline")),
    (None, {}, httpx2.ReadTimeout("slow"), ("retry", "sent", "deadline")),
    (None, {}, httpx2.ConnectTimeout("slow"), ("retry", "retryable", "connection")),
    (None, {}, httpx2.ConnectError("refused"), ("retry", "retryable", "connection")),
    (None, {}, httpx2.ReadError("reset"), ("retry", "retryable", "connection")),
    (None, {}, httpx2.RemoteProtocolError("cut short"), ("retry", "retryable", "connection")),
    (None, {}, ConnectionResetError(), ("retry", "retryable", "connection")),
]

# headers → seconds
WAITS: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"Retry-After": "2"}, 2.0),
    ({"retry-after": "0.5"}, 0.5),
    ({"RETRY-AFTER-MS": "250", "Retry-After": "9"}, 0.25),
    ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
    ({"Retry-After": "3600"}, LONGEST_WAIT_S),
    ({"Retry-After": "-5"}, 0.0),
    ({"Retry-After": "nan"}, None),
    ({"Retry-After": "later"}, None),
    ({"Retry-After": date(7)}, 7.0),
    ({"Retry-After": date(7), "Date": date(4)}, 3.0),
    ({"Retry-After": date(7), "Date": "yesterday"}, 7.0),
    ({"Retry-After": date(-60)}, 0.0),
    ({"Retry-After": "Fri, 31 Dec 99999999 23:59:59 GMT"}, None),
]


@pytest.mark.parametrize(("status", "headers", "body", "expected"), TABLE, ids=lambda value: str(value)[:40])
def test_every_reply_has_its_verdict(status, headers, body, expected):
    verdict = classify(status, headers, body, now_s=NOW_S)
    assert (verdict.kind, verdict.state, verdict.code) == expected
    assert (verdict.envelope is not None) == (status in range(200, 300))
    assert verdict.unsent == isinstance(body, httpx2.ConnectError | httpx2.ConnectTimeout)


@pytest.mark.parametrize(("headers", "seconds"), WAITS, ids=str)
def test_a_server_that_asks_for_time_gets_it_up_to_ten_minutes(headers, seconds):
    assert retry_after_s(headers, NOW_S) == (None if seconds is None else pytest.approx(seconds))
    assert classify(429, headers, b"", now_s=NOW_S).wait_s == retry_after_s(headers, NOW_S)
    assert classify(400, headers, b"").wait_s is None


def test_only_a_server_with_too_many_calls_slows_everybody_down():
    assert [status for status in range(300, 600) if classify(status, {}, b"").slow_down] == [429, 503, 529]


def test_a_body_without_a_status_is_a_mistake_of_the_caller():
    with pytest.raises(TypeError, match="hand over the exception"):
        classify(None, {}, b"{}")


def test_the_table_takes_every_branch_both_ways():
    branches = Branches(module)
    with branches.watched():
        for status, headers, body, _ in TABLE:
            classify(status, headers, body, now_s=NOW_S)
        for headers, _ in WAITS:
            retry_after_s(headers, NOW_S)
        with pytest.raises(TypeError):
            classify(None, {}, b"")
    assert branches.one_sided() == []


def test_a_table_with_a_hole_would_be_noticed():
    branches = Branches(module)
    with branches.watched():
        for status, headers, body, expected in TABLE:
            if expected[2] != "too_large":
                classify(status, headers, body)
    assert any(where.startswith("_of_fault") for where in branches.one_sided())


@given(
    status=st.integers(100, 999),
    headers=st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date", "x"]), st.text(max_size=40)),
    body=st.binary(max_size=200) | st.sampled_from([error("insufficient_quota"), chat().body]),
    now_s=st.floats(0, 1e11),
)
def test_whatever_a_server_sends_there_is_one_bounded_verdict_and_the_same_one_again(status, headers, body, now_s):
    verdict = classify(status, headers, body, now_s=now_s)
    assert isinstance(verdict, Verdict) and verdict == classify(status, dict(headers), body, now_s=now_s)
    assert verdict.wait_s is None or 0 <= verdict.wait_s <= LONGEST_WAIT_S
    assert len(verdict.detail or "") <= 2_000
    assert (verdict.kind in ("answer", "content", "bad_envelope")) == (200 <= status < 300)
