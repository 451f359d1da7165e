"""A request in a batch that nobody has collected yet is asked by no other engine, wherever that asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from servers.batches import Plan, batch_server
from servers.catalogue import write_catalogue
from servers.counting import chat, counting_server

from flows import cli

ITEMS = 8


def profile(
    folder: Path, capsys: pytest.CaptureFixture[str], url: str, *words: str, items: int = ITEMS, **engine: Any
) -> tuple[int, str]:
    """(exit code, last line on standard error) of a run with this engine."""
    write_catalogue(folder, url, items=items, users=1, **engine)
    capsys.readouterr()
    code = cli.run(["profile", "--json", *words])
    return code, capsys.readouterr().err.strip().splitlines()[-1]


def batch(**settings: Any) -> dict[str, Any]:
    return {"name": "openai-batch", "poll_s": 0.01, "adopt_wait_s": 0.05, **settings}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_an_open_batch_holds_is_left_and_the_batch_is_named_until_it_is_collected(folder, capsys):
    with (
        batch_server(lambda number, n: Plan("in_progress", finished=0.5)) as (batch_url, backend),
        counting_server(lambda number, asked: chat()) as (url, server),
    ):
        code, last = profile(folder, capsys, batch_url, **batch(wait_s=0.0))
        assert code == 4 and f"{ITEMS} requests of this run are still at the server" in last
        code, last = profile(folder, capsys, url)
        assert code == 4 and server.requests == []
        assert f"0 done, {ITEMS} pending" in last and f"{ITEMS} requests to `tiny` are in batch_1" in last
        assert "would pay twice" in last and "semalign batches cancel" in last
        write_catalogue(folder, batch_url, items=ITEMS, users=1, **batch())
        assert cli.run(["batches", "cancel", "--all"]) == 0
        code, last = profile(folder, capsys, url)
        assert code == 4 and server.requests == [], "cancelled is not collected: half of it was paid for"
        only_collect = ("--set", "profiles.engine.cap.calls=0")
        code, last = profile(folder, capsys, batch_url, *only_collect, **batch())
        assert code == 4 and f"{ITEMS // 2} done, {ITEMS // 2} pending" in last and len(backend.batches) == 1
        code, last = profile(folder, capsys, url)
        assert code == 0, last
    assert set(backend.charged.values()) == {1} and len(backend.charged) == ITEMS // 2
    assert len(server.requests) == ITEMS // 2 + 1


def test_other_requests_are_answered_while_a_batch_holds_its_own(folder, capsys):
    with (
        batch_server(lambda number, n: Plan("in_progress")) as (batch_url, _),
        counting_server(lambda number, asked: chat()) as (url, server),
    ):
        assert profile(folder, capsys, batch_url, **batch(wait_s=0.0))[0] == 4
        code, last = profile(folder, capsys, url, items=ITEMS + 3)
        assert code == 4 and f"3 done, {ITEMS} pending" in last
        assert len(server.requests) == 3


def test_a_batch_at_another_address_holds_its_requests_too(folder, capsys):
    with (
        batch_server(lambda number, n: Plan("in_progress")) as (first_url, _),
        batch_server() as (second_url, second),
    ):
        assert profile(folder, capsys, first_url, **batch(wait_s=0.0))[0] == 4
        code, last = profile(folder, capsys, second_url, **batch())
    assert code == 4 and "are in batch_1" in last and not second.batches


def test_what_a_server_has_lost_is_paid_again_by_another_engine_only_when_it_is_said(folder, capsys):
    with (
        batch_server(lambda number, n: Plan(looks=2)) as (batch_url, backend),
        counting_server(lambda number, asked: chat()) as (url, server),
    ):
        assert profile(folder, capsys, batch_url, **batch(wait_s=0.0))[0] == 4
        backend.batches.clear()
        code, last = profile(folder, capsys, batch_url, **batch())
        assert code == 4 and "results gone" in last
        assert profile(folder, capsys, url)[0] == 4 and server.requests == []
        assert profile(folder, capsys, url, "--repay")[0] == 0
    assert len(server.requests) == ITEMS + 1
