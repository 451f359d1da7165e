"""`semalign embed` killed while vectors are bought: no reply on disk is lost, at most the calls in flight repeat."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.catalogue import replies, start, write_catalogue
from servers.counting import counting_server
from servers.embeddings import embedded, unit_of

from warehouse import Warehouse

IN_FLIGHT, TEXTS_A_CALL = 4, 5
SEED = 20_260_405


def write(folder: Path, url: str, items: int) -> None:
    """A catalogue whose profiles are its attributes and whose vectors come from the server."""
    write_catalogue(folder, url, items=items, users=8)
    toml = folder / "semalign.toml"
    lines = [line for line in toml.read_text(encoding="utf-8").splitlines() if not line.startswith("engine")]
    settings = {"name": "openai", "model": "m", "base_url": url, "concurrency": IN_FLIGHT, "backoff_s": 0}
    lines += ["[embeddings]", f"texts_per_call = {TEXTS_A_CALL}"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    toml.write_text("\n".join(lines), encoding="utf-8")


def survive_kills(folder: Path, kills: int, items: int, seed: int) -> dict[str, Any]:
    print(f"seed {seed}")
    rng, n_calls = random.Random(seed), items // TEXTS_A_CALL
    with counting_server(lambda number, asked: embedded(asked, delay_s=0.02)) as (url, server):
        write(folder, url, items)
        acknowledged: dict[str, str] = {}
        struck = 0
        for _ in range(kills):
            process = start("embed", folder)
            wanted = len(server.requests) + rng.randint(1, n_calls // kills)
            while len(server.requests) < wanted and process.poll() is None:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.03))
            struck += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.communicate()
            now = replies(folder)
            assert acknowledged.items() <= now.items(), f"an acknowledged reply is lost or changed (seed {seed})"
            acknowledged = now
        process = start("embed", folder)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        document = json.loads(out)
        n_requests = len(server.requests)
        again = start("embed", folder)
        assert json.loads(again.communicate(timeout=300)[0])["calls"] == 0 and len(server.requests) == n_requests
    sent = Counter(text for asked in server.requests for text in asked["input"])
    repeated = sum(sent.values()) - len(sent)
    assert len(sent) == items and repeated <= IN_FLIGHT * TEXTS_A_CALL * struck, f"seed {seed}"
    with sqlite3.connect(folder / "w" / "ledger.sqlite") as db:
        (uncertain,) = db.execute("SELECT count(*) FROM attempt WHERE state = 'sent'").fetchone()
    assert uncertain <= IN_FLIGHT * struck
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    texts = {row["entity_id"]: row["profile"] for row in snapshot.read("profiles").to_pylist() if row["profile"]}
    vectors = {
        row["entity_id"]: row["embedding"] for row in snapshot.read("embeddings_m").to_pylist() if row["kind"] == "item"
    }
    assert vectors.keys() == texts.keys()
    assert all(np.allclose(vectors[name], unit_of(text), atol=1e-6) for name, text in texts.items())
    return {
        "texts": items,
        "kills while running": struck,
        "calls": n_requests,
        "calls of the last run": document["calls"],
        "texts repeated": repeated,
        "bound": IN_FLIGHT * TEXTS_A_CALL * struck,
        "maybe paid": uncertain,
    }


def test_T_K1_killed_while_embedding_no_vector_is_lost_and_at_most_the_calls_in_flight_repeat(tmp_path):
    result = survive_kills(tmp_path, kills=3, items=400, seed=SEED)
    print(result)
    assert result["kills while running"] >= 2


def test_T_S5_asked_to_stop_while_embedding_a_run_drains_and_the_next_one_repeats_nothing(tmp_path):
    with counting_server(lambda number, asked: embedded(asked, delay_s=0.05)) as (url, server):
        write(tmp_path, url, items=200)
        process = start("embed", tmp_path)
        while len(server.requests) < 6 and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 4, err
        n_before = len(server.requests)
        process = start("embed", tmp_path)
        assert process.communicate(timeout=60) and process.returncode == 0
    sent = [text for asked in server.requests for text in asked["input"]]
    assert n_before < 40 and len(sent) == len(set(sent)) == 200


@pytest.mark.full
def test_T_K1_thirty_kills_over_four_thousand_texts(tmp_path):
    result = survive_kills(tmp_path, kills=30, items=4_000, seed=SEED + 1)
    print(result)
    assert result["kills while running"] >= 20
