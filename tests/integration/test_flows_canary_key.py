"""The key of a paid server: at debug level, under every class of failure, it is written and shown nowhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from servers.batches import Plan, batch_server
from servers.catalogue import ROOT, write_catalogue
from servers.counting import Reply, chat, counting_server, failure

# no prefix that a rule could know it by; a trace of either half is a find
CANARY = "Zq7LmW3xKp9TbR2vNc8YhJ4sFd6GaE1u"
ECHO = f"Incorrect key provided: Authorization: Bearer {CANARY}, again {CANARY}"

LOUD = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
for name in ("openai", "openai._base_client", "httpx", "httpcore", "prefect", "httpx2", "httpcore2",
             "httpcore2.http11", "httpcore2.connection", "asyncio"):
    logging.getLogger(name).setLevel(logging.DEBUG)
"""
COMMANDS = (
    LOUD
    + """
from flows import cli
for folder in sys.argv[1:]:
    print("exit code", cli.run(["profile", "--json", "--config", folder]), flush=True)
"""
)
FLOW = (
    LOUD
    + """
from flows.deployed import build_profiles
logging.getLogger().setLevel(logging.DEBUG)  # which prefect has just set otherwise
for folder in sys.argv[1:]:
    state = build_profiles(config=folder + "/semalign.toml", return_state=True)
    print("state", state.type, state.message, flush=True)
"""
)

KEPT = {"X-Echo": f"Bearer {CANARY}", "Set-Cookie": CANARY}


def said(document: Mapping[str, Any], **sending: Any) -> Reply:
    return Reply(json.dumps(document).encode(), headers=KEPT, **sending)


def echoing(**changes: Any) -> Reply:
    """A chat reply that holds the key wherever a reply holds a text."""
    message = {"role": "assistant", "content": json.dumps({"reasoning": ECHO, "profile": ECHO}), "refusal": None}
    choice = {"index": 0, "message": {**message, **changes.pop("message", {})}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, CANARY: 1}
    named = {"id": CANARY, "model": CANARY, "system_fingerprint": CANARY, "usage": usage}
    return said({**named, "choices": [{**choice, **changes}]})


ROW_FAULTS: tuple[Reply, ...] = (
    failure(429, "rate_limit_exceeded", ECHO, **{"Retry-After": "0.01", **KEPT}),
    *(failure(status, CANARY, ECHO, **KEPT) for status in (400, 408, 409, 413, 422, 425, 500, 503, 529)),
    Reply(b"", reset=True),
    chat(delay_s=1.5, usable=False),
    Reply(f"<html>{ECHO}</html>".encode(), headers={"Content-Type": "text/html", **KEPT}),
    Reply(b"{}", headers=KEPT),
    said({"error": {"message": ECHO, "code": CANARY, "type": ECHO}}),
    Reply(echoing().body[:150], headers=KEPT),
    Reply(echoing().body[:150], headers=KEPT, declared=4000),
    Reply(ECHO.encode() * 1000, headers=KEPT),
    Reply(ECHO.encode(), headers={"Content-Encoding": f"gzip, {CANARY}"}),
    Reply(ECHO.encode(), headers={"Content-Encoding": "gzip"}),
    Reply(b"", headers={f"X {CANARY}": ECHO}),
    echoing(),
    echoing(message={"refusal": ECHO}),
    echoing(finish_reason="length"),
    echoing(finish_reason="content_filter"),
    echoing(finish_reason=CANARY),
    echoing(message={"content": ""}),
    echoing(message={"content": f"\ud800 {ECHO}"}),
    echoing(message={"content": ECHO}),
)
RUN_FAULTS: tuple[Reply, ...] = (
    failure(429, "insufficient_quota", ECHO, **KEPT),
    *(failure(status, CANARY, ECHO, **KEPT) for status in (401, 402, 403, 404)),
    Reply(ECHO.encode(), status=307, headers={"Location": f"http://127.0.0.1:9/{CANARY}?key={CANARY}", **KEPT}),
)


def by_number(faults: tuple[Reply, ...]) -> Callable[[int, Mapping[str, Any]], Reply]:
    """Every other item gets a fault, each in its turn; the others a good reply, so that no circuit opens."""

    def script(number: int, asked: Mapping[str, Any]) -> Reply:
        place = re.search(r"Game number (\d+)", json.dumps(asked["messages"]))
        half, odd = divmod(int(place[1]) if place else 0, 2)
        return chat() if odd or half >= len(faults) else faults[half]

    return script


def run(folder: Path, script: str, *folders: Path) -> tuple[str, str]:
    """(stdout, stderr) of a process whose loggers let everything through."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "OPENAI_API_KEY": CANARY,
        "OPENAI_LOG": "debug",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "httpx2,httpcore2,openai,flows,providers",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "600",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-c", script, *map(str, folders)]
    child = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr[-3000:]
    (folder / "stdout").write_text(child.stdout, encoding="utf-8")
    (folder / "stderr").write_text(child.stderr, encoding="utf-8")
    return child.stdout, child.stderr


def finds(folder: Path) -> list[str]:
    """Every file in which the key, or either half of it, lies; in UTF-8 or UTF-16."""
    half = len(CANARY) // 2
    traces = [text.encode(code) for text in (CANARY[:half], CANARY[half:]) for code in ("utf-8", "utf-16-le")]
    found = []
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for trace in traces:
            if (place := content.find(trace)) >= 0:
                found.append(f"{path.relative_to(folder)}: {content[max(0, place - 80) : place + 40]!r}")
    return found


def place_for(place: Path, url: str, *, items: int, **engine: Any) -> Path:
    place.mkdir()
    quick = {"deadline_s": 1, "max_attempts": 2, "backoff_s": 0.01, "drain_s": 2, "max_bytes": 20_000}
    return write_catalogue(place, url, items=items, users=2, **quick | engine)


def batch_place_for(place: Path, url: str) -> Path:
    place.mkdir()
    return write_catalogue(place, url, items=10, users=1, name="openai-batch", poll_s=0.01, adopt_wait_s=0.05)


def test_I6_no_failure_of_any_class_writes_or_shows_the_key_at_debug_level(tmp_path):
    hostile = Plan(extra=(f'{{"custom_id": "{CANARY}"}}'.encode(), ECHO.encode()), corrupt=0.2, nameless=True)
    refusing = Plan(status="failed", errors=((CANARY, ECHO),))
    with (
        counting_server(by_number(ROW_FAULTS)) as (rows_url, rows_server),
        counting_server(lambda number, asked: RUN_FAULTS[min(number, len(RUN_FAULTS)) - 1]) as (runs_url, _),
        batch_server(lambda number, n: hostile) as (batch_url, backend),
        batch_server(lambda number, n: refusing) as (refusing_url, _),
    ):
        backend.profile = {"reasoning": ECHO, "profile": ECHO}
        rows = place_for(tmp_path / "rows", rows_url, items=2 * len(ROW_FAULTS))
        stopped = [place_for(tmp_path / "run", runs_url, items=9, concurrency=1)] * len(RUN_FAULTS)
        batches = [
            batch_place_for(tmp_path / "batch", batch_url),
            batch_place_for(tmp_path / "refused", refusing_url),
        ]
        out, err = run(tmp_path, COMMANDS, rows, *stopped, *batches)
        assert {headers["authorization"] for headers in rows_server.headers} == {f"Bearer {CANARY}"}
    codes = [int(line.split()[-1]) for line in out.splitlines() if line.startswith("exit code")]
    assert codes == [3, *[4] * len(stopped), 3, 4], err[-3000:]
    assert "DEBUG:asyncio:" in err, "the log was not at its loudest"
    assert "http_401" in err and "http_307" in err and "insufficient_quota" in err
    assert finds(tmp_path) == []


@pytest.mark.full
def test_I6_a_prefect_flow_leaves_no_trace_of_the_key_in_its_database(tmp_path):
    with (
        counting_server(by_number(ROW_FAULTS)) as (rows_url, _),
        counting_server(lambda number, asked: RUN_FAULTS[1]) as (runs_url, _),
    ):
        rows = place_for(tmp_path / "rows", rows_url, items=2 * len(ROW_FAULTS))
        stopped = place_for(tmp_path / "run", runs_url, items=9)
        out, _ = run(tmp_path, FLOW, rows, stopped)
    assert "state StateType.COMPLETED" in out and "state StateType.FAILED" in out, out
    database = [path.read_bytes() for path in (tmp_path / "prefect").glob("prefect.db*")]
    assert any(b"http_401" in content for content in database), "the refusal is told, without the key in it"
    assert finds(tmp_path) == []
