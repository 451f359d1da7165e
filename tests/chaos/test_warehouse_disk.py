"""A disk that fails while Parquet is written, and the order in which names and bytes reach it, as the kernel saw it."""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from servers.failing_disk import environment, failing_disk
from servers.writers import PRELUDE, started

from flows import cli
from warehouse import DiskFaultError, DiskFullError, Warehouse, disk_fault

# commits and publishes again and again on a disk that fails one call later each time, until no call is left to fail
SWEEP = (
    PRELUDE
    + """
import json, pyarrow, duckdb
log, step = Path(sys.argv[2]), int(sys.argv[3])
def calls():
    return int(log.read_text().splitlines()[-1].split()[0]) if log.exists() else 0
def commit(number):
    builder = warehouse.begin(warehouse.current())
    builder.replace("items", items(number))
    n = 50
    vectors = {"kind": ["item"] * n, "entity_id": [str(i) for i in range(n)], "text_hash": ["h"] * n}
    builder.replace("embeddings_x", arrow_table("embeddings_x", {**vectors, "embedding": np.full((n, 8), number)}))
    return warehouse.publish(builder.commit())
at, outcomes = 1, []
with warehouse.lock("run"):
    commit(1)
    while True:
        before, start = warehouse.current().id, calls()
        os.environ["DISK_FAILS_AT"] = str(start + at)
        try:
            commit(at + 1)
            error = None
        except Exception as caught:
            error = caught
        made = calls() - start
        os.environ["DISK_FAILS_AT"] = "0"
        now = Warehouse(warehouse.root).current()
        now.verify()
        outcomes.append({
            "failed": at, "error": type(error).__name__, "exit": getattr(error, "exit_code", None), "said": str(error),
            "moved": now.id != before, "staged": len(list((warehouse.root / "staging").iterdir())),
        })
        if made < at:
            break
        at += step
print(json.dumps(outcomes))
"""
)


def swept(folder: Path, code: int, step: int) -> list[dict]:
    """What became of a commit for every write, truncation and sync that failed in it."""
    library, log, root = failing_disk(folder), folder / "disk.log", folder / "w"
    surroundings = environment(library, log, errno=code, watch=str(root))
    process = started(SWEEP, root, log, step, environment=surroundings)
    out, problems = process.communicate(timeout=300)
    assert process.returncode == 0, problems[-3000:]
    return json.loads(out)


def check_sweep(outcomes: list[dict], name: str) -> None:
    failed, last = outcomes[:-1], outcomes[-1]
    assert len(failed) >= 3 and last["error"] == "NoneType"
    for outcome in failed:
        assert (outcome["error"], outcome["exit"]) == (name, 4), outcome
        assert re.search("what is published is (whole|untouched)", outcome["said"]), outcome
        assert outcome["staged"] == 0, outcome


def test_T_K5_a_disk_that_fails_under_a_commit_stops_the_run_with_what_and_where_and_the_cure(tmp_path):
    check_sweep(swept(tmp_path, errno.EIO, step=4), "DiskFaultError")


@pytest.mark.full
@pytest.mark.parametrize(
    ("code", "name"),
    [(errno.EIO, "DiskFaultError"), (errno.EROFS, "DiskFaultError"), (errno.ENOSPC, "DiskFullError")],
)
def test_T_K5_every_write_and_sync_of_a_commit_fails_once(tmp_path, code, name):
    outcomes = swept(tmp_path, code, step=1)
    check_sweep(outcomes, name)
    moved = sum(outcome["moved"] for outcome in outcomes[:-1])
    print(
        f"{errno.errorcode[code]}: {len(outcomes) - 1} calls failed, one a commit; {moved} of them after CURRENT moved"
    )


@pytest.mark.parametrize(
    ("code", "kind", "cure"),
    [(errno.EIO, DiskFaultError, "Mend or change the disk"), (errno.ENOSPC, DiskFullError, "make room")],
)
def test_an_error_of_the_disk_itself_is_no_bug_wherever_it_arises(tmp_path, monkeypatch, capsys, code, kind, cure):
    def fails(*_, **__):
        raise OSError(code, "as the kernel says it", str(tmp_path / "w" / "models" / "x"))

    (tmp_path / "semalign.toml").write_text('[warehouse]\nroot = "w"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Warehouse, "gc", fails)
    assert cli.run(["gc"]) == kind.exit_code == 4
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(tmp_path / "w" / "models" / "x") in last and cure in last and "resumable: semalign gc" in last


def test_other_errors_of_the_system_are_not_taken_for_the_disks():
    assert disk_fault(PermissionError(errno.EACCES, "no")) is None
    assert isinstance(disk_fault(OSError(errno.EROFS, "no"), Path("x")), DiskFaultError)


ONE_COMMIT = (
    PRELUDE
    + """
with warehouse.lock("run"):
    builder = warehouse.begin(warehouse.current())
    builder.replace("items", items(3))
    say(str(warehouse.publish(builder.commit()).id))
"""
)
_CALL = re.compile(r"(?P<name>\w+)\((?P<inside>.*)\)\s+= 0")


@pytest.mark.system
def test_T_C2_strace_sees_every_byte_synced_before_its_name(tmp_path):
    tracer = shutil.which("strace")
    if tracer is None:
        pytest.skip("strace is not installed")
    trace, root = tmp_path / "trace", tmp_path / "w"
    command = [tracer, "-f", "-y", "-o", str(trace), "-e", "trace=fsync,fdatasync,rename,renameat,renameat2"]
    done = subprocess.run(
        [*command, sys.executable, "-c", ONE_COMMIT, str(root)], capture_output=True, text=True, timeout=120
    )
    if not trace.exists() or not trace.stat().st_size:
        pytest.skip(f"strace may not trace here: {done.stderr[:200]}")
    snapshot_id = done.stdout.strip()
    synced: set[str] = set()
    named: list[str] = []
    unsynced_folders: dict[str, str] = {}
    for line in trace.read_text(encoding="utf-8").splitlines():
        call = _CALL.search(line)
        if call is None or str(root) not in line:
            continue
        if call["name"] in ("fsync", "fdatasync"):
            path = call["inside"].split("<")[1].rstrip(">")
            synced.add(path)
            unsynced_folders = {name: folder for name, folder in unsynced_folders.items() if folder != path}
            continue
        source, target = re.findall(r'"([^"]+)"', call["inside"])
        below = {path for path in synced if path.startswith(f"{source}/")}
        assert source in synced or below, f"{source} got the name {target} before it was synced"
        # nothing that is renamed points at a name whose folder is not on disk yet
        if Path(target).name == "CURRENT":
            assert not unsynced_folders, f"CURRENT moved before the folders of {list(unsynced_folders)} were synced"
        named.append(target)
        unsynced_folders[target] = str(Path(target).parent)
    assert not unsynced_folders, f"never synced: {unsynced_folders}"
    kinds = ["items" if "/tables/items/" in name else Path(name).name for name in named]
    order = [kinds.index(name) for name in ("items", snapshot_id, "CURRENT")]
    assert order == sorted(order), named
