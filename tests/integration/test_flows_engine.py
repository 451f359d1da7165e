"""Profiles from a server of the OpenAI protocol: paid once, failed rows set aside and asked again only on demand."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from servers.catalogue import write_games
from servers.commands import command

from warehouse import Warehouse

HIDDEN = "CANARY-OF-THE-TEST-PART"


class Server(ThreadingHTTPServer):
    """Answers every chat; counts; fails for what the test says; keeps what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.calls: list[str] = []
        self.failing: str | None = None
        self.rambling: str | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Answers(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.calls.append(text)
        failing = self.server.failing is not None and self.server.failing in text
        reply = {"reasoning": "It says so.", "profile": f"A calm and friendly puzzle, described as number {len(text)}."}
        body = {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "tiny",
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": json.dumps(reply)}}
            ],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }
        if self.server.rambling is not None and self.server.rambling in text:
            body["choices"][0]["message"]["content"] = "no JSON at all"
        content = b"overloaded" if failing else json.dumps(body).encode()
        self.send_response(503 if failing else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def server():
    running = Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path, monkeypatch, server) -> Path:
    write_games(tmp_path, 6)
    rows = ["user_id,item_id,text,split"]
    for user in range(4):
        parts = ["train", "train", "train", "valid", "test"]
        for step, part in enumerate(parts):
            review = "liked it a lot" if part == "train" else HIDDEN
            rows.append(f"u{user},i{(user + step) % 6},{review},{part}")
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    toml = f"""
[source]
items = "items.jsonl"
interactions = "rows.csv"
[split]
kind = "given"
[profiles]
domain = "games"
max_quarantined_share = 0.2
engine = {{ name = "openai", model = "tiny", base_url = "{server.base_url}", backoff_s = 0 }}
[warehouse]
root = "w"
"""
    (tmp_path / "semalign.toml").write_text(toml, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-canary-key-of-the-tests")
    return tmp_path


def profile(capsys, *arguments: str) -> tuple[int, dict, str]:
    return command(capsys, *(arguments or ("profile",)))


def test_every_item_and_user_is_asked_about_once_and_never_again(folder, server, capsys):
    code, first, _ = profile(capsys)
    assert code == 0 and first["calls"] == len(server.calls) == 10
    code, second, last = profile(capsys)
    assert code == 0 and second["calls"] == 0 and len(server.calls) == 10 and "nothing changed" in last
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None and snapshot.rows("llm_calls") == 10 and snapshot.rows("profiles") == 10


def test_a_changed_setting_that_asks_the_same_takes_its_answers_from_the_ledger(folder, server, capsys):
    profile(capsys)
    (folder / "items.jsonl").write_text(
        (folder / "items.jsonl").read_text(encoding="utf-8").replace('"item_id": "i0"', '"price": 3, "item_id": "i0"'),
        encoding="utf-8",
    )
    code, again, _ = profile(capsys)
    assert code == 0 and (again["calls"], again["cached"]) == (0, 10) and len(server.calls) == 10


def test_nothing_of_the_test_part_is_ever_sent_and_no_key_is_ever_written(folder, server, capsys):
    assert profile(capsys)[0] == 0
    assert "liked it a lot" in "".join(server.calls) and HIDDEN not in "".join(server.calls)
    written = b"".join(path.read_bytes() for path in (folder / "w").rglob("*") if path.is_file())
    assert b"sk-a-canary-key" not in written


def test_a_failed_row_is_set_aside_and_asked_again_on_demand_only(folder, server, capsys):
    server.failing = "Game number 5"
    tolerant = ("--set", "profiles.max_quarantined_share=1.0")
    code, document, last = profile(capsys, "profile", *tolerant)
    assert code == 3 and document["profiles_failed"] >= 1 and "--retry" in last
    n_calls = len(server.calls)
    assert profile(capsys, "profile", *tolerant)[1]["calls"] == 0
    assert len(server.calls) == n_calls
    server.failing = None
    retry = ("run", "--until", "profile", "--retry", *tolerant)
    code, document, _ = profile(capsys, *retry)
    assert code == 0 and document["profiles_failed"] == 0 and document["calls"] >= 1


def test_a_row_with_an_unusable_reply_is_no_reason_to_ask_again(folder, server, capsys):
    server.rambling = "Game number 5"
    tolerant = ("--set", "profiles.max_quarantined_share=1.0")
    code, document, last = profile(capsys, "profile", *tolerant)
    assert code == 3 and document["profiles_failed"] >= 1 and document["profiles_without_reply"] == 0
    assert "--retry" not in last and "quarantine" in last
    n_calls = len(server.calls)
    server.rambling = None
    code, again, _ = profile(capsys, "run", "--until", "profile", "--retry", *tolerant)
    assert code == 3 and again["snapshot"] == document["snapshot"] and len(server.calls) == n_calls


def test_when_every_reply_is_unusable_the_run_ends_with_every_row_aside_and_a_model_of_language_refuses(
    folder, server, capsys
):
    server.rambling = "Game number"
    tolerant = ("--set", "profiles.max_quarantined_share=1.0")
    code, document, _ = profile(capsys, "profile", *tolerant)
    assert code == 3 and document["profiles_failed"] == 10
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None and (snapshot.rows("profiles"), snapshot.rows("quarantine")) == (0, 10)
    code, _, last = profile(capsys, "train", *tolerant)
    assert code == 4 and "min_coverage" in last, last


def test_a_tighter_limit_on_failed_profiles_is_looked_at_again(folder, server, capsys):
    server.rambling = "Game number 5"
    assert profile(capsys, "profile", "--set", "profiles.max_quarantined_share=1.0")[0] == 3
    code, _, last = profile(capsys, "profile", "--set", "profiles.max_quarantined_share=0.0")
    assert code == 4 and "profiles.max_quarantined_share" in last


def test_a_server_on_this_machine_costs_nothing(folder, server, capsys):
    code, document, last = profile(capsys)
    assert code == 0 and document["usd"] == 0.0 and "0.0000 USD" in last


def test_too_many_failures_stop_the_run_and_keep_the_answers(folder, server, capsys):
    server.failing = "Game number"
    code, _, last = profile(capsys)
    assert code == 4 and "profiles.max_quarantined_share" in last
    assert Warehouse(folder / "w").current() is None


def test_a_plan_counts_what_is_cached_and_sends_nothing(folder, server, capsys):
    code, document, _ = profile(capsys, "plan")
    stage = document["stages"][1]
    assert code == 0 and (stage["calls"], stage["cached"]) == (10, 0) and stage["tokens"] > 0
    assert server.calls == []
