"""`semalign profile` killed, stopped, started twice, out of disk: no acknowledged reply is lost, none is paid twice."""

from __future__ import annotations

import json
import random
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from servers.catalogue import replies, start_profile, write_catalogue
from servers.commands import command
from servers.counting import CountingServer, Reply, chat, counting_server, failure, faulty

from warehouse import LockHeldError, Warehouse

IN_FLIGHT = 16
ATTEMPTS_EVER = 10
SEED = 20_260_402


def wait_for(server: CountingServer, n_requests: int, process: subprocess.Popen[str]) -> None:
    """Until the server has seen so many, or the process has ended by itself."""
    while len(server.requests) < n_requests and process.poll() is None:
        time.sleep(0.002)


def ended(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    """(exit code, JSON document, last line on standard error)."""
    out, err = process.communicate(timeout=300)
    return process.returncode, json.loads(out) if out else {}, err.strip().splitlines()[-1] if err.strip() else ""


def attempts(folder: Path) -> Counter[str]:
    with sqlite3.connect(folder / "w" / "ledger.sqlite") as db:
        return Counter(dict(db.execute("SELECT key, max(n) FROM attempt GROUP BY key")))


def every_entity_is_done_or_quarantined(folder: Path, items: int, users: int) -> Counter[str]:
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    places: list[tuple[str, str, str]] = []
    for table, place in (("profiles", "done"), ("quarantine", "quarantined")):
        rows = snapshot.read(table, columns=["kind", "entity_id"]).to_pylist()
        places += [(row["kind"], row["entity_id"], place) for row in rows]
    named = [(kind, entity_id) for kind, entity_id, _ in places]
    everyone = {("item", f"i{n}") for n in range(items)} | {("user", f"u{n}") for n in range(users)}
    assert len(named) == len(set(named)) and set(named) == everyone
    return Counter(place for _, _, place in places)


def extra_answers(server: CountingServer) -> int:
    """How many usable replies were fetched for a question that had been answered in time before."""
    return sum(max(0, times - 1) for times in server.usable.values())


def survive_kills(folder: Path, kills: int, items: int, users: int, seed: int) -> dict[str, Any]:
    print(f"seed {seed}")
    rng, n, started = random.Random(seed), items + users, time.monotonic()
    with counting_server(faulty(seed, share=0.3, hang_s=3.0)) as (url, server):
        write_catalogue(
            folder, url, items=items, users=users, deadline_s=2, backoff_s=0.02, concurrency=IN_FLIGHT,
            max_attempts_ever=ATTEMPTS_EVER,
        )  # fmt: skip
        acknowledged: dict[str, str] = {}
        struck = 0
        for _ in range(kills):
            process = start_profile(folder)
            wait_for(server, len(server.requests) + rng.randint(1, 2 * n // kills), process)
            time.sleep(rng.uniform(0, 0.1))
            struck += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.communicate()
            now = replies(folder)
            assert acknowledged.items() <= now.items(), f"an acknowledged reply is lost or changed (seed {seed})"
            acknowledged = now
        code, document, last = ended(start_profile(folder, "--set", "profiles.engine.deadline_s=20"))
    assert code in (0, 3), last
    assert acknowledged.items() <= replies(folder).items()
    places = every_entity_is_done_or_quarantined(folder, items, users)
    assert places["quarantined"] == document["profiles_failed"]
    assert max(attempts(folder).values()) <= ATTEMPTS_EVER
    duplicates = extra_answers(server)
    assert duplicates <= IN_FLIGHT * kills
    return {
        "seconds": round(time.monotonic() - started, 1),
        "kills while running": struck,
        "calls": len(server.requests),
        "duplicates": duplicates,
        "bound": IN_FLIGHT * kills,
        "most attempts of a key": max(attempts(folder).values()),
        **places,
    }


def test_T_K1_killed_runs_lose_no_reply_and_repeat_at_most_what_was_in_flight(tmp_path):
    result = survive_kills(tmp_path, kills=5, items=140, users=10, seed=SEED)
    print(result)
    assert result["kills while running"] >= 3


@pytest.mark.full
def test_T_K1_fifty_kills_over_two_thousand_entities(tmp_path):
    result = survive_kills(tmp_path, kills=50, items=1_900, users=100, seed=SEED + 1)
    print(result)
    assert result["kills while running"] >= 40


def kill_at_half(folder: Path, items: int, users: int) -> int:
    """Calls in all of a run killed at half and one that resumes it, without any fault."""
    n = items + users
    with counting_server(lambda number, asked: chat(delay_s=0.01)) as (url, server):
        write_catalogue(folder, url, items=items, users=users, concurrency=IN_FLIGHT)
        process = start_profile(folder)
        wait_for(server, n // 2, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        code, document, last = ended(start_profile(folder))
    assert code == 0, last
    assert document["cached"] >= n // 2 - 2 * IN_FLIGHT
    assert every_entity_is_done_or_quarantined(folder, items, users) == {"done": n}
    return len(server.requests)


def test_a_run_killed_at_half_and_resumed_calls_no_more_than_once_and_what_was_in_flight(tmp_path):
    assert kill_at_half(tmp_path, 180, 20) <= 200 + IN_FLIGHT


@pytest.mark.full
def test_a_run_of_two_thousand_killed_at_half_and_resumed(tmp_path):
    calls = kill_at_half(tmp_path, 1_900, 100)
    print(f"{calls} calls for 2,000 entities")
    assert calls <= 2_000 + IN_FLIGHT


@contextmanager
def gated(folder: Path, items: int, users: int) -> Iterator[tuple[CountingServer, threading.Event]]:
    """A catalogue whose server answers nothing before the gate is opened."""
    gate = threading.Event()

    def script(number: int, asked: Mapping[str, Any]) -> Reply:
        gate.wait(240)
        return chat()

    with counting_server(script) as (url, server):
        write_catalogue(folder, url, items=items, users=users, deadline_s=300, concurrency=IN_FLIGHT)
        yield server, gate


@pytest.mark.parametrize(
    ("starts", "items", "users"), [(6, 60, 4), pytest.param(20, 1_900, 100, marks=pytest.mark.full)]
)
def test_T_K2_of_many_simultaneous_starts_one_runs_and_pays(tmp_path, starts, items, users):
    with gated(tmp_path, items, users) as (server, gate):
        processes = [start_profile(tmp_path) for _ in range(starts)]
        while sum(process.poll() is None for process in processes) > 1:
            time.sleep(0.01)
        (winner,) = [process for process in processes if process.poll() is None]
        while not server.requests:
            time.sleep(0.01)
        asked = time.monotonic()
        with pytest.raises(LockHeldError), Warehouse(tmp_path / "w").lock():
            pass
        assert time.monotonic() - asked < 1
        gate.set()
        endings = {process.pid: ended(process) for process in processes}
    assert endings[winner.pid][0] == 0
    losers = [ending for pid, ending in endings.items() if pid != winner.pid]
    assert [code for code, _, _ in losers] == [5] * (starts - 1)
    assert all(f"process {winner.pid} " in last and "semalign profile" in last for _, _, last in losers)
    assert len(server.requests) == items + users == sum(server.usable.values())


def survive_signals(folder: Path, signals: int, items: int, users: int, seed: int) -> int:
    """Calls in all of runs that were asked to stop, one after the other, and a last one that was not."""
    print(f"seed {seed}")
    rng, n = random.Random(seed), items + users
    with counting_server(lambda number, asked: chat(delay_s=0.2)) as (url, server):
        write_catalogue(folder, url, items=items, users=users, concurrency=IN_FLIGHT)
        for _ in range(signals):
            process = start_profile(folder)
            wait_for(server, len(server.requests) + rng.randint(1, max(2, n // (2 * signals))), process)
            process.send_signal(rng.choice([signal.SIGTERM, signal.SIGINT]))
            code, _, last = ended(process)
            assert code == 4 and "stopped by SIG" in last and "resumable: semalign profile" in last, last
            with Warehouse(folder / "w").ledger(read_only=True) as ledger:
                assert ledger.uncertain() == 0, "a drain leaves nothing uncertain"
                assert ledger.spent().calls == len(server.requests)
        code, _, last = ended(start_profile(folder))
    assert code == 0, last
    assert every_entity_is_done_or_quarantined(folder, items, users) == {"done": n}
    return len(server.requests)


def test_T_S5_a_run_that_is_asked_to_stop_drains_and_the_next_one_repeats_nothing(tmp_path):
    assert survive_signals(tmp_path, 1, 90, 6, SEED) == 96


@pytest.mark.full
def test_T_S5_fifty_signals(tmp_path):
    assert survive_signals(tmp_path, 50, 1_900, 100, SEED + 1) == 2_000


def profile(monkeypatch: pytest.MonkeyPatch, capsys: Any, folder: Path) -> tuple[int, dict[str, Any], str]:
    """The same command in this process."""
    monkeypatch.chdir(folder)
    return command(capsys, "profile")


def test_T_L3_a_quota_that_ends_says_how_many_are_done_and_pending_and_how_to_go_on(tmp_path, monkeypatch, capsys):
    paid_again = threading.Event()

    def script(number: int, asked: Mapping[str, Any]) -> Reply:
        return chat() if number <= 50 or paid_again.is_set() else failure(429, "insufficient_quota")

    with counting_server(script) as (url, server):
        write_catalogue(tmp_path, url, items=120, users=10, concurrency=IN_FLIGHT)
        code, _, last = profile(monkeypatch, capsys, tmp_path)
        stopped_after = time.monotonic() - server.arrived_s[50]
        assert code == 4 and len(server.requests) <= 50 + IN_FLIGHT and stopped_after < 3
        assert "profiles of items: 50 done, 70 pending" in last and "insufficient_quota" in last
        assert last.endswith("resumable: semalign profile --json")
        assert len(list((tmp_path / "w" / "backups").iterdir())) == 1, "what was paid is backed up"
        paid_again.set()
        code, document, last = profile(monkeypatch, capsys, tmp_path)
    assert code == 0 and document["cached"] == 50, last
    assert set(server.usable.values()) == {1} and len(server.usable) == 130


def test_T_K4_a_full_disk_ends_the_run_and_it_completes_when_there_is_room(tmp_path, monkeypatch, capsys):
    """No file system to fill is needed: SQLite reports the same when it may not use more pages."""
    from warehouse import ledger_file

    real = ledger_file._prepare

    def small(db: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
        real(db, path, read_only=read_only)
        db.execute("PRAGMA max_page_count = 25")

    with counting_server(lambda number, asked: chat(delay_s=0.01)) as (url, server):
        write_catalogue(tmp_path, url, items=180, users=20, concurrency=IN_FLIGHT)
        with monkeypatch.context() as patch:
            patch.setattr(ledger_file, "_prepare", small)
            code, _, last = profile(monkeypatch, capsys, tmp_path)
        assert code == 4 and "disk is full" in last and "bytes were to be written" in last, last
        acknowledged = replies(tmp_path)
        assert 0 < len(acknowledged) < 200
        code, document, last = profile(monkeypatch, capsys, tmp_path)
    assert code == 0, last
    assert acknowledged.items() <= replies(tmp_path).items() and document["cached"] == len(acknowledged)
    assert len(server.requests) <= 200 + IN_FLIGHT
    assert every_entity_is_done_or_quarantined(tmp_path, 180, 20) == {"done": 200}


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 200 MiB, where the system lets us mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", place], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("no tmpfs can be mounted here; the form with few pages covers the rest")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.full
@pytest.mark.system
def test_T_K4_a_full_file_system(small_disk):
    long = chat()
    long = replace(long, body=long.body[:-1] + b', "padding": "' + b"x" * 4_000 + b'"}')
    ballast = small_disk / "ballast"

    def script(number: int, asked: Mapping[str, Any]) -> Reply:
        if number == 200:  # another program takes what is left, all but 2 MiB
            ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 2 * 1024**2))
        return long

    with counting_server(script) as (url, server):
        write_catalogue(small_disk, url, items=1_900, users=100, concurrency=IN_FLIGHT)
        code, _, last = ended(start_profile(small_disk))
        assert code == 4 and "disk is full" in last, last
        acknowledged, calls = replies(small_disk), len(server.requests)
        code, _, last = ended(start_profile(small_disk))
        assert code == 4 and "too little room" in last and len(server.requests) == calls, last
        ballast.unlink()
        code, document, last = ended(start_profile(small_disk))
    assert code in (0, 3), last
    print(f"full after {len(acknowledged)} replies and {calls} calls, {len(server.requests)} calls in all; {last}")
    assert acknowledged and acknowledged.items() <= replies(small_disk).items()
    assert document["cached"] >= len(acknowledged) and len(server.requests) <= 2_000 + IN_FLIGHT
