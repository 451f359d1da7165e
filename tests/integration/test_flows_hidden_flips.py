"""A bit that rotted where no note tells: size, inode and time are as they were, and nothing is made from it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from servers.training import train_here

import providers
from benchmarks.stand_ins import HashedWords
from flows import cli
from warehouse import CorruptFileError, Warehouse


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A small catalogue, read and split, not yet trained on."""
    items = "".join(f'{{"item_id": "i{n}", "title": "Game {n}"}}\n' for n in range(6))
    (tmp_path / "items.jsonl").write_text(items, encoding="utf-8")
    rows = [f"u{user},i{(user + step) % 6}" for user in range(4) for step in range(5)]
    (tmp_path / "rows.csv").write_text("\n".join(["user_id,item_id", *rows]) + "\n", encoding="utf-8")
    (tmp_path / "semalign.toml").write_text(
        '[source]\nitems = "items.jsonl"\ninteractions = "rows.csv"\n[profiles]\ndomain = "games"\n'
        '[model]\nname = "popularity"\n[evaluation]\nbaselines = []\n[warehouse]\nroot = "w"\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(providers, "parse_encoder", lambda settings: HashedWords())
    train_here(monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert cli.run(["run", "--until", "ingest"]) == 0
    return tmp_path


def flip(root: Path, table: str) -> Path:
    """One bit in the middle of a published file of a table; whoever looks only at the file's facts sees no change."""
    snapshot = Warehouse(root).current()
    assert snapshot is not None
    snapshot.verify()  # noted as whole
    path = snapshot.tables[table][0].path
    before = path.stat()
    path.chmod(0o600)
    with path.open("r+b") as stream:
        stream.seek(before.st_size // 2)
        (byte,) = stream.read(1)
        stream.seek(before.st_size // 2)
        stream.write(bytes([byte ^ 4]))
    path.chmod(before.st_mode & 0o777)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    snapshot.verify(trust_notes=True)  # the notes say nothing
    return path


@pytest.mark.parametrize("table", ["splits", "items"])
def test_T_I2_training_hashes_what_it_reads_whatever_is_noted(folder, capsys, table):
    path = flip(folder / "w", table)
    capsys.readouterr()
    assert cli.run(["train"]) == 6
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{path} cannot be trusted: sha256 is" in last
    assert not list((folder / "w" / "models").glob("*/checkpoint"))


def test_T_I2_recommending_and_publishing_hash_what_they_read_whatever_is_noted(folder, capsys):
    assert cli.run(["evaluate"]) == 0
    published = Warehouse(folder / "w").current()
    assert published is not None and not published.rows("recommendations")
    path = flip(folder / "w", "users")
    capsys.readouterr()
    assert cli.run(["recommend"]) == 6
    assert f"{path} cannot be trusted" in capsys.readouterr().err
    assert Warehouse(folder / "w").current().id == published.id


def test_T_I2_what_is_published_was_hashed_in_full(folder):
    warehouse = Warehouse(folder / "w")
    published = warehouse.current()
    path = flip(folder / "w", "interactions")
    with warehouse.lock():
        builder = warehouse.begin(published)
        builder.stage("other", key="k", summary={})
        committed = builder.commit()
        with pytest.raises(CorruptFileError, match=path.name):
            warehouse.publish(committed)
    assert warehouse.current().id == published.id


def test_a_doubting_reader_hashes_each_file_once_and_its_notes_join_the_others(folder, monkeypatch):
    from warehouse import fragments

    snapshot = Warehouse(folder / "w").current()
    snapshot.verify()
    noted = (folder / "w" / "verified.json").read_bytes()
    hashed = []
    real = fragments.stream_sha256
    monkeypatch.setattr(fragments, "stream_sha256", lambda stream: hashed.append(1) or real(stream))
    doubting = snapshot.doubting()
    for _ in range(2):
        doubting.read("items")
        doubting.read("splits")
        snapshot.read("users")
    assert len(hashed) == 2
    assert (folder / "w" / "verified.json").read_bytes() == noted
