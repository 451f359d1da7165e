"""T-B1: kill -9 at every step of the batch protocol; no shard ever becomes two batches, no reply is lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from servers.batches import Plan, batch_server

from providers import OpenAIBatchConfig, Request
from warehouse import Ledger

STEPS = ("begin", "upload", "uploaded", "announce", "create", "submitted", "retrieve", "lines", "settle", "close")
POINTS = [(step, nth) for nth in (1, 2) for step in STEPS]
TELLING = [("upload", 2), ("announce", 1), ("create", 1), ("submitted", 1), ("submitted", 2), ("settle", 2)]
N_REQUESTS, SHARD = 60, 20


def batch_config(url: str) -> OpenAIBatchConfig:
    return OpenAIBatchConfig(model="m", base_url=url, shard_requests=SHARD, poll_s=0.01, adopt_wait_s=0.1)


def questions(config: OpenAIBatchConfig) -> list[Request]:
    return [
        config.request(messages=(("user", f"item {i}"),), schema={"type": "object"}, kind="item", entity_id=str(i))
        for i in range(N_REQUESTS)
    ]


def die_before(step: str, nth: int) -> None:
    """The nth call of this step kills the process before it begins: after all that came before has had its effect."""
    from providers.batch_server import BatchServer
    from warehouse.batches import Batches

    name = "submit" if step == "settle" else step
    owner = next(owner for owner in (Batches, Ledger, BatchServer) if name in vars(owner))
    calls, whole = [0], getattr(owner, name)

    def killing(*arguments, **named):
        calls[0] += step != "settle" or bool(named.get("settlements"))  # looking up and announcing go the same way
        if calls[0] == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*arguments, **named)

    setattr(owner, name, killing)


def child(url: str, path: str, step: str, nth: int) -> None:
    if step:
        die_before(step, nth)
    config = batch_config(url)
    with Ledger(Path(path)) as ledger, config.open() as engine:
        for completion in engine.complete(questions(config), ledger):
            print(completion.request.key, flush=True)


def run_child(url: str, path: Path, step: str = "", nth: int = 0) -> tuple[int, set[str]]:
    code = "import sys; from test_batches_killed import child; child(*sys.argv[1:4], int(sys.argv[4]))"
    tests = Path(__file__).parents[1]
    python_path = os.pathsep.join(map(str, (tests.parent, tests, Path(__file__).parent)))
    done = subprocess.run(
        [sys.executable, "-c", code, url, str(path), step, str(nth)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": python_path},
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, set(done.stdout.split())


def survives(tmp_path: Path, step: str, nth: int) -> None:
    path = tmp_path / "ledger.sqlite"
    with batch_server(lambda number, n_lines: Plan(looks=2)) as (url, backend):
        code, acknowledged = run_child(url, path, step, nth)
        assert code == -signal.SIGKILL, f"{step} {nth} was never reached"
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        with Ledger(path) as ledger:
            assert all(ledger.answered(key) is not None for key in acknowledged)
        config = batch_config(url)
        with Ledger(path) as ledger, config.open() as engine:
            completions = list(engine.complete(questions(config), ledger))
            states = [row.state for row in ledger.batches.rows()]
            assert ledger.uncertain() == 0
    assert len(backend.batches) == N_REQUESTS // SHARD, f"{step} {nth}: a shard became two batches, or none"
    assert len(completions) == N_REQUESTS and all(done.text is not None for done in completions)
    assert set(backend.charged.values()) == {1} and len(backend.charged) == N_REQUESTS
    assert states == ["harvested"] * 3


@pytest.mark.parametrize(("step", "nth"), TELLING)
def test_T_B1_killed_in_mid_protocol_the_next_run_adopts_what_was_made(tmp_path, step, nth):
    survives(tmp_path, step, nth)


@pytest.mark.full
@pytest.mark.parametrize(("step", "nth"), POINTS)
def test_T_B1_killed_at_20_points_no_shard_becomes_two_batches(tmp_path, step, nth):
    survives(tmp_path, step, nth)


def test_a_ledger_from_before_there_were_batches_opens_and_takes_them(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path):
        pass
    with sqlite3.connect(path) as db:
        db.executescript("DROP TABLE batch; DROP TABLE batch_request; DROP TABLE batch_aside; PRAGMA user_version = 2;")
    with Ledger(path, read_only=True) as ledger:
        assert ledger.batches.rows() == []
    with batch_server() as (url, _), Ledger(path) as ledger, batch_config(url).open() as engine:
        assert len(list(engine.complete(questions(batch_config(url)), ledger))) == N_REQUESTS
        assert len(ledger.batches.rows()) == 3
