"""Faults of the ledger: askers killed at any moment, and bits that flip in its file."""

import random
import time

from servers.writers import PRELUDE, first_line, killed, started

from warehouse import CorruptFileError, Ledger

LEDGER = (
    PRELUDE
    + """
from types import SimpleNamespace
from warehouse import Ledger
from concurrent.futures import ThreadPoolExecutor
ledger = Ledger(Path(sys.argv[1]) / "ledger.sqlite")
def ask(key):
    if ledger.answered(key):
        return
    n = ledger.intend(SimpleNamespace(key=key, model="m", kind="item", entity_id=key))
    with open(Path(sys.argv[1]) / "paid", "a") as paid:
        paid.write(f"{key}\\n")
    ledger.settle(key, n, SimpleNamespace(state="ok", status=200, error=None, latency_ms=1.0, tokens_in=1, tokens_out=1,
        usd=0.01, model="m", body=key.encode() * 50, rejected=None, finish_reason="stop", usage=None))
    say(f"{key}.")
say("ready")
with ThreadPoolExecutor(8) as pool:
    list(pool.map(ask, [f"k{i}" for i in range(int(sys.argv[2]))]))
"""
)


def test_T_K1_killed_askers_lose_no_answer_and_pay_twice_at_most_for_what_was_in_flight(tmp_path):
    rng, kills, keys, in_flight = random.Random(5), 4, 240, 8
    acknowledged: set[str] = set()
    for kill in range(kills + 1):
        process = started(LEDGER, tmp_path, keys)
        assert first_line(process) == "ready\n"
        if kill < kills:
            time.sleep(rng.uniform(0.05, 0.4))
            lines = killed(process)
        else:
            out, problems = process.communicate(timeout=60)
            assert process.returncode == 0, problems
            lines = out.splitlines()
        acknowledged |= {line[:-1] for line in lines if line.endswith(".")}
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            for key in acknowledged:
                answer = ledger.answered(key)
                assert answer is not None, f"{key} was acknowledged and is lost"
                assert answer.body == key.encode() * 50
    paid = (tmp_path / "paid").read_text().split()
    assert set(paid) == {f"k{i}" for i in range(keys)}
    assert len(paid) <= keys + kills * in_flight
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.uncertain() <= kills * in_flight
        assert ledger.spent().calls >= len(paid)


def test_T_K7_flipped_bytes_of_a_ledger_never_give_a_wrong_reply(tmp_path):
    from types import SimpleNamespace

    path, rng = tmp_path / "ledger.sqlite", random.Random(7)
    settled = {"state": "ok", "status": 200, "error": None, "latency_ms": 1.0, "tokens_in": 1, "tokens_out": 1}
    with Ledger(path) as ledger:
        for number in range(20):
            key = f"k{number}"
            ledger.intend(SimpleNamespace(key=key, model="m", kind="item", entity_id="1"))
            outcome = {
                **settled,
                "usd": 0.0,
                "model": "m",
                "body": key.encode() * 100,
                "rejected": None,
                "finish_reason": None,
                "usage": None,
            }
            ledger.settle(key, 1, SimpleNamespace(**outcome))
    whole = path.read_bytes()
    noticed = 0
    for _ in range(50):
        content = bytearray(whole)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        try:
            with Ledger(path) as ledger:
                for number in range(20):
                    answer = ledger.answered(f"k{number}")
                    assert answer is None or answer.body == f"k{number}".encode() * 100
        except (CorruptFileError, ValueError):
            noticed += 1
    assert noticed > 0
