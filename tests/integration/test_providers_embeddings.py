"""The openai encoder against real sockets: what it asks, what it pays for once, and what it makes of bad replies."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from servers.counting import Reply, Script, counting_server, failure
from servers.embeddings import WIDTH, embedded, faulty_embeddings, too_long_for, unit_of, vector_of
from servers.journal import MemoryJournal

from providers import (
    BudgetReachedError,
    CircuitOpenError,
    EmptyTextError,
    EngineStoppedError,
    MissingCapError,
    MissingKeyError,
    OpenAIEmbeddingsConfig,
    UnknownPriceError,
    WrongWidthError,
    parse_encoder,
)

TEXTS = [f"Item {number}, a book about the number {number}." for number in range(20)]
CANARY = "sk-canary-0123456789abcdef"


def config_for(url: str, **settings: Any) -> OpenAIEmbeddingsConfig:
    quick = {"deadline_s": 5, "backoff_s": 0, "model": "test-embedder", "texts_per_call": 6}
    config = parse_encoder({"name": "openai", "base_url": url, **quick, **settings})
    assert isinstance(config, OpenAIEmbeddingsConfig)
    return config


@contextmanager
def opened(script: Script = lambda number, asked: embedded(asked), journal: Any = None, **settings: Any):
    """(encoder, server, journal)"""
    journal = journal or MemoryJournal()
    with counting_server(script) as (url, server), config_for(url, **settings).open(journal) as encoder:
        yield encoder, server, journal


def expected(texts: list[str]) -> np.ndarray:
    return np.stack([unit_of(text) for text in texts])


def texts_sent(server) -> list[str]:
    return [text for asked in server.requests for text in asked["input"]]


def test_every_text_gets_its_unit_vector_in_order_and_equal_texts_are_sent_once():
    with opened() as (encoder, server, _):
        vectors = encoder.encode([*TEXTS, TEXTS[3]])
    assert vectors.dtype == np.float32 and np.allclose(vectors, expected([*TEXTS, TEXTS[3]]), atol=1e-6)
    assert sorted(texts_sent(server)) == sorted(TEXTS) and encoder.dim == WIDTH
    assert sorted(len(asked["input"]) for asked in server.requests) == [2, 6, 6, 6]
    assert all(asked["encoding_format"] == "base64" and "dimensions" not in asked for asked in server.requests)
    assert (encoder.taken.calls, encoder.taken.replies, encoder.taken.usd) == (4, 4, 0.0)
    assert encoder.taken.tokens_in == sum(max(1, len(text) // 4) for text in TEXTS)


def test_a_shuffled_reply_is_put_in_order_by_its_index_and_plain_numbers_are_read_too():
    choices: list[dict[str, Any]] = [{"order": [3, 1, 5, 0, 4, 2]}, {"as_numbers": True}]
    for choice in choices:
        with opened(lambda number, asked, choice=choice: embedded(asked, **choice)) as (encoder, _, _):
            assert np.allclose(encoder.encode(TEXTS[:6]), expected(TEXTS[:6]), atol=1e-6)


def test_an_embedding_is_announced_before_it_is_asked_for_and_its_raw_reply_is_kept():
    with opened() as (encoder, _, journal):
        encoder.encode(TEXTS[:6])
    (key,) = journal.bodies
    assert journal.events == [("intend", key, 1), ("settle", key, 1)]
    assert json.loads(journal.bodies[key])["data"][0]["object"] == "embedding"
    tokens, usd = journal.worst[key, 1]
    assert tokens >= journal.outcomes[key, 1].tokens_in and usd == 0.0


def test_a_text_that_was_paid_for_is_not_sent_again_in_whatever_company_it_comes():
    journal = MemoryJournal()
    with opened(journal=journal) as (encoder, _, _):
        first = encoder.encode(TEXTS[:10])
    with opened(journal=journal) as (encoder, server, _):
        again = encoder.encode([TEXTS[15], *reversed(TEXTS[:10])])
    assert texts_sent(server) == [TEXTS[15]]
    assert np.array_equal(again[1:], first[::-1]) and encoder.taken.cached == 2


def test_another_model_or_length_is_another_vector_and_another_limit_is_not():
    journal = MemoryJournal()
    with opened(journal=journal) as (encoder, _, _):
        encoder.encode(TEXTS[:2])
    others: list[tuple[dict[str, Any], int]] = [
        ({"dimensions": 8}, 2),
        ({"model": "other"}, 2),
        ({"max_tokens": 100}, 0),
    ]
    for settings, n_sent in others:
        with opened(journal=journal, **settings) as (encoder, server, _):
            assert encoder.encode(TEXTS[:2]).shape == (2, settings.get("dimensions", WIDTH))
        assert len(texts_sent(server)) == n_sent, settings


def test_one_text_that_is_too_long_costs_its_neighbours_nothing_and_is_set_aside():
    texts = [*TEXTS[:11], "long " * 400, *TEXTS[11:]]
    with opened(too_long_for(1000), texts_per_call=21) as (encoder, server, _):
        vectors = encoder.encode(texts)
    assert np.isnan(vectors[11]).all() and np.allclose(np.delete(vectors, 11, axis=0), expected(TEXTS), atol=1e-6)
    (aside,) = encoder.set_aside.items()
    assert aside[0] == texts[11] and aside[1].code == "http_400" and "maximum context length" in aside[1].detail
    assert len(server.requests) <= 1 + 2 * 5, "halves of 21 texts: five levels at most"
    paid = [text for asked in server.requests if "long" not in "".join(asked["input"]) for text in asked["input"]]
    assert sorted(paid) == sorted(TEXTS), "no text is paid for twice"


def test_max_tokens_cuts_a_long_text_at_three_bytes_a_token_and_never_through_a_character():
    with opened(too_long_for(1000), max_tokens=100) as (encoder, server, _):
        encoder.encode(["long " * 400, "é" * 400, "€" * 150, "short"])
    assert not encoder.set_aside
    assert sorted(map(len, texts_sent(server))) == [5, 100, 150, 300]


def test_a_call_stays_within_the_tokens_the_api_takes_at_once():
    texts = [f"{number} " + "x" * 60_000 for number in range(40)]
    with opened(texts_per_call=2048) as (encoder, server, _):
        encoder.encode(texts)
    assert sorted(len(asked["input"]) for asked in server.requests) == [12, 14, 14]
    assert max(sum(len(text) for text in asked["input"]) for asked in server.requests) <= 3 * 300_000


@pytest.mark.parametrize(
    "useless",
    [
        np.full(WIDTH, np.nan, np.float32),
        np.full(WIDTH, np.inf, np.float32),
        np.zeros(WIDTH, np.float32),
        vector_of("x", 7),
        "no base64",
        "AAA=",
        None,
        [],
        [1e999] * WIDTH,
        ["a"] * WIDTH,
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_vector_of_no_use_is_asked_for_alone_once_and_then_set_aside(useless):
    def script(number: int, asked: Mapping[str, Any]) -> Reply:
        return embedded(asked, vectors=lambda text: useless if text == TEXTS[2] else vector_of(text))

    journal = MemoryJournal()
    for n_calls in (2, 0):
        with opened(script, journal) as (encoder, server, _):
            vectors = encoder.encode(TEXTS[:6])
        assert [len(asked["input"]) for asked in server.requests] == [6, 1][:n_calls]
        assert np.isnan(vectors[2]).all() and np.isfinite(np.delete(vectors, 2, axis=0)).all()
        assert {text: aside.code for text, aside in encoder.set_aside.items()} == {TEXTS[2]: "bad_vector"}


def test_a_vector_that_is_bad_in_company_only_is_mended_by_asking_alone():
    def script(number: int, asked: Mapping[str, Any]) -> Reply:
        bad = TEXTS[2] if len(asked["input"]) > 1 else None
        return embedded(asked, vectors=lambda text: np.zeros(WIDTH, np.float32) if text == bad else vector_of(text))

    with opened(script) as (encoder, server, _):
        assert np.allclose(encoder.encode(TEXTS[:6]), expected(TEXTS[:6]), atol=1e-6)
    assert len(server.requests) == 2 and not encoder.set_aside


@pytest.mark.parametrize(
    "body",
    [
        lambda asked: embedded({**asked, "input": asked["input"][1:]}),
        lambda asked: embedded({**asked, "input": [*asked["input"], "one more"]}),
        lambda asked: Reply(embedded(asked).body.replace(b'"index": 1', b'"index": 0')),
        lambda asked: Reply(embedded(asked).body.replace(b'"index": 1', b'"index": "1"')),
        lambda asked: Reply(b"<html>a login page</html>"),
        lambda asked: Reply(b"{}"),
        lambda asked: Reply(b'{"data": {}}'),
        lambda asked: Reply(b"[" * 100_000),
    ],
    ids=["too few", "too many", "twice one index", "an index in words", "a page", "nothing", "no list", "deep"],
)
def test_a_reply_that_does_not_say_whose_vectors_it_holds_is_asked_for_again(body):
    def script(number: int, asked: Mapping[str, Any]) -> Reply:
        return body(asked) if number <= 2 else embedded(asked)

    with opened(script) as (encoder, server, journal):
        assert np.allclose(encoder.encode(TEXTS[:6]), expected(TEXTS[:6]), atol=1e-6)
    assert len(server.requests) == 3 and len(set(map(json.dumps, server.requests))) == 1
    assert sorted(outcome.state for outcome in journal.outcomes.values()) == ["ok", "retryable", "retryable"]


def test_429_500_a_reset_and_silence_are_asked_again_and_pauses_are_kept():
    faults = {
        1: failure(429, **{"retry-after-ms": "30"}),
        2: failure(500),
        3: Reply(b"", reset=True),
        4: embedded({"input": [], "model": "m"}, delay_s=1.0, usable=False),
    }
    with opened(lambda n, asked: faults.get(n) or embedded(asked), deadline_s=0.3) as (encoder, server, journal):
        assert np.allclose(encoder.encode(TEXTS[:6]), expected(TEXTS[:6]), atol=1e-6)
    assert len(server.requests) == 5
    states = [outcome.state for _, outcome in sorted(journal.outcomes.items())]
    assert states == ["retryable", "retryable", "retryable", "sent", "ok"], "silence may have been paid"


@pytest.mark.parametrize("seed", [20_260_404, 7])
def test_a_third_of_faulty_replies_leaves_every_text_with_its_vector(seed):
    print(f"seed {seed}")
    texts = [f"text {number} of seed {seed}" for number in range(240)]
    settings: dict[str, Any] = {"deadline_s": 0.5, "texts_per_call": 8, "max_attempts": 9}
    with opened(faulty_embeddings(seed, 0.3, hang_s=1.0), **settings) as (encoder, _, _):
        vectors = encoder.encode(texts)
    lost = [index for index, text in enumerate(texts) if text in encoder.set_aside]
    there = np.setdiff1d(np.arange(len(texts)), lost)
    assert np.allclose(vectors[there], expected([texts[index] for index in there]), atol=1e-6)
    assert len(lost) <= 5, "a text fails only where it came out bad in company and alone"
    assert np.isnan(vectors[lost]).all()


def test_vectors_of_another_length_than_asked_for_end_the_run_and_say_which_setting():
    refused = pytest.raises(WrongWidthError, match=r"12 numbers, expected 8.*embeddings.dimensions")
    wider = opened(lambda n, asked: embedded({**asked, "dimensions": 12}), dimensions=8)
    with wider as (encoder, server, journal), refused:
        encoder.encode(TEXTS)
    assert len(server.requests) <= 4 and len(journal.bodies) == len(server.requests), "what was paid for is kept"


def test_a_server_that_changes_its_mind_about_the_length_is_stopped():
    def script(number: int, asked: Mapping[str, Any]) -> Reply:
        return embedded({**asked, "dimensions": 8 + number})

    with opened(script, concurrency=1) as (encoder, _, _), pytest.raises(WrongWidthError, match="expected 9"):
        encoder.encode(TEXTS)


def test_a_setting_that_the_server_refuses_for_every_text_stops_after_a_few_dozen_free_calls():
    refused = pytest.raises(CircuitOpenError, match=r"no dimensions for this model.*\(embeddings\)")
    stubborn = opened(lambda n, asked: failure(400, message="no dimensions for this model"), texts_per_call=64)
    with stubborn as (encoder, server, _), refused:
        encoder.encode([f"text {number}" for number in range(2_000)])
    assert len(server.requests) <= 32 + 2 * 6 + 40, "one refusal is followed to its end, not all of them"


def test_a_cap_stops_before_the_call_that_would_pass_it_and_keeps_what_was_paid():
    journal = MemoryJournal()
    refused = pytest.raises(BudgetReachedError, match=r"embeddings\.cap\.calls")
    with opened(journal=journal, cap={"calls": 2}, concurrency=1) as (encoder, server, _), refused:
        encoder.encode(TEXTS)
    assert len(server.requests) == 2
    with opened(journal=journal) as (encoder, server, _):
        assert np.allclose(encoder.encode(TEXTS), expected(TEXTS), atol=1e-6)
    assert len(texts_sent(server)) == 8, "twelve of twenty were there"


def test_a_refused_key_stops_the_run_and_is_written_nowhere(monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    caplog.set_level(logging.DEBUG)
    stopped = pytest.raises(EngineStoppedError, match=r"embeddings\.model")
    with (
        opened(lambda n, asked: failure(401, message=f"bad key {CANARY}")) as (encoder, server, journal),
        stopped as told,
    ):
        encoder.encode(TEXTS)
    assert server.headers[0]["authorization"] == f"Bearer {CANARY}"
    kept = f"{journal.outcomes} {journal.bodies} {caplog.text} {told.value!r} {told.value}"
    assert CANARY not in kept


def test_an_empty_text_is_refused_before_any_call():
    with opened() as (encoder, server, _), pytest.raises(EmptyTextError, match="text 1"):
        encoder.encode(["a", " \n"])
    assert not server.requests


def test_a_paid_encoder_needs_a_cap_a_price_for_dollars_and_a_key_and_names_its_own_settings(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    paid = {"name": "openai", "model": "mystery"}
    for settings, error, words in (
        (paid, MissingCapError, r"\[embeddings\.cap\]"),
        ({**paid, "cap": {"usd": 1}}, UnknownPriceError, r"embeddings\.price"),
        ({**paid, "cap": {"calls": 1}}, MissingKeyError, r"embeddings\.api_key_env"),
    ):
        with pytest.raises(error, match=words):
            config = parse_encoder(settings)
            assert isinstance(config, OpenAIEmbeddingsConfig)
            config.open(MemoryJournal())


def test_the_price_is_of_tokens_in_alone_and_the_users_wins():
    small = parse_encoder({"name": "openai"})
    assert isinstance(small, OpenAIEmbeddingsConfig) and small.dim == 1536
    price = small.known_price()
    assert price is not None and price.cost(1_000_000, 0) == 0.02 and price.output_usd_per_million == 0
    own = parse_encoder({"name": "openai", "price": {"input_usd_per_million": 0.5}})
    assert isinstance(own, OpenAIEmbeddingsConfig)
    own_price = own.known_price()
    assert own_price is not None and own_price.cost(2_000_000, 0) == 1.0


def test_an_encoder_is_known_by_what_decides_its_vectors_without_any_network():
    def key(**settings: Any) -> str:
        return parse_encoder({"name": "openai", **settings}).identity()

    same = {"base_url": "https://elsewhere.example/v1", "concurrency": 2, "texts_per_call": 9, "cap": {"calls": 3}}
    assert key(**same) == key()
    assert len({key(), key(model="text-embedding-3-large"), key(dimensions=256), key(max_tokens=100)}) == 4
    identity = parse_encoder({"name": "openai", "dimensions": 256}).describe()
    assert (identity.short_name, identity.dim, identity.dtype) == ("text_embedding_3_small_256", 256, "float32")
