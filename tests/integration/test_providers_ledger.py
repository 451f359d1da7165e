"""The engine over the real ledger: what was answered before a crash is answered from the file after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from servers.counting import PROFILE, chat, counting_server

from providers import OpenAIConfig, Request
from warehouse import Ledger


def questions(config: OpenAIConfig, n: int) -> list[Request]:
    return [
        config.request(messages=(("user", f"item {i}"),), schema={"type": "object"}, kind="item", entity_id=str(i))
        for i in range(n)
    ]


def test_a_second_run_over_the_same_ledger_makes_no_call(tmp_path: Path):
    with counting_server() as (url, server):
        config = OpenAIConfig(model="m", base_url=url)
        for _ in range(2):
            with Ledger(tmp_path / "ledger.sqlite") as ledger, config.open() as engine:
                completions = list(engine.complete(questions(config, 40), ledger))
                calls = ledger.calls()
        assert len(server.requests) == 40
    assert all(done.cached and json.loads(done.text or "") == PROFILE for done in completions)
    assert calls.num_rows == 40 and set(calls["state"].to_pylist()) == {"ok"}
    assert set(calls["tokens_in"].to_pylist()) == {100} and set(calls["usd"].to_pylist()) == {None}


CHILD = """
import sys
from providers import OpenAIConfig
from warehouse import Ledger
sys.path.insert(0, sys.argv[3])
from test_providers_ledger import questions
config = OpenAIConfig(model="m", base_url=sys.argv[1])
with Ledger(__import__("pathlib").Path(sys.argv[2])) as ledger, config.open() as engine:
    for completion in engine.complete(questions(config, 200), ledger):
        print(completion.request.key, flush=True)
"""


def test_kill_9_in_mid_run_loses_no_acknowledged_reply_and_repeats_at_most_what_was_in_flight(tmp_path: Path):
    path = tmp_path / "ledger.sqlite"
    with counting_server(lambda number, asked: chat(delay_s=0.01)) as (url, server):
        arguments = [sys.executable, "-c", CHILD, url, str(path), str(Path(__file__).parent)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as child:
            assert child.stdout is not None
            acknowledged = {child.stdout.readline().strip() for _ in range(60)}
            child.send_signal(signal.SIGKILL)
            acknowledged |= {line.strip() for line in child.stdout if len(line) == 65}
        time.sleep(0.1)
        config = OpenAIConfig(model="m", base_url=url)
        with Ledger(path) as ledger:
            assert all(ledger.answered(key) is not None for key in acknowledged)
            with config.open() as engine:
                completions = list(engine.complete(questions(config, 200), ledger))
            states = ledger.calls()["state"].to_pylist()
    assert len(completions) == 200 and all(done.text is not None for done in completions)
    assert sum(done.cached for done in completions) >= len(acknowledged) >= 60
    assert len(server.requests) <= 200 + config.concurrency
    assert states.count("ok") == 200 and states.count("sent") <= config.concurrency
