"""A disk that fails under the ledger, or is slow: nothing acknowledged is lost, nobody goes on as if all were well."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from servers.catalogue import ROOT, start_profile, write_catalogue
from servers.counting import chat, counting_server
from servers.failing_disk import environment, failing_disk

from warehouse import Ledger

IN_FLIGHT, KEYS = 4, 24
ONE_ROLLBACK = 15  # calls to the disk at most; a commit that went on would take hundreds here

ASKER = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from warehouse import Ledger
folder = Path(sys.argv[1])
def say(text):
    os.write(1, (text + chr(10)).encode())
def ask(key):
    if ledger.answered(key):
        return
    n = ledger.intend(SimpleNamespace(key=key, model="m", kind="item", entity_id=key))
    with open(folder / "paid", "a") as paid:
        paid.write(f"{key}\\n")
    ledger.settle(key, n, SimpleNamespace(state="ok", status=200, error=None, latency_ms=1.0, tokens_in=1, tokens_out=1,
        usd=0.01, model="m", body=key.encode() * 500, rejected=None, finish_reason="stop", usage=None))
    say(f"{key} kept")
def told(error):
    say(f"error {type(error).__name__} {getattr(error, 'exit_code', None)}")
try:
    ledger = Ledger(folder / "ledger.sqlite")
except Exception as error:
    told(error)
    sys.exit()
with ThreadPoolExecutor(4) as pool:
    for asked in [pool.submit(ask, f"k{i}") for i in range(int(sys.argv[2]))]:
        if asked.exception():
            told(asked.exception())
ledger.close()
"""


def asked(folder: Path, environment: dict[str, str]) -> tuple[set[str], list[list[str]]]:
    """(keys whose reply was acknowledged, [error, exit code] in their order) of a process that asks for all."""
    command = [sys.executable, "-c", ASKER, str(folder), str(KEYS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert child.returncode == 0, child.stderr
    lines = [line.split() for line in child.stdout.splitlines()]
    return {words[0] for words in lines if words[1] == "kept"}, [words[1:] for words in lines if words[0] == "error"]


def survive_a_failure_at(number: int, folder: Path, library: Path, code: int, stays_broken: bool) -> None:
    folder.mkdir()
    log = folder / "log"
    sick = environment(library, log, fails_at=number, stays_broken=stays_broken, errno=code)
    kept, errors = asked(folder, sick)
    calls = log.read_text(encoding="utf-8").splitlines()
    named = f"{calls[number - 1]}, {errno.errorcode[code]}, stays broken: {stays_broken}, {errors[:2]}"
    assert calls[number - 1].endswith("failed"), named
    assert errors and all(error == ["LedgerWriteError", "4"] for error in errors), named
    assert len(calls) - number <= ONE_ROLLBACK, f"it went on after the failure: {named}"
    with sqlite3.connect(folder / "ledger.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",), named
    kept_later, errors = asked(folder, {})
    assert not errors, named
    with Ledger(folder / "ledger.sqlite") as ledger:
        for key in (f"k{n}" for n in range(KEYS)):
            answer = ledger.answered(key)
            assert answer is not None and answer.body == key.encode() * 500, f"{key} is lost: {named}"
    assert not kept & kept_later, f"an acknowledged reply was asked for again: {named}"
    paid = (folder / "paid").read_text(encoding="utf-8").split()
    assert len(paid) <= KEYS + IN_FLIGHT, named


def sweep(folder: Path, numbers: range | list[int]) -> None:
    library = failing_disk(folder)
    for number in numbers:
        code, stays_broken = (errno.EIO, errno.EROFS)[number % 2], number % 3 == 0
        survive_a_failure_at(number, folder / str(number), library, code, stays_broken)


@pytest.mark.system
def test_T_K5_a_failing_write_or_sync_ends_the_ledger_and_loses_nothing(tmp_path):
    sweep(tmp_path, [1, 2, 5, 9, 14, 21, 30, 45, 63])


@pytest.mark.full
@pytest.mark.system
def test_T_K5_each_of_the_first_two_hundred_calls_to_the_disk(tmp_path):
    sweep(tmp_path, range(1, 201))


def profiled(folder: Path, disk: dict[str, str]) -> tuple[int, str, Counter[str]]:
    """(exit code, last line on standard error, states of all attempts) of `semalign profile`."""
    _, err = (process := start_profile(folder, environment=disk)).communicate(timeout=300)
    with Ledger(folder / "w" / "ledger.sqlite") as ledger:
        return process.returncode, err.strip().splitlines()[-1], Counter(ledger.calls()["state"].to_pylist())


@pytest.mark.system
def test_T_K5_a_run_on_a_disk_that_fails_stops_and_says_so_and_a_later_one_repeats_nothing(tmp_path):
    with counting_server(lambda number, asked: chat(delay_s=0.02)) as (url, server):
        write_catalogue(tmp_path, url, items=40, users=2, concurrency=IN_FLIGHT)
        sick = environment(failing_disk(tmp_path), tmp_path / "log", fails_at=130, errno=errno.EIO)
        code, last, before = profiled(tmp_path, sick)
        assert code == 4 and "ledger.sqlite could not be written" in last and "resumable: semalign" in last, last
        assert 0 < before["ok"] < 42 and not (tmp_path / "w" / "backups").exists()
        code, last, after = profiled(tmp_path, {})
    assert code == 0 and after["ok"] == 42, last
    assert after["sent"] == before["sent"] <= IN_FLIGHT and len(server.requests) <= 42 + IN_FLIGHT


def survive_a_slow_disk(folder: Path, items: int, sync_ms: int, deadline_s: float) -> None:
    """A commit syncs three times at least: a loop that waited for one would find every deadline passed."""
    with counting_server() as (url, server):
        write_catalogue(folder, url, items=items, users=1, concurrency=16, deadline_s=deadline_s, max_attempts=1)
        log = folder / "log"
        code, last, states = profiled(folder, environment(failing_disk(folder), log, sync_ms=sync_ms))
    assert code == 0 and states == {"ok": items + 1} and len(server.requests) == items + 1, last
    syncs = log.read_text(encoding="utf-8").count("sync")
    print(f"{syncs} syncs of {sync_ms} ms and more, no call beyond its deadline of {deadline_s} s")


@pytest.mark.system
def test_T_K6_no_call_passes_its_deadline_because_the_disk_is_slow(tmp_path):
    survive_a_slow_disk(tmp_path, items=12, sync_ms=400, deadline_s=1.1)


@pytest.mark.full
@pytest.mark.system
def test_T_K6_two_hundred_entities_over_syncs_of_200_ms(tmp_path):
    survive_a_slow_disk(tmp_path, items=200, sync_ms=200, deadline_s=0.6)
