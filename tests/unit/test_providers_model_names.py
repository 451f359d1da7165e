"""Replies of another model than the one that was asked."""

from __future__ import annotations

import json

import pytest

from providers.envelope import read_envelope
from providers.model_names import family, other_models


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14"),
        ("gpt-4-0613", "gpt-4-1106"),
        ("mistral-large-latest", "mistral-large-2411"),
        ("claude-3-5-sonnet@20241022", "claude-3-5-sonnet-latest"),
        ("qwen2.5-7b", "/models/Qwen2.5-7B.gguf"),
        ("openai/gpt-4o", "gpt-4o"),
        ("llama3:latest", "llama3"),
        ("a model of mine ", "A model of mine"),
    ],
)
def test_the_same_model_under_another_name_is_the_same(asked, answered):
    assert family(asked) == family(answered) and other_models(asked, {answered: 3}) == {}


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gpt-4o", "gpt-4o-mini"),
        ("gpt-4.1", "gpt-4"),
        ("llama3:8b", "llama3:70b"),
        ("llama-3-70b", "llama-2-70b"),
        ("o3", "o3-mini"),
    ],
)
def test_another_model_is_another_however_alike_the_names_are(asked, answered):
    assert other_models(asked, {asked: 9, answered: 3}) == {answered: 3}


def test_a_reply_tells_its_model_and_fingerprint_and_both_are_recorded():
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}
    told = read_envelope(json.dumps({**body, "model": "m-2026", "system_fingerprint": "fp_1"}).encode())
    assert (told.model, told.fingerprint) == ("m-2026", "fp_1")
    assert told.recorded_usage == '{"prompt_tokens": 3, "system_fingerprint": "fp_1"}'
    for strange in (None, 7, ["fp"], "\ud800"):
        silent = read_envelope(json.dumps({**body, "model": strange, "system_fingerprint": strange}).encode())
        assert (silent.model, silent.fingerprint, silent.recorded_usage) == (None, None, '{"prompt_tokens": 3}')
    assert read_envelope(b'{"choices": [{"message": {"content": "x"}}]}').recorded_usage is None
