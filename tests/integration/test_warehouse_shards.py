"""Vector shards: whole or absent, never believed when they changed, gone when nobody needs them."""

from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from servers.published import publish

from warehouse import DiskFullError, LockRequiredError, VectorShards, Warehouse, forget_user

KEY = "e" * 64
SEED = 20_261_121


def shard(number: int, rows: int = 7, dim: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """(hashes, vectors), different for every number."""
    hashes = np.array([f"{number:032x}{row:032x}".encode() for row in range(rows)], "S64")
    return hashes, np.random.default_rng(number).normal(size=(rows, dim)).astype(np.float32)


def stored(root: Path) -> dict[bytes, list[float]]:
    """hash → vector of everything that can be read."""
    read = VectorShards(root, KEY).read()
    return {bytes(one): row.tolist() for hashes, rows in read for one, row in zip(hashes, rows, strict=True)}


def expected(*numbers: int) -> dict[bytes, list[float]]:
    pairs = [shard(number) for number in numbers]
    return {bytes(one): row.tolist() for hashes, rows in pairs for one, row in zip(hashes, rows, strict=True)}


def test_shards_come_back_as_they_were_written_and_each_encoder_has_its_own(tmp_path):
    shards = VectorShards(tmp_path, KEY)
    assert list(shards.read()) == []
    for number in (1, 2, 2):
        shards.add(*shard(number))
    assert stored(tmp_path) == expected(1, 2)
    assert list(VectorShards(tmp_path, "f" * 64).read()) == []
    shards.remove()
    shards.remove()
    assert stored(tmp_path) == {}


def test_T_I2_a_torn_or_rotten_shard_is_dropped_and_the_others_stay(tmp_path):
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    for trial in range(60):
        shards = VectorShards(tmp_path / str(trial), KEY)
        for number in (1, 2, 3):
            shards.add(*shard(number))
        victim = rng.choice(sorted((tmp_path / str(trial) / "vectors" / KEY).iterdir()))
        content = bytearray(victim.read_bytes())
        if trial % 2:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        else:
            del content[rng.randrange(len(content)) :]
        victim.chmod(0o600)
        victim.write_bytes(content)
        left = stored(tmp_path / str(trial))
        assert len(left) == 14 and left.items() <= expected(1, 2, 3).items(), f"trial {trial}"
        assert not victim.exists()


def test_a_shard_of_another_format_is_not_read(tmp_path):
    import hashlib

    VectorShards(tmp_path, KEY).add(*shard(1))
    content = json.dumps({"format": 2}).encode() + b"\nwhatever"
    folder = tmp_path / "vectors" / KEY
    (folder / hashlib.sha256(content).hexdigest()).write_bytes(content)
    assert stored(tmp_path) == expected(1)


def test_T_C3_on_a_full_disk_earlier_shards_stay_and_nothing_of_the_last_one(tmp_path, monkeypatch):
    shards = VectorShards(tmp_path, KEY)
    shards.add(*shard(1))
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(DiskFullError) as refused:
            shards.add(*shard(2))
    assert refused.value.exit_code == 4
    assert stored(tmp_path) == expected(1) and list((tmp_path / "staging").iterdir()) == []
    shards.add(*shard(2))
    assert stored(tmp_path) == expected(1, 2)


def test_collecting_garbage_and_forgetting_a_user_remove_every_shard(tmp_path):
    warehouse = publish(tmp_path)
    with pytest.raises(LockRequiredError):
        warehouse.vector_shards(KEY)
    with warehouse.lock():
        warehouse.vector_shards(KEY).add(*shard(1))
        size = sum(path.stat().st_size for path in (tmp_path / "vectors").rglob("*") if path.is_file())
        assert warehouse.gc().freed_bytes == size > 0
        assert not (tmp_path / "vectors").exists()
        warehouse.vector_shards(KEY).add(*shard(1))
        forget_user(warehouse, "u")
    assert not (tmp_path / "vectors").exists() and Warehouse(tmp_path).current() is not None
