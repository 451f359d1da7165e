"""The engine against a real llama.cpp server: random weights, real grammar, real counts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from servers.journal import MemoryJournal
from servers.llama import llama_server

from providers import OpenAIConfig, OpenAIEmbeddingsConfig

pytest.importorskip("xllamacpp", reason="the extra `local-llm` is not installed")

SCHEMA = {
    "type": "object",
    "properties": {
        "reasoning": {"type": "string", "enum": ["seen", "guessed"]},
        "profile": {"type": "string", "enum": ["explorers", "builders", "fighters"]},
    },
    "required": ["reasoning", "profile"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def base_url(tmp_path_factory):
    with llama_server(tmp_path_factory.mktemp("llama")) as url:
        yield url


def test_a_real_server_answers_every_request_within_the_schema(base_url):
    config = OpenAIConfig(model="random", base_url=base_url, max_tokens=400, concurrency=2, deadline_s=60)
    messages = [(("system", "Judge."), ("user", f"item {n}")) for n in range(6)]
    requests = [
        config.request(messages=asked, schema=SCHEMA, kind="item", entity_id=str(n)) for n, asked in enumerate(messages)
    ]
    journal = MemoryJournal()
    with config.open() as engine:
        completions = list(engine.complete(requests, journal))
        again = list(engine.complete(requests, journal))
    assert len(completions) == 6
    for completion in completions:
        assert completion.error_code in (None, "truncated")  # random weights may fill the reply with white space
        assert (completion.tokens_in or 0) > 10 and (completion.tokens_out or 0) > 5 and completion.usd is None
        if completion.text is not None:
            reply = json.loads(completion.text)
            assert reply["profile"] in SCHEMA["properties"]["profile"]["enum"]
    assert sum(completion.text is not None for completion in completions) >= 3
    assert all(completion.cached for completion in again)
    assert {outcome.usage is not None for outcome in journal.outcomes.values()} == {True}


def test_a_real_server_embeds_texts_and_the_one_it_finds_too_large_costs_its_neighbours_nothing(tmp_path):
    texts = [f"the book number {n} and the other" for n in range(12)]
    long, journal = "the " * 5_000, MemoryJournal()
    with llama_server(tmp_path, embedding=True) as url:
        config = OpenAIEmbeddingsConfig(model="random", base_url=url, concurrency=2, texts_per_call=8, backoff_s=0)
        with config.open(journal) as encoder:
            vectors = encoder.encode([*texts[:5], long, *texts[5:]])
            n_calls = encoder.taken.calls
            assert np.array_equal(encoder.encode(texts), np.delete(vectors, 5, axis=0))
            assert encoder.taken.calls == n_calls, "what was answered is not asked again"
    assert np.isnan(vectors[5]).all() and np.allclose(np.linalg.norm(np.delete(vectors, 5, axis=0), axis=1), 1)
    assert list(encoder.set_aside) == [long] and "too large to process" in encoder.set_aside[long].detail
    assert encoder.taken.tokens_in > 12 * 5 and n_calls <= 2 + 2 * 3
