"""The openai engine against real sockets: what it pays for, what it writes down, and what it survives."""

from __future__ import annotations

import gzip
import json
import logging
import resource
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from servers.counting import PROFILE, CountingServer, Reply, chat, counting_server, failure
from servers.journal import MemoryJournal

from providers import BudgetReachedError, Completion, EngineStoppedError, OpenAIConfig, Request, parse_engine

SCHEMA = {"type": "object"}
CANARY = "sk-canary-0123456789abcdef"


def config_for(url: str, **settings: Any) -> OpenAIConfig:
    quick = {"deadline_s": 5, "backoff_s": 0}
    config = parse_engine({"name": "openai", "model": "test-model", "base_url": url, **quick, **settings})
    assert isinstance(config, OpenAIConfig)
    return config


def questions(config: OpenAIConfig, n: int) -> list[Request]:
    return [
        config.request(messages=(("system", "s"), ("user", f"item {i}")), schema=SCHEMA, kind="item", entity_id=str(i))
        for i in range(n)
    ]


def ask(config: OpenAIConfig, n: int = 1, journal: MemoryJournal | None = None) -> list[Completion]:
    with config.open() as engine:
        return list(engine.complete(questions(config, n), journal or MemoryJournal()))


def outcome_of_one(script_reply: Reply, **settings: Any) -> tuple[Completion, Any, CountingServer]:
    journal = MemoryJournal()
    with counting_server(lambda number, asked: script_reply) as (url, server):
        (completion,) = ask(config_for(url, **settings), journal=journal)
    (outcome,) = journal.outcomes.values()
    return completion, outcome, server


def test_every_request_gets_its_own_completion_with_counts():
    with counting_server() as (url, server):
        completions = ask(config_for(url), 25)
    assert sorted(int(done.request.entity_id) for done in completions) == list(range(25))
    assert all(json.loads(done.text or "") == PROFILE and not done.cached for done in completions)
    assert {(done.tokens_in, done.tokens_out) for done in completions} == {(100, 20)}
    assert set(server.paid.values()) == {1} and len(server.paid) == 25


def test_the_intent_is_written_before_the_call_and_the_reply_before_the_completion_is_seen():
    journal = MemoryJournal()
    intents_at_call: list[int] = []

    def script(number: int, asked: Mapping[str, Any]) -> Reply:
        intents_at_call.append(len(journal.intents))
        return chat()

    with counting_server(script) as (url, _):
        config = config_for(url, concurrency=1)
        with config.open() as engine:
            for number, done in enumerate(engine.complete(questions(config, 5), journal), 1):
                assert (done.request.key, 1) in journal.outcomes
                assert journal.bodies[done.request.key].startswith(b"{")
                assert intents_at_call[number - 1] >= number


def test_never_more_calls_in_flight_than_allowed():
    with counting_server(lambda number, asked: chat(delay_s=0.02)) as (url, server):
        ask(config_for(url, concurrency=3), 20)
    assert 2 <= server.most_at_once <= 3


def test_a_key_that_was_answered_is_never_asked_again():
    journal = MemoryJournal()
    with counting_server() as (url, server):
        first = ask(config_for(url), 6, journal)
        again = ask(config_for(url), 6, journal)
        assert len(server.requests) == 6
    assert all(done.cached and done.tokens_in is None and done.usd is None for done in again)
    assert {done.text for done in again} == {done.text for done in first}


def test_equal_requests_of_one_run_are_asked_once_and_all_answered():
    with counting_server(lambda number, asked: chat(delay_s=0.05)) as (url, server):
        config = config_for(url)
        twins = [
            Request(config.model, (("user", "same"),), SCHEMA, config.sampling, "item", entity_id=str(n))
            for n in range(10)
        ]
        with config.open() as engine:
            completions = list(engine.complete(twins, MemoryJournal()))
    assert len(server.requests) == 1
    assert sorted(int(done.request.entity_id) for done in completions) == list(range(10))
    assert sum(done.cached for done in completions) == 9


def test_a_failed_key_is_not_asked_again_within_the_run_but_in_the_next():
    journal = MemoryJournal()
    with counting_server(lambda number, asked: failure(500)) as (url, server):
        config = config_for(url, concurrency=1, max_attempts=2)
        question = questions(config, 1)[0]
        with config.open() as engine:
            completions = list(engine.complete([question] * 3, journal))
        assert [done.error_code for done in completions] == ["exhausted"] * 3
        assert len(server.requests) == 2 and sum(done.calls for done in completions if not done.cached) == 2
        ask(config, 1, journal)
        assert len(server.requests) == 4
    assert journal.intents[question.key] == 4


PAGE = Reply(b"<html>hello</html>", headers={"Content-Type": "text/html"})
BOMB = Reply(gzip.compress(b"0" * 9_000_000), headers={"Content-Encoding": "gzip"})


@pytest.mark.parametrize(
    ("reply", "code_of_the_call", "state", "kept", "n_calls", "error_code"),
    [
        (failure(400), "http_400", "terminal", False, 1, "http_400"),
        (failure(422), "http_422", "terminal", False, 1, "http_422"),
        (failure(429), "http_429", "retryable", False, 5, "exhausted"),
        (failure(503), "http_503", "retryable", False, 5, "exhausted"),
        (PAGE, "bad_envelope", "retryable", False, 3, "bad_envelope"),
        (Reply(b"{}"), "bad_envelope", "retryable", False, 3, "bad_envelope"),
        (Reply(b'{"error": {"message": "x"}}'), "bad_envelope", "retryable", False, 3, "bad_envelope"),
        (Reply(b'{"choices": [{"message'), "bad_envelope", "retryable", False, 3, "bad_envelope"),
        (Reply(b"[" * 100_000), "bad_envelope", "retryable", False, 3, "bad_envelope"),
        (Reply(b"\xff\xfe"), "bad_envelope", "retryable", False, 3, "bad_envelope"),
        (Reply(b"", status=204), "bad_envelope", "retryable", False, 3, "bad_envelope"),
        (chat(finish_reason="length"), "truncated", "terminal", True, 1, "truncated"),
        (chat(finish_reason="content_filter"), "content_filter", "terminal", True, 1, "content_filter"),
        (chat(refusal="I would rather not"), "refused", "terminal", True, 1, "refused"),
        (chat(" \n\t "), "empty_content", "terminal", True, 1, "empty_content"),
        (Reply(b'{"choices": [', declared=4000), "connection", "retryable", False, 5, "exhausted"),
        (BOMB, "compressed_reply", "retryable", False, 3, "compressed_reply"),
    ],
)
def test_what_is_no_usable_reply_is_asked_again_as_its_kind_allows_and_ends_as_a_code(
    reply, code_of_the_call, state, kept, n_calls, error_code
):
    journal = MemoryJournal()
    with counting_server(lambda number, asked: reply) as (url, server):
        (completion,) = ask(config_for(url), journal=journal)
    assert (completion.text, completion.error_code, completion.calls) == (None, error_code, n_calls)
    assert error_code == code_of_the_call or code_of_the_call in (completion.detail or "")
    assert len(server.requests) == len(journal.outcomes) == n_calls
    for outcome in journal.outcomes.values():
        assert outcome.state == state and outcome.error.startswith(code_of_the_call)
        assert (outcome.body is not None) == kept
        assert (outcome.rejected is not None) == (code_of_the_call == "bad_envelope")


def test_a_paid_but_useless_reply_is_read_again_from_the_journal_and_not_asked_again():
    journal = MemoryJournal()
    with counting_server(lambda number, asked: chat(finish_reason="length")) as (url, server):
        ask(config_for(url), 1, journal)
        (again,) = ask(config_for(url), 1, journal)
        assert len(server.requests) == 1
    assert again.cached and again.error_code == "truncated"


@pytest.mark.parametrize("slow", [chat(delay_s=2.5), chat(drip_s=0.02)], ids=["hang", "slow_loris"])
def test_the_deadline_is_total_and_the_attempt_stays_maybe_paid(slow):
    started = time.monotonic()
    completion, outcome, _ = outcome_of_one(slow, deadline_s=0.6, max_attempts=1)
    assert time.monotonic() - started < 2.4
    assert completion.error_code == "exhausted" and outcome.error.startswith("deadline")
    assert (outcome.state, outcome.status, outcome.body) == ("sent", None, None)
    assert outcome.latency_ms >= 590


@pytest.mark.parametrize("status", [200, 500])
def test_a_body_beyond_the_cap_is_cut_off_and_not_held(status):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    big = Reply(b"x" * 1_000_000, repeat=80, status=status)
    completion, _, _ = outcome_of_one(big, max_bytes=200_000, max_attempts=1)
    assert "too_large" in (completion.detail or "")
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 50_000_000


def test_nobody_listening_is_a_connection_error_of_one_row():
    with counting_server() as (url, _):
        pass
    journal = MemoryJournal()
    (completion,) = ask(config_for(url, cap={"tokens": 150}, max_tokens=50), journal=journal)
    assert completion.error_code == "exhausted" and "connection" in (completion.detail or "")
    # what never left cannot have cost anything, so five attempts fit into the cap of one
    assert [(outcome.tokens_in, outcome.usd) for outcome in journal.outcomes.values()] == [(0, 0.0)] * 5


@pytest.mark.parametrize(
    "refusal", [failure(401), failure(404), failure(402), failure(429, "insufficient_quota")], ids=str
)
def test_a_server_that_refuses_everything_stops_the_run_after_what_is_in_flight(refusal):
    journal = MemoryJournal()
    with counting_server(lambda number, asked: chat() if number <= 5 else refusal) as (url, server):
        config = config_for(url, concurrency=2)
        seen: list[Completion] = []
        with config.open() as engine, pytest.raises(EngineStoppedError) as stopped:
            seen.extend(engine.complete(questions(config, 200), journal))
        assert len(server.requests) <= 7
    assert stopped.value.exit_code == 4 and str(refusal.status) in str(stopped.value)
    assert len(journal.bodies) == 5
    assert len(journal.outcomes) == sum(journal.intents.values())  # everything in flight was settled


def test_redirects_are_not_followed_and_carry_the_key_nowhere(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with counting_server() as (other_url, other):
        moved = Reply(b"{}", status=307, headers={"Location": f"{other_url}/chat/completions"})
        with counting_server(lambda number, asked: moved) as (url, _):
            config = config_for(url)
            with config.open() as engine, pytest.raises(EngineStoppedError):
                list(engine.complete(questions(config, 3), MemoryJournal()))
    assert other.requests == []


def test_proxies_of_the_environment_are_not_used(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    with counting_server() as (url, _):
        (completion,) = ask(config_for(url))
    assert completion.error_code is None


def test_the_request_on_the_wire_is_what_the_key_names():
    with counting_server() as (url, server):
        ask(config_for(url, temperature=0.0, max_tokens=55))
    (sent,) = server.requests
    assert sent["model"] == "test-model" and sent["temperature"] == 0.0 and sent["max_tokens"] == 55
    assert sent["messages"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "item 0"}]
    assert sent["response_format"]["json_schema"]["schema"] == SCHEMA
    assert "stream" not in sent


def test_newer_hosted_models_get_the_limit_under_its_new_name():
    with counting_server() as (url, server):
        config = config_for(url, max_tokens=55, token_limit_field="max_completion_tokens", temperature=None)
        ask(config)
    (sent,) = server.requests
    assert sent["max_completion_tokens"] == 55 and "max_tokens" not in sent and "temperature" not in sent
    assert config.sampling == {"max_tokens": 55}


@pytest.mark.parametrize("cap", [{"calls": 7}, {"tokens": 7 * 40 + 14}, {"usd": 7 * 0.0012 + 0.0003}], ids=str)
def test_a_cap_is_kept_from_intents_and_what_was_answered_stays(cap):
    journal = MemoryJournal()
    usage = {"prompt_tokens": 20, "completion_tokens": 20}
    with counting_server(lambda number, asked: chat(usage=usage, delay_s=0.01)) as (url, server):
        price = {"input_usd_per_million": 10, "output_usd_per_million": 50}
        config = config_for(url, cap=cap, price=price, max_tokens=20, concurrency=4)
        seen: list[Completion] = []
        with config.open() as engine, pytest.raises(BudgetReachedError) as stopped:
            for completion in engine.complete(questions(config, 50), journal):
                seen.append(completion)
    assert 4 <= len(server.requests) <= 7
    assert len(seen) == len(server.requests) == len(journal.bodies)
    assert stopped.value.exit_code == 4 and "profiles.engine.cap" in str(stopped.value)


def test_items_and_users_of_one_opened_engine_share_the_cap():
    with counting_server() as (url, server):
        config = config_for(url, cap={"calls": 5})
        with config.open() as engine:
            list(engine.complete(questions(config, 4), MemoryJournal()))
            with pytest.raises(BudgetReachedError):
                list(engine.complete(questions(config, 4), MemoryJournal()))
    assert len(server.requests) == 5


def test_the_cost_of_a_call_follows_the_price_and_is_unknown_without_one():
    with counting_server() as (url, _):
        price = {"input_usd_per_million": 10, "output_usd_per_million": 50}
        (priced,) = ask(config_for(url, price=price))
        (unpriced,) = ask(config_for(url))
    assert priced.usd == pytest.approx((100 * 10 + 20 * 50) / 1e6)
    assert unpriced.usd is None


def test_progress_counts_and_ends_at_the_total():
    seen = []
    with counting_server(lambda number, asked: failure(400) if number == 1 else chat()) as (url, _):
        config = config_for(url)
        with config.open() as engine:
            list(engine.complete(questions(config, 4), MemoryJournal(), seen.append))
    assert [progress.done for progress in seen] == [1, 2, 3, 4]
    assert (seen[-1].failed, seen[-1].tokens_in, seen[-1].usd) == (1, 300, None)


def test_leaving_early_admits_nothing_more_and_settles_what_is_in_flight():
    journal = MemoryJournal()
    with counting_server(lambda number, asked: chat(delay_s=0.05)) as (url, server):
        config = config_for(url, concurrency=3)
        with config.open() as engine:
            completions = engine.complete(questions(config, 100), journal)
            next(completions)
            completions.close()
    assert len(server.requests) <= 6
    assert len(journal.outcomes) == len(server.requests) == len(journal.bodies)


def test_an_error_of_the_callers_own_rows_reaches_the_caller():
    def rows(config: OpenAIConfig) -> Iterator[Request]:
        yield from questions(config, 2)
        raise KeyError("row 3")

    with counting_server() as (url, _):
        config = config_for(url)
        with config.open() as engine, pytest.raises(KeyError, match="row 3"):
            list(engine.complete(rows(config), MemoryJournal()))


def test_a_journal_that_cannot_write_stops_the_run_before_the_call():
    class FullDisk(MemoryJournal):
        def intend(self, request: Any, worst_tokens: int | None = None, worst_usd: float | None = None) -> int:
            raise OSError(28, "No space left on device")

    with counting_server() as (url, server):
        with pytest.raises(OSError, match="No space left"):
            ask(config_for(url), 20, FullDisk())
        assert server.requests == []


def test_the_key_is_sent_and_appears_nowhere_else(monkeypatch, caplog, capfd):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    caplog.set_level(logging.DEBUG)
    echoes = failure(400, message=f"wrong key {CANARY}, header Bearer {CANARY}")
    journal = MemoryJournal()
    with counting_server(lambda number, asked: echoes) as (url, server):
        config = config_for(url)
        completions = ask(config, 2, journal)
        with config.open() as engine:
            shown = repr((config, engine, vars(engine), completions, journal.outcomes, journal.events))
    assert server.headers[0]["authorization"] == f"Bearer {CANARY}"
    assert CANARY not in shown + caplog.text + "".join(capfd.readouterr())
    assert "[key]" in (completions[0].detail or "")


def test_a_server_that_knows_no_schemas_is_asked_for_json_objects_from_the_first_refusal_on_and_it_is_said():
    def script(number: int, asked: Mapping[str, Any]) -> Reply:
        known = asked["response_format"]["type"] == "json_object"
        return chat() if known else failure(400, message="Invalid parameter: response_format json_schema is unknown")

    notes: list[str] = []
    journal = MemoryJournal()
    with counting_server(script) as (url, server):
        config = config_for(url, concurrency=1)
        requests = questions(config, 5)
        with config.open() as engine:
            heard = engine.complete(requests, journal, lambda told: notes.append(told.note) if told.note else None)
            completions = list(heard)
    assert [done.error_code for done in completions] == [None] * 5 and len(server.requests) == 6
    assert len(notes) == 1 and "json_object" in notes[0]
    assert {done.request.key for done in completions} == {request.key for request in requests}
    answered = [outcome for outcome in journal.outcomes.values() if outcome.state == "ok"]
    assert all(json.loads(outcome.usage or "{}")["response_format"] == "json_object" for outcome in answered)
