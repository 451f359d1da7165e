"""Result lines in every shape servers give them, and the form a reply is asked for in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import Request
from providers.chat_body import chat_body, request_line, request_of_line
from providers.prices import Price, batch_price, price_of
from providers.response_form import form_after_refusal, recorded_usage, response_format
from providers.result_lines import outcome_of, read_result, split_lines

KEY = "a" * 64
BODY = {
    "model": "m-2026",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "{}"}}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
}
PRICE = Price("m", 1.0, 1.0, "today")
DOCUMENTS = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(
        st.sampled_from(["custom_id", "response", "body", "error", "status_code", "choices"]), inner
    ),
    max_leaves=12,
)
VLLM_ERROR = {"object": "error", "message": "no model", "code": 400}


def line(**parts) -> bytes:
    return json.dumps({"id": "x", "custom_id": KEY, **parts}).encode()


@pytest.mark.parametrize(
    "written",
    [
        line(response={"status_code": 200, "request_id": "r", "body": BODY}, error=None),  # OpenAI
        line(response={"status_code": 200, "request_id": "vllm-batch-1", "body": BODY}, error=None),  # vLLM
        line(response={"body": BODY}),
    ],
)
def test_a_reply_is_read_from_any_of_the_shapes(written):
    outcome, envelope = outcome_of(read_result(written), 5, PRICE)
    assert envelope is not None and envelope.text == "{}" and outcome.state == "ok" and outcome.model == "m-2026"
    assert json.loads(outcome.body or b"") == BODY and outcome.usd == pytest.approx(10 / 1e6)


@pytest.mark.parametrize(
    ("written", "state", "error"),
    [
        (
            line(response={"status_code": 400, "body": {"error": {"message": "too long", "code": "x"}}}),
            "terminal",
            "http_400: too long",
        ),
        (line(response={"status_code": 500, "body": None}, error=None), "retryable", "http_500: the line holds"),
        (line(response=None, error={"code": "batch_expired", "message": "late"}), "retryable", "batch_expired: late"),
        (line(response={"status_code": 400, "body": None}, error=VLLM_ERROR), "terminal", "http_400: no model"),
        (line(response=None, error="boom"), "retryable", "no_reply: boom"),
        (line(), "retryable", "no_reply: "),
        (b'{"custom_id": "' + KEY.encode() + b'", "response": {"sta', "retryable", "bad_line: not JSON"),
        (
            line(response={"status_code": 401, "body": {"error": {"message": "Bad key sk-proj-abcdef123"}}}),
            "terminal",
            "http_401: Bad key [key]",
        ),
    ],
)
def test_a_fault_is_read_from_any_of_the_shapes(written, state, error):
    result = read_result(written)
    outcome, envelope = outcome_of(result, 5, PRICE)
    assert result.custom_id == KEY and envelope is None and outcome.body is None
    assert outcome.state == state and (outcome.error or "").startswith(error)
    assert (outcome.usd is None) == error.startswith("bad_line")


@given(st.one_of(st.binary(max_size=200), DOCUMENTS.map(lambda value: json.dumps(value).encode())))
def test_no_line_whatever_it_holds_raises(written):
    outcome, _ = outcome_of(read_result(written), 1, PRICE)
    assert outcome.state in ("ok", "retryable", "terminal")


@given(st.lists(st.binary(max_size=12), max_size=8), st.integers(1, 9))
def test_lines_are_the_same_however_the_bytes_arrive(parts, size):
    content = b"\n".join(parts)
    whole = list(split_lines([content], 1000))
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    assert list(split_lines(pieces, 1000)) == whole
    assert b"\n".join(whole) == (content.removesuffix(b"\n") if content.endswith(b"\n") else content)


def test_a_line_without_end_is_cut_and_the_next_one_is_whole():
    pieces = [b"x" * 50] * 10 + [b"x\nnext\n"]
    assert list(split_lines(pieces, 100)) == [b"x" * 100, b"next"]


@given(st.text(min_size=1, max_size=60), st.sampled_from(["max_tokens", "max_completion_tokens"]))
def test_a_request_line_is_ascii_on_one_line_and_leads_back_to_its_request(text, limit_field):
    text = text.encode("utf-8", "replace").decode()
    schema = {"type": "object", "properties": {"reasoning": {}, "profile": {}}}
    request = Request("m", (("user", text),), schema, {"max_tokens": 9, "temperature": 0.2}, "item", "i7")
    written = request_line(request, limit_field)
    assert written.isascii() and written.count(b"\n") == 1 and len(written.splitlines()) == 1
    assert list(json.loads(written)["body"]["response_format"]["json_schema"]["schema"]["properties"]) == [
        "reasoning",
        "profile",
    ]
    assert request_of_line(written).key == request.key == json.loads(written)["custom_id"]


def test_a_request_line_that_was_changed_is_not_taken_for_its_key():
    request = Request("m", (("user", "hello"),), {}, {"max_tokens": 9}, "item", "i7")
    with pytest.raises(ValueError, match="is not the key of what the line asks"):
        request_of_line(request_line(request).replace(b"hello", b"hullo"))


def test_a_server_that_refuses_schemas_is_asked_for_any_object_once_and_it_is_recorded():
    refusal = '{"error": {"message": "response_format.type must be json_object", "param": "response_format"}}'
    assert form_after_refusal("json_schema", 400, refusal) == "json_object"
    assert form_after_refusal("json_schema", 422, "Unknown value: 'json_schema'") == "json_object"
    assert form_after_refusal("json_object", 400, refusal) is None  # no third try
    assert form_after_refusal("json_schema", 500, refusal) is None
    assert form_after_refusal("json_schema", 400, "context too long") is None
    assert recorded_usage('{"prompt_tokens": 3}', "json_object") == (
        '{"prompt_tokens": 3, "response_format": "json_object"}'
    )
    assert recorded_usage('{"prompt_tokens": 3}', "json_schema") == '{"prompt_tokens": 3}'
    assert response_format({"type": "object"}, "json_object") == {"type": "json_object"}


def test_the_form_is_part_of_the_body_and_not_of_the_key():
    request = Request("m", (("user", "hello"),), {"type": "object"}, {}, "item", "i7")
    key = request.key
    bodies = chat_body(request), chat_body(request, form="json_object")
    assert bodies[0] != bodies[1] and request.key == key
    assert bodies[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_a_batch_price_is_half_and_an_unknown_one_stays_unknown():
    listed = price_of("gpt-4o-mini")
    half = batch_price(listed)
    assert listed is not None and half is not None and half.cost(10, 10) == listed.cost(10, 10) / 2
    assert half.as_of == listed.as_of and batch_price(None) is None
