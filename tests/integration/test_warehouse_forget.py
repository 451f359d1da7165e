"""A user who asks to be forgotten is in no byte under the root; a reader keeps what it reads."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from servers.catalogue import write_games
from servers.commands import command
from servers.published import publish
from servers.training import train_here

import providers
from benchmarks.stand_ins import HashedWords
from warehouse import PinnedError, UnknownUserError, Warehouse, arrow_rows, forget_user

CANARY = "user-canary-7781"
WORDS = "words-of-the-canary-4419"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Six games and four users with five each; the canary's reviews have words of their own."""
    write_games(tmp_path, 6)
    users = [CANARY, "u1", "u2", "u3"]
    rows = ["user_id,item_id,text"]
    for place, user in enumerate(users):
        for step in range(5):
            review = WORDS if user == CANARY else "fine"
            rows.append(f"{user},i{(place + step) % 6},{review}")
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (tmp_path / "semalign.toml").write_text(
        '[source]\nitems = "items.jsonl"\ninteractions = "rows.csv"\n[profiles]\ndomain = "games"\n'
        '[model]\nname = "popularity"\n[evaluation]\nbaselines = []\n[warehouse]\nroot = "w"\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(providers, "parse_encoder", lambda settings: HashedWords())
    train_here(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def holds(root: Path, *needles: str) -> list[str]:
    """Files under a root with one of the strings in their bytes, or in their rows where they are Parquet."""
    found = []
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
        if any(needle.encode() in content for needle in needles):
            found.append(str(path.relative_to(root)))
    return found


def test_after_forgetting_no_byte_names_the_user_and_a_source_that_still_does_brings_nobody_back(folder, capsys):
    assert command(capsys, "run")[0] == 0
    root = folder / "w"
    assert holds(root, CANARY) and holds(root, WORDS)
    code, removal, last = command(capsys, "forget-user", CANARY, "--yes")
    assert code == 0 and removal["rows"]["interactions"] == 5 and len(removal["models"]) == 1
    assert CANARY not in last and holds(root, CANARY, WORDS) == []
    assert Warehouse(root).current() is not None
    code, again, _ = command(capsys, "run")
    assert code == 0 and again["metrics"] and holds(root, CANARY, WORDS) == []


def test_forgetting_takes_the_replies_and_keeps_what_they_cost(tmp_path):
    warehouse = publish(tmp_path)
    with warehouse.lock():
        current = warehouse.current()
        assert current is not None
        builder = warehouse.begin(current)
        quoting = [
            {**row, "evidence": ["u"], "request_key": "1"} if row["entity_id"] == "1" else row
            for row in current.read("profiles").to_pylist()
        ]
        builder.replace("profiles", arrow_rows("profiles", quoting))
        warehouse.publish(builder.commit())
        removal = forget_user(warehouse, "u")
    now = warehouse.current()
    assert now is not None and removal.items == ("1",)
    assert [row["user_id"] for row in now.read("users").to_pylist()] == ["v", "w"]
    assert "1" not in now.read("profiles")["entity_id"].to_pylist()
    calls = now.read("llm_calls").to_pylist()
    assert [(row["entity_id"], row["usd"]) for row in calls] == [("0", 0.25), (None, None), (None, 0.25)]
    assert len(warehouse.snapshots()) == 1


def test_words_that_went_on_into_another_users_profile_go_too(tmp_path):
    warehouse = publish(tmp_path)
    with warehouse.lock():
        builder = warehouse.begin(warehouse.current())
        rows = warehouse.current().read("profiles").to_pylist()
        changed = {
            ("item", "1"): {"evidence": ["u"], "profile": WORDS, "request_key": "1"},
            ("user", "v"): {"evidence": ["1"], "profile": f"says {WORDS}", "request_key": "2"},
            ("user", "w"): {"evidence": ["2"], "profile": "says nothing", "request_key": "3"},
        }
        told = [{**row, **changed.get((row["kind"], row["entity_id"]), {})} for row in rows]
        builder.replace("profiles", arrow_rows("profiles", told))
        warehouse.publish(builder.commit())
        removal = forget_user(warehouse, "u")
    assert (removal.items, removal.users) == (("1",), ("v",))
    left = warehouse.current().read("profiles").to_pylist()
    assert [row["entity_id"] for row in left if row["kind"] == "user"] == ["w"]
    assert holds(tmp_path, WORDS) == []


def test_a_user_nobody_knows_changes_nothing(tmp_path):
    warehouse = publish(tmp_path)
    before = [snapshot.id for snapshot in warehouse.snapshots()]
    with warehouse.lock(), pytest.raises(UnknownUserError, match="nobody"):
        forget_user(warehouse, "nobody")
    assert [snapshot.id for snapshot in warehouse.snapshots()] == before and not (tmp_path / "forgotten.json").exists()


def test_forgetting_waits_for_no_reader_and_changes_nothing_under_one(tmp_path):
    warehouse = publish(tmp_path)
    with warehouse.catalogue(warehouse.current()) as catalogue, warehouse.lock():
        with pytest.raises(PinnedError, match="reading snapshot"):
            forget_user(warehouse, "u")
        assert catalogue.query("SELECT count(*) AS n FROM users")["n"].to_pylist() == [3]
    with warehouse.lock():
        forget_user(warehouse, "u")


@pytest.mark.parametrize("step", ["publish", "ledger", "gc"])
def test_forgetting_that_was_cut_short_is_finished_by_the_same_call(tmp_path, monkeypatch, step):
    warehouse = publish(tmp_path)
    with warehouse.lock():
        with warehouse.ledger():
            pass
        with monkeypatch.context() as broken, pytest.raises(RuntimeError):
            broken.setattr(Warehouse, step, lambda *_, **__: (_ for _ in ()).throw(RuntimeError("killed")))
            forget_user(warehouse, "u")
        forget_user(warehouse, "u")
    now = warehouse.current()
    assert now is not None and len(warehouse.snapshots()) == 1
    assert "u" not in now.read("users")["user_id"].to_pylist()


@pytest.mark.parametrize(("readers", "commits"), [(4, 12), pytest.param(10, 100, marks=pytest.mark.full)])
def test_T_C5_pinned_readers_see_their_version_through_commits_and_collections(tmp_path, readers, commits):
    """Readers pin once, the writer publishes and collects as hard as it can."""
    warehouse = publish(tmp_path)
    ended, faults, queries = threading.Event(), [], [0] * readers

    def read(place: int) -> None:
        reader = Warehouse(tmp_path)
        while not ended.is_set():
            try:
                with reader.catalogue(reader.current()) as catalogue:
                    for _ in range(3):
                        assert catalogue.query("SELECT count(*) AS n FROM profile_versions")["n"].to_pylist()[0] > 0
                        queries[place] += 1
            except Exception as error:  # whatever it is, it is the finding
                faults.append(error)
                return

    threads = [threading.Thread(target=read, args=(place,)) for place in range(len(queries))]
    for thread in threads:
        thread.start()
    try:
        with warehouse.lock():
            for number in range(commits):
                current = warehouse.current()
                assert current is not None
                builder = warehouse.begin(current)
                rows = [{**row, "profile": f"number {number}"} for row in current.read("profiles").to_pylist()]
                builder.replace("profiles", arrow_rows("profiles", rows))
                warehouse.publish(builder.commit())
                warehouse.gc(keep=1, min_age_s=0)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not faults, "\n".join(map(repr, faults))
    assert min(queries) > 0
    print(f"T-C5: {readers} readers, {commits} commits each with a collection, {sum(queries)} queries, 0 faults")
    with warehouse.lock():
        warehouse.gc(keep=1, min_age_s=0)
    (last,) = warehouse.snapshots()
    assert {path.name for path in (tmp_path / "pins").iterdir()} <= {last.id}


def test_gc_through_the_command(folder, capsys):
    assert command(capsys, "run", "--until", "ingest")[0] == 0
    assert command(capsys, "run", "--until", "profile")[0] == 0
    code, summary, last = command(capsys, "gc", "--keep", "1", "--days", "0")
    assert code == 0 and summary["snapshots"] >= 1 and "MB" in last and "warning" not in last
    (folder / "w" / "matrices").mkdir(exist_ok=True)
    (folder / "w" / "matrices" / "torn.json").write_text('{"base": "to', encoding="utf-8")
    code, summary, last = command(capsys, "gc")
    assert (code, summary["rotten"]) == (0, ["torn"]) and "1 semantic matrices" in last and "(torn)" in last
    assert command(capsys, "status")[0] == 0
