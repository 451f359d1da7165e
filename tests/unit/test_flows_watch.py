"""Watching a warehouse: lines where nobody draws, nothing taken, and being stopped is a good end."""

from __future__ import annotations

import json
import time

from flows import cli
from flows.errors import InterruptedRunError
from flows.watch import line_of, rows_of
from warehouse import Warehouse

QUIET = {"calls": 0, "tokens_in": 0, "tokens_out": 0, "usd": 0.0, "unpriced": 0, "uncertain": 0}
SEEN = {
    "at": "2026-05-01T12:03:05+00:00",
    "running": {"pid": 7, "command": "run", "since": "2026-05-01T12:00:00+00:00"},
    "published": "000002-b",
    "newest": "000003-c",
    "stage": "embed",
    "quarantined": 2,
    "models": 3,
    "training": ["abc"],
    "calls": QUIET | {"calls": 1_200, "tokens_in": 1_000, "tokens_out": 500, "usd": 0.25},
}


def stopped_after(looks, monkeypatch):
    """Sleeps nothing, and stops the command as Ctrl-C does behind so many looks."""
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == looks:
            raise InterruptedRunError("SIGINT")

    monkeypatch.setattr(time, "sleep", sleep)
    return slept


def test_a_look_says_who_runs_for_how_long_what_is_done_and_what_it_cost():
    assert line_of(SEEN) == (
        "runs `run` for 3m05s (process 7); stage embed is done in 000003-c; published 000002-b; asked 1,200 calls, "
        "1,500 tokens, 0.2500 USD; models 3 trained, abc in training; aside 2 rows in quarantine"
    )


def test_a_clock_that_was_set_back_and_a_run_without_a_name_are_no_reason_to_fail():
    back = SEEN | {"running": SEEN["running"] | {"since": "2026-05-01T13:00:00+00:00"}}
    assert dict(rows_of(back))["runs"] == "`run` for 0 ms (process 7)"
    assert dict(rows_of(SEEN | {"running": {}}))["runs"].startswith("`a run that has not said its name`")


def test_it_looks_at_every_interval_until_it_is_stopped_and_ends_well(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    slept = stopped_after(3, monkeypatch)
    with Warehouse(tmp_path / "w").lock("another run"):
        code = cli.run(["status", "--watch", "--every", "0.5", "--root", "w"])
    out, err = capsys.readouterr()
    assert code == 0 and slept == [0.5, 0.5, 0.5]
    assert len(out.splitlines()) == 3 and all("`another run`" in line for line in out.splitlines())
    assert err.startswith("semalign: runs `another run`") and "semalign status" in err


def test_json_is_one_document_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stopped_after(2, monkeypatch)
    assert cli.run(["status", "--watch", "--root", "w", "--json"]) == 0
    looks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(looks) == 2 and looks[0]["running"] is None and looks[0]["published"] is None
    assert list(tmp_path.rglob("*")) == [], "looking makes nothing"


def test_on_a_terminal_the_page_is_drawn_in_place(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    stopped_after(2, monkeypatch)
    assert cli.run(["status", "--watch", "--root", "w"]) == 0
    out, _ = capsys.readouterr()
    assert "Ctrl-C ends this" in out and "\x1b[" in out
