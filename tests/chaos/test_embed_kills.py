"""`semalign embed` killed while it embeds: finished shards are never embedded again, and the end is the same."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from servers.embedding import noted, start_embed, vectors_of

from flows import cli
from warehouse import Warehouse

SEED = 20_261_122


def write_items(folder: Path, items: int) -> None:
    """Items with a text each, and one user."""
    rows = [
        {"item_id": f"i{n}", "title": f"Game number {n}", "description": "calm " * (n % 13 + 1)} for n in range(items)
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "rows.csv").write_text("user_id,item_id\n" + "".join(f"u,i{n}\n" for n in range(5)), encoding="utf-8")
    (folder / "semalign.toml").write_text(
        '[source]\nitems = "items.jsonl"\ninteractions = "rows.csv"\n[warehouse]\nroot = "w"\n', encoding="utf-8"
    )


def every_item_has_its_own_vector(folder: Path, items: int) -> None:
    """The one that its published text has, bit for bit; and the user has one."""
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    told = snapshot.read("profiles", filter_equal={"kind": "item"})
    expected = dict(zip(told["entity_id"].to_pylist(), vectors_of(told["profile"].to_pylist()).tolist(), strict=True))
    rows = snapshot.read("embeddings", filter_equal={"kind": "item"})
    assert dict(zip(rows["entity_id"].to_pylist(), rows["embedding"].to_pylist(), strict=True)) == expected
    assert len(expected) == items and snapshot.rows("embeddings") == items + 1


def survive(folder: Path, *, kills: int, items: int, shard_texts: int, pause_ms: int, seed: int) -> dict[str, int]:
    print(f"seed {seed}")
    rng, log = random.Random(seed), folder / "log"
    write_items(folder, items)
    assert cli.run(["profile", "--config", str(folder)]) == 0
    n_shards, struck = -(-items // shard_texts), 0
    for _ in range(kills):
        before = len(noted(log))
        process = start_embed(folder, log, shard_texts=shard_texts, pause_ms=pause_ms)
        target = before + rng.randint(1, max(1, n_shards // kills))
        while len(noted(log)) < target and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 2 * pause_ms / 1000))
        struck += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start_embed(folder, log, shard_texts=shard_texts, pause_ms=0)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    times = Counter(text for call in noted(log) for text in call)
    assert len(times) == items
    extra = times.total() - items
    assert extra <= struck * shard_texts, f"more than one shard again for each kill (seed {seed})"
    every_item_has_its_own_vector(folder, items)
    assert not list((folder / "w" / "vectors").glob("*"))
    summary = json.loads(out)
    assert summary["embedded"] + summary["embeddings_reused"] == items
    return {"kills while running": struck, "embedded": times.total(), "again": extra, "bound": struck * shard_texts}


def test_T_K1_killed_runs_embed_at_most_one_shard_again_and_end_with_the_same_vectors(tmp_path):
    result = survive(tmp_path, kills=3, items=600, shard_texts=32, pause_ms=40, seed=SEED)
    print(result)
    assert result["kills while running"] >= 2


@pytest.mark.full
def test_T_K1_thirty_kills_over_twenty_thousand_texts(tmp_path):
    result = survive(tmp_path, kills=30, items=20_000, shard_texts=128, pause_ms=40, seed=SEED + 1)
    print(result)
    assert result["kills while running"] >= 25


def test_T_I2_a_shard_that_rots_between_two_runs_is_embedded_again(tmp_path):
    write_items(tmp_path, 200)
    log = tmp_path / "log"
    process = start_embed(tmp_path, log, shard_texts=32, pause_ms=200)
    while len(noted(log)) < 4 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    shards = sorted((tmp_path / "w" / "vectors").glob("*/*"))
    assert len(shards) >= 3
    os.truncate(shards[0], shards[0].stat().st_size // 2)
    content = bytearray(shards[1].read_bytes())
    content[-3] ^= 4
    shards[1].write_bytes(content)
    process = start_embed(tmp_path, log, shard_texts=32, pause_ms=0)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["embeddings_reused"] == 32 * (len(shards) - 2)
    every_item_has_its_own_vector(tmp_path, 200)
