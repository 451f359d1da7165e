"""Faults of the warehouse: killed writers, rotten bits, full disks and two runs at once."""

import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from servers.writers import PRELUDE, READER, WRITER, first_line, killed, started

from flows import cli
from warehouse import (
    CorruptFileError,
    LockHeldError,
    LockUnsupportedError,
    Warehouse,
    arrow_table,
)


def survive_kills(root: Path, kills: int, writers: int, seed: int) -> str:
    """Writers killed together, round after round, beside one reader that never stops; what was seen, in words."""
    rng = random.Random(seed)
    acknowledged, stop = 0, root.with_name("stop")
    reader = started(READER, root, stop)
    assert first_line(reader) == "ready\n"
    for n in range(kills):
        processes = [started(WRITER, root) for _ in range(writers)]
        for process in processes:
            assert first_line(process) == "ready\n"
        # a starved machine would kill every writer before its first commit: the last round waits for one
        lines = [first_line(processes[0])] if n == kills - 1 and not acknowledged else []
        time.sleep(rng.uniform(0.02, 0.4))
        lines += [line for process in processes for line in killed(process)]
        # the last line may be cut short by the kill; whole ones were acknowledged
        acknowledged = max([acknowledged, *(int(line.split()[0]) for line in lines if len(line.split()) == 2)])
        warehouse = Warehouse(root)
        current = warehouse.current()
        if current is None:
            assert acknowledged == 0
            continue
        assert current.counter >= acknowledged, f"an acknowledged commit is lost (seed {seed})"
        warehouse.verify()
        width = current.rows("items")
        embedding = current.read("embeddings")["embedding"].combine_chunks().flatten().to_numpy()
        assert (embedding == width).all(), f"tables of two versions in one snapshot (seed {seed})"
        assert len(embedding) == width * 8
    assert acknowledged > 0
    stop.touch()
    said, problems = reader.communicate(timeout=60)
    reads, torn, backwards = map(int, said.splitlines()[0].split())
    assert (torn, backwards) == (0, 0), f"seed {seed}: {said} {problems}"
    assert reads > 0
    with warehouse.lock():
        assert list((root / "staging").iterdir()) == []
    return f"{kills * writers} kills, seed {seed}: {acknowledged} commits acknowledged, 0 lost; {reads} reads, 0 torn"


def test_T_C1_killed_commits_leave_the_old_snapshot_or_the_new_one(tmp_path):
    print(survive_kills(tmp_path / "w", kills=6, writers=1, seed=1))


@pytest.mark.full
def test_T_C1_two_writers_and_two_hundred_kills(tmp_path):
    print(survive_kills(tmp_path / "w", kills=100, writers=2, seed=2))


def test_T_C2_everything_is_on_disk_before_its_name_is_known(tmp_path, monkeypatch):
    synced: set[tuple[int, int]] = set()
    late: list[str] = []
    events: list[tuple[str, str]] = []
    real = {name: getattr(os, name) for name in ("fsync", "rename", "replace")}

    def identity(status: os.stat_result) -> tuple[int, int]:
        return status.st_dev, status.st_ino

    def fsync(descriptor):
        real["fsync"](descriptor)
        synced.add(identity(os.fstat(descriptor)))
        events.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))

    def moved(kind):
        def move(source, target):
            if identity(os.stat(source)) not in synced:
                late.append(str(source))
            real[kind](source, target)
            events.append(("name", str(target)))

        return move

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", moved("rename"))
    monkeypatch.setattr(os, "replace", moved("replace"))
    warehouse = Warehouse(tmp_path)
    with warehouse.lock():
        builder = warehouse.begin(None)
        builder.replace("items", arrow_table("items", {"item_id": ["1"], "attributes": ["{}"]}))
        snapshot = warehouse.publish(builder.commit())
    assert late == []
    names = [target for kind, target in events if kind == "name"]
    order = [
        str(snapshot.tables["items"][0].path),
        str(tmp_path / "snapshots" / snapshot.id),
        str(tmp_path / "CURRENT"),
    ]
    places = [names.index(name) for name in order]
    assert places == sorted(places)
    for name in order:
        after = events[events.index(("name", name)) :]
        folder = ("fsync", str(Path(name).parent))
        assert folder in after, f"the folder of {name} was not synced"
        following = [target for kind, target in after[1 : after.index(folder)] if kind == "name"]
        assert all(Path(target).parent == Path(name).parent for target in following), "another name before the sync"


FULL_DISK = (
    PRELUDE
    + """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with warehouse.lock("run"):
    builder = warehouse.begin(warehouse.current())
    rng = np.random.default_rng(0)
    n = 2000
    vectors = {"kind": ["item"] * n, "entity_id": [str(i) for i in range(n)], "text_hash": ["h"] * n}
    builder.replace("embeddings_x", arrow_table("embeddings_x", {**vectors, "embedding": rng.normal(size=(n, 32))}))
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    try:
        warehouse.publish(builder.commit())
    except Exception as error:
        say(f"{type(error).__name__} {getattr(error, 'exit_code', None)} {error}")
"""
)


def survive_a_full_disk(root: Path, limit_bytes: int) -> None:
    """A commit that may not write a file beyond so many bytes changes nothing that can be seen."""
    warehouse = Warehouse(root)
    with warehouse.lock():
        builder = warehouse.begin(None)
        builder.replace("items", arrow_table("items", {"item_id": ["1"], "attributes": ["{}"]}))
        published = warehouse.publish(builder.commit())
    process = started(FULL_DISK, root, limit_bytes)
    out, problems = process.communicate(timeout=60)
    assert out.startswith("DiskFullError 4 the disk is full"), problems
    assert warehouse.current().id == published.id
    assert list((root / "staging").iterdir()) == []
    assert warehouse.verify().files == 1


@pytest.mark.parametrize("limit_bytes", [10, 4096, 150_000])
def test_T_C3_a_full_disk_leaves_what_was_published_and_an_empty_staging(tmp_path, limit_bytes):
    survive_a_full_disk(tmp_path, limit_bytes)


@pytest.mark.full
@pytest.mark.parametrize("limit_bytes", [int(10 * 1.38**step) for step in range(30)])
def test_T_C3_thirty_sizes(tmp_path, limit_bytes):
    survive_a_full_disk(tmp_path, limit_bytes)


@pytest.mark.full
def test_T_I2_two_hundred_bits_through_verify_full_and_through_reads(tmp_path, capsys):
    """Each flip twice: seen by the command whatever the notes say, and by a read that has no note of it."""
    warehouse, rng = Warehouse(tmp_path), random.Random(11)
    n = 500
    columns = {"kind": ["item"] * n, "entity_id": [str(i) for i in range(n)], "text_hash": ["h"] * n}
    embedding = np.random.default_rng(0).normal(size=(n, 16))
    with warehouse.lock():
        builder = warehouse.begin(None)
        builder.replace("embeddings_x", arrow_table("embeddings_x", {**columns, "embedding": embedding}))
        snapshot = warehouse.publish(builder.commit())
    path = snapshot.tables["embeddings_x"][0].path
    path.chmod(0o600)
    whole, status = path.read_bytes(), path.stat()
    words = ["verify", "--full", "--root", str(tmp_path)]
    found = {"verify --full": 0, "read": 0, "training's read": 0}
    for _ in range(200):
        content = bytearray(whole)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        with path.open("r+b") as stream:
            stream.write(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        found["verify --full"] += cli.run(words) == 6
        with pytest.raises(CorruptFileError):
            snapshot.doubting().read("embeddings")
        found["training's read"] += 1
        path.touch()
        with pytest.raises(CorruptFileError):
            snapshot.read("embeddings")
        found["read"] += 1
        with path.open("r+b") as stream:
            stream.write(whole)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert found == dict.fromkeys(found, 200)
    assert cli.run(words) == 0
    capsys.readouterr()
    with capsys.disabled():
        print(f"T-I2: of 200 flips (seed 11) noticed: {found}")


def test_T_I2_every_flipped_bit_is_noticed(tmp_path):
    warehouse = Warehouse(tmp_path)
    rng = random.Random(3)
    n = 200
    columns = {"kind": ["item"] * n, "entity_id": [str(i) for i in range(n)], "text_hash": ["h"] * n}
    rows = arrow_table("embeddings_x", {**columns, "embedding": np.random.default_rng(0).normal(size=(n, 16))})
    with warehouse.lock():
        builder = warehouse.begin(None)
        builder.replace("embeddings_x", rows)
        snapshot = warehouse.publish(builder.commit())
    path = snapshot.tables["embeddings_x"][0].path
    path.chmod(0o600)
    whole = path.read_bytes()
    for flip in range(100):
        content = bytearray(whole)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        with pytest.raises(CorruptFileError):
            snapshot.read("embeddings", columns=["entity_id"]) if flip % 2 else warehouse.verify()
    path.write_bytes(whole)
    assert snapshot.read("embeddings").num_rows == n


def test_T_I2_a_flip_that_hides_behind_the_notes_is_found_by_verify(tmp_path):
    warehouse = Warehouse(tmp_path)
    with warehouse.lock():
        builder = warehouse.begin(None)
        builder.replace("items", arrow_table("items", {"item_id": ["1"], "attributes": ["{}"]}))
        snapshot = warehouse.publish(builder.commit())
    path = snapshot.tables["items"][0].path
    status = path.stat()
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    with path.open("r+b") as stream:
        stream.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(CorruptFileError, match="sha256"):
        warehouse.verify()


def test_every_flipped_bit_of_a_manifest_is_noticed(tmp_path):
    warehouse = Warehouse(tmp_path)
    with warehouse.lock():
        builder = warehouse.begin(None)
        builder.replace("items", arrow_table("items", {"item_id": ["1"], "attributes": ["{}"]}))
        snapshot = warehouse.publish(builder.commit())
    path = tmp_path / "snapshots" / snapshot.id / "manifest.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        content = bytearray(whole)
        content[place] ^= 1 << (place % 8)
        path.write_bytes(content)
        with pytest.raises(CorruptFileError) as caught:
            Warehouse(tmp_path).current()
        assert caught.value.exit_code == 6


def test_T_K2_of_many_runs_that_start_together_one_proceeds(tmp_path):
    code = (
        PRELUDE
        + """
go = Path(sys.argv[1]) / "go"
say("ready")
while not go.exists():
    time.sleep(0.001)
try:
    with warehouse.lock("run"):
        say("mine")
        time.sleep(1.5)
except LockHeldError as error:
    say(f"held {error.exit_code} {error.pid}")
"""
    )
    processes = [started(code, tmp_path) for _ in range(4)]
    for process in processes:
        assert first_line(process) == "ready\n"
    (tmp_path / "go").touch()
    outcomes = [process.communicate(timeout=60)[0].strip() for process in processes]
    winner = processes[outcomes.index("mine")]
    assert sorted(outcomes) == sorted(["mine", *[f"held 5 {winner.pid}"] * 3])


def test_T_K3_a_killed_run_leaves_no_lock(tmp_path):
    holder = PRELUDE + "with warehouse.lock('run'):\n    say('mine')\n    time.sleep(60)\n"
    for _ in range(2):
        process = started(holder, tmp_path)
        assert first_line(process) == "mine\n"
        warehouse = Warehouse(tmp_path)
        assert warehouse.holder()["pid"] == process.pid
        with (
            pytest.raises(LockHeldError, match=f"process {process.pid} has been running `run` since"),
            warehouse.lock(),
        ):
            pass
        killed(process)
        assert warehouse.holder() is None
        with warehouse.lock():
            assert warehouse.holder()["pid"] == os.getpid()


def test_two_holders_in_one_process_exclude_each_other_and_one_may_enter_twice(tmp_path):
    first, second = Warehouse(tmp_path), Warehouse(tmp_path)
    with first.lock("outer"), first.lock("inner"):
        with pytest.raises(LockHeldError), second.lock("other"):
            pass
        second.begin(None).commit()  # any object of the process that holds the lock may write
    with second.lock("other"):
        pass


def test_T_K8_a_file_system_that_only_pretends_to_lock_is_refused(tmp_path, monkeypatch):
    import fcntl

    monkeypatch.setattr(fcntl, "flock", lambda descriptor, kind: None)
    with (
        pytest.raises(LockUnsupportedError, match="two open files got the same exclusive lock"),
        Warehouse(tmp_path).lock(),
    ):
        pass
