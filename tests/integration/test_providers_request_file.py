"""Requests as a file that anybody may answer: nothing is lost on the way out or on the way back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from servers.batches import PROFILE, answer_line
from servers.counting import counting_server
from servers.journal import MemoryJournal

from providers import BadSettingError, OpenAIConfig, RequestFileConfig, UnansweredRequestsError, parse_engine
from providers import read_requests as requests_in
from warehouse import Ledger


@pytest.fixture
def config(tmp_path: Path) -> RequestFileConfig:
    return RequestFileConfig(
        model="m", requests_path=tmp_path / "out" / "requests.jsonl", results_path=tmp_path / "results*.jsonl"
    )


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def questions(config, n: int):
    return [
        config.request(
            messages=(("user", f"item {i}\u2028of many"),), schema={"type": "object"}, kind="item", entity_id=str(i)
        )
        for i in range(n)
    ]


def run(config, ledger, requests, heard=None):
    completions = []
    with config.open() as engine:
        try:
            for done in engine.complete(requests, ledger, lambda told: heard is not None and heard.append(told.note)):
                completions.append(done)
        except UnansweredRequestsError as error:
            return completions, error
    return completions, None


def written(config) -> list[dict]:
    return [json.loads(line) for line in config.requests_path.read_bytes().split(b"\n") if line]


def write_results(config, lines, name="results.jsonl") -> None:
    path = config.results_path.with_name(name)
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )


def test_requests_are_written_answered_by_another_program_and_read_back_none_lost(config, ledger):
    completions, stopped = run(config, ledger, questions(config, 300))
    assert not completions and stopped is not None and stopped.exit_code == 4 and stopped.requests == 300
    assert "requests.jsonl; answer it and run again" in str(stopped) and "vllm run-batch -i" in str(stopped)
    lines = written(config)
    assert {(line["method"], line["url"]) for line in lines} == {("POST", "/v1/chat/completions")}
    assert ledger.spent().calls == 0  # nothing was sent from here
    write_results(config, [answer_line(line) for line in reversed(lines)])
    completions, stopped = run(config, ledger, questions(config, 300))
    assert stopped is None and len(completions) == 300
    assert all(json.loads(done.text or "") == PROFILE and not done.cached for done in completions)
    assert ledger.spent().calls == 300 and ledger.uncertain() == 0
    config.results_path.with_name("results.jsonl").unlink()
    completions, stopped = run(config, ledger, questions(config, 300))
    assert stopped is None and all(done.cached for done in completions)


def test_the_file_is_answered_by_our_own_engine_over_a_server(config, ledger):
    run(config, ledger, questions(config, 40))
    with counting_server() as (url, server):
        other = OpenAIConfig(model="m", base_url=url)
        journal = MemoryJournal()
        with other.open() as engine:
            answered = list(engine.complete(requests_in(config.requests_path), journal))
        assert len(server.requests) == 40 and all(done.text for done in answered)
    bodies = {key: json.loads(body) for key, body in journal.bodies.items()}
    write_results(
        config, [{"custom_id": key, "response": {"status_code": 200, "body": body}} for key, body in bodies.items()]
    )
    completions, stopped = run(config, ledger, questions(config, 40))
    assert stopped is None and [done.text for done in completions] == [json.dumps(PROFILE)] * 40


def test_what_is_missing_is_written_again_and_nothing_else(config, ledger):
    run(config, ledger, questions(config, 10))
    lines = written(config)
    write_results(config, [answer_line(line) for line in lines[:7]])
    completions, stopped = run(config, ledger, questions(config, 10))
    assert len(completions) == 7 and stopped is not None and stopped.requests == 3
    assert [line["custom_id"] for line in written(config)] == [line["custom_id"] for line in lines[7:]]
    write_results(config, [answer_line(line) for line in lines[7:]], "results-2.jsonl")
    completions, stopped = run(config, ledger, questions(config, 10))
    assert stopped is None and len(completions) == 10 and sum(done.cached for done in completions) == 7
    assert ledger.spent().calls == 10


def test_errors_count_once_nothing_else_is_missing(config, ledger):
    run(config, ledger, questions(config, 4))
    lines = written(config)
    refused = {"custom_id": lines[0]["custom_id"], "response": {"status_code": 400, "body": None}, "error": "too long"}
    write_results(config, [refused, *map(answer_line, lines[1:3])])
    completions, stopped = run(config, ledger, questions(config, 4))
    assert len(completions) == 2 and stopped is not None and (stopped.requests, stopped.failed) == (2, 1)
    assert "1 of them failed before" in str(stopped)
    write_results(config, [refused, *map(answer_line, lines[1:])])
    completions, stopped = run(config, ledger, questions(config, 4))
    assert stopped is None and [done.error_code for done in completions].count("http_400") == 1
    assert ledger.spent().calls == 4


def test_lines_of_nobody_are_set_aside_and_said(config, ledger):
    run(config, ledger, questions(config, 5))
    lines = written(config)
    stranger = answer_line({"custom_id": "f" * 64, "body": {"model": "m"}})
    answers = [answer_line(line) for line in lines]
    write_results(config, [*answers, stranger, answers[0], b"{ not JSON"])
    heard: list[str | None] = []
    completions, stopped = run(config, ledger, questions(config, 5), heard)
    assert stopped is None and len(completions) == 5 and any("3 result lines" in (note or "") for note in heard)
    aside = config.requests_path.with_name("requests.jsonl.aside.jsonl").read_bytes().splitlines()
    assert len(aside) == 3 and ledger.answered("f" * 64) is None


def test_equal_requests_are_one_line_and_answers_of_an_earlier_pass_are_no_strangers(config, ledger):
    run(config, ledger, questions(config, 3) * 2)
    assert len(written(config)) == 3
    write_results(config, map(answer_line, written(config)))
    completions, _ = run(config, ledger, questions(config, 3) * 2)
    assert len(completions) == 6 and sum(not done.cached for done in completions) == 3
    others = [request for request in questions(config, 5) if request.entity_id in "34"]
    run(config, ledger, others)  # the results file still holds the first three
    assert not config.requests_path.with_name("requests.jsonl.aside.jsonl").exists()


def test_a_cost_is_unknown_until_a_price_is_given(config, ledger):
    run(config, ledger, questions(config, 1))
    write_results(config, map(answer_line, written(config)))
    priced = config.model_copy(update={"price": None})
    (done,), _ = run(priced, ledger, questions(config, 1))
    assert done.usd is None and config.paid and done.tokens_in == 100


def test_one_file_for_both_ways_is_refused(tmp_path):
    with pytest.raises(BadSettingError, match="expected another file than requests_path"):
        parse_engine({"name": "file", "model": "m", "requests_path": "a.jsonl", "results_path": "a.jsonl"})
