"""What a plan promises and what the run after it pays for, counted by the server that is asked."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from servers.catalogue import write_catalogue
from servers.commands import command
from servers.counting import chat, counting_server

from flows.steps.rehearse import TO_COME
from warehouse import Warehouse

ITEMS, USERS = 30, 12
TOTAL = ITEMS + USERS
PRICED = {"price.input_usd_per_million": 1.0, "price.output_usd_per_million": 10.0, "backoff_s": 0}
CAPPED = {**PRICED, "cap.usd": 5.0}


def spread(seed: int):
    """Good replies whose tokens differ from question to question, by seed and the question's length."""

    def script(number, asked):
        rng = random.Random(f"{seed}:{asked['messages'][-1]['content']}")
        n_in, n_out = len(str(asked["messages"])) // 5, rng.randint(20, 200)
        return chat(usage={"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out})

    return script


def replace_setting(folder: Path, old: str, new: str) -> None:
    path = folder / "semalign.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_plan_without_a_pilot_sends_nothing_and_counts_what_is_stored(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with counting_server() as (url, server):
        write_catalogue(tmp_path, url, items=ITEMS, users=USERS, **PRICED)
        code, plan, last = command(capsys, "plan")
        assert code == 0 and server.requests == [] and "nothing was sent" in last
        assert (plan["calls"], plan["new"], plan["changed"], plan["cached"]) == (TOTAL, TOTAL, 0, 0)
        assert plan["tokens"] > 0 and plan["usd"] > 0 and plan["usd_low"] is None  # a rule of thumb has no interval
        assert not (tmp_path / "w").exists()
        assert command(capsys, "profile")[1]["calls"] == TOTAL
        # another domain asks the same catalogue in other words: all of it changes, and the plan has learnt the tokens
        code, plan, _ = command(capsys, "plan", "--set", "profiles.domain=generic")
        assert code == 0 and (plan["new"], plan["changed"], plan["cached"]) == (0, TOTAL, 0)
        assert len(server.requests) == TOTAL


@pytest.mark.parametrize("seed", range(3))
def test_a_pilot_sends_exactly_n_and_the_run_sends_the_rest(tmp_path, monkeypatch, capsys, seed):
    monkeypatch.chdir(tmp_path)
    with counting_server(spread(seed)) as (url, server):
        write_catalogue(tmp_path, url, items=ITEMS, users=USERS, **CAPPED)
        code, plan, last = command(capsys, "plan", "--pilot", "10")
        assert code == 0 and len(server.requests) == 10
        assert (plan["pilot"]["calls"], plan["calls"], plan["cached"]) == (10, TOTAL - 10, 10)
        assert "the pilot made 10 calls" in last and "asks none of them again" in last
        code, run, _ = command(capsys, "profile")
        assert code == 0 and run["calls"] == TOTAL - 10 and len(server.requests) == TOTAL
        assert max(server.paid.values()) == 1
        print(f"seed {seed}: projected {plan['usd']:.6f}, paid {run['usd']:.6f}")
        assert plan["usd_low"] <= run["usd"] <= plan["usd_high"]
        assert plan["usd_low"] <= 0.8 * plan["usd"] and plan["usd_high"] >= 1.2 * plan["usd"]
        assert abs(plan["tokens"] / (run["tokens_in"] + run["tokens_out"]) - 1) < 0.35
        assert list((tmp_path / "w" / "backups").iterdir())  # what a pilot paid for is backed up as a run's is


def test_a_second_pilot_asks_what_the_first_left_and_never_a_question_with_a_profile_to_come(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with counting_server() as (url, server):
        write_catalogue(tmp_path, url, items=ITEMS, users=USERS, **CAPPED)
        assert command(capsys, "plan", "--pilot", "1000")[1]["pilot"]["asked"] == ITEMS  # users wait for their items
        code, plan, _ = command(capsys, "plan", "--pilot", "5")
        assert code == 0 and (plan["pilot"]["asked"], plan["calls"]) == (5, USERS - 5)
        assert command(capsys, "profile")[1]["calls"] == USERS - 5
        assert len(server.requests) == TOTAL and TO_COME not in json.dumps(server.requests)
        code, plan, _ = command(capsys, "plan", "--pilot", "5")
        assert code == 0 and (plan["pilot"]["calls"], plan["calls"]) == (0, 0) and len(server.requests) == TOTAL


def test_a_pilot_tells_how_many_second_questions_to_expect(tmp_path, monkeypatch, capsys):
    """Every other item's first reply is no JSON; its second question is answered well."""
    monkeypatch.chdir(tmp_path)

    def script(number, asked):
        text = asked["messages"][-1]["content"]
        faulty = any(f'Game number {n}"' in text for n in range(0, ITEMS, 2)) and "games_played" not in text
        return chat("no JSON at all") if faulty and "could not be used" not in text else chat()

    with counting_server(script) as (url, server):
        write_catalogue(tmp_path, url, items=ITEMS, users=1, **CAPPED)
        _, plan, last = command(capsys, "plan", "--pilot", "10")
        bad = plan["pilot"]["unusable"]["not_json"]
        stage = plan["stages"][1]
        assert 0 < bad < 10 and f"{bad} replies cannot be used" in last
        assert stage["facts"]["second_due"] == bad and plan["calls"] == ITEMS + 1 - 10 + bad
        assert plan["reasks"] == round(bad / 10 * (ITEMS + 1 - 10))
        run = command(capsys, "profile")[1]
        n_asked = len(server.requests)
    assert n_asked == 10 + run["calls"] and run["calls"] == ITEMS + 1 - 10 + ITEMS // 2


def test_a_pilot_refuses_without_a_cap_exactly_as_a_run_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-of-the-tests")
    write_catalogue(tmp_path, "https://models.example/v1", items=6, users=1)
    refused = [command(capsys, *words) for words in (("plan", "--pilot", "2"), ("profile",))]
    assert [code for code, _, _ in refused] == [2, 2]
    assert (
        len({last.partition("; mend it")[0] for _, _, last in refused}) == 1
        and "has no cap; nothing was sent" in refused[0][2]
    )
    assert command(capsys, "plan")[0] == 0  # a plan alone needs neither cap nor key


def test_a_pilot_stops_at_its_cap_and_keeps_what_it_paid_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with counting_server() as (url, server):
        write_catalogue(tmp_path, url, items=ITEMS, users=1, **{"cap.calls": 3})
        code, _, last = command(capsys, "plan", "--pilot", "10")
        assert code == 4 and "cap" in last and len(server.requests) == 3
        replace_setting(tmp_path, "cap.calls = 3", "cap.calls = 100")
        assert command(capsys, "plan")[1]["cached"] == 3


@pytest.mark.parametrize("engine", ["attributes", "file", "openai-batch"])
def test_an_engine_that_does_not_answer_at_once_has_no_pilot(tmp_path, monkeypatch, capsys, engine):
    monkeypatch.chdir(tmp_path)
    write_catalogue(tmp_path, "http://127.0.0.1:9/v1", items=6, users=1)
    text = (tmp_path / "semalign.toml").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("engine"))
    settings = {
        "attributes": '{ name = "attributes" }',
        "file": '{ name = "file", model = "m", requests_path = "ask.jsonl", results_path = "r.jsonl" }',
        "openai-batch": '{ name = "openai-batch", model = "m", base_url = "http://127.0.0.1:9/v1" }',
    }[engine]
    replace_setting(tmp_path, line, f"engine = {settings}")
    code, _, last = command(capsys, "plan", "--pilot", "2")
    assert code == 2 and "profiles.engine.name" in last and engine in last
    assert not (tmp_path / "ask.jsonl").exists() and not Warehouse(tmp_path / "w").snapshots()
