"""Snapshots on a real disk: what is committed is whole, what is published switches together, nothing is lost."""

import json
import stat

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from warehouse import (
    CorruptFileError,
    FormatVersionError,
    LockRequiredError,
    MatrixSpec,
    SchemaMismatchError,
    UnknownColumnError,
    UnknownSnapshotError,
    UnknownTableError,
    Warehouse,
    arrow_table,
    atomic_write,
)
from warehouse.snapshot import seal


def items(*names: str) -> pa.Table:
    return arrow_table("items", {"item_id": list(names), "attributes": ["{}"] * len(names)})


def metric(run: str, value: float = 0.5) -> pa.Table:
    columns = {"run_id": [run], "model": ["ease"], "seed": [0], "protocol": ["p"], "part": ["test"]}
    return arrow_table("metrics", {**columns, "metric": ["recall"], "value": [value]})


def vectors(width: int, *ids: str) -> pa.Table:
    columns = {"kind": ["item"] * len(ids), "entity_id": list(ids), "text_hash": ["h"] * len(ids)}
    return arrow_table("embeddings_x", {**columns, "embedding": np.eye(len(ids), width)})


@pytest.fixture
def warehouse(tmp_path):
    return Warehouse(tmp_path / "warehouse")


def committed(warehouse, parent=None, *, stage="ingest", key="k", **tables):
    with warehouse.lock():
        builder = warehouse.begin(parent)
        for name, rows in tables.items():
            builder.replace(name, rows)
        builder.stage(stage, key=key, summary={"rows": 1})
        return builder.commit()


def test_an_empty_warehouse_has_no_snapshot_and_no_file(warehouse):
    assert warehouse.current() is None
    assert warehouse.snapshots() == []
    assert warehouse.find_stage("ingest", "k") is None
    assert not warehouse.root.exists()


def test_a_commit_is_found_but_not_published(warehouse):
    snapshot = committed(warehouse, items=items("1", "2"))
    assert warehouse.current() is None
    assert warehouse.snapshot(snapshot.id).read("items")["item_id"].to_pylist() == ["1", "2"]
    with warehouse.lock():
        warehouse.publish(snapshot)
    assert Warehouse(warehouse.root).current().id == snapshot.id


def test_a_child_carries_its_parents_tables_and_stages(warehouse):
    first = committed(warehouse, items=items("1"))
    second = committed(warehouse, first, stage="embed", key="e", embeddings_x=vectors(3, "1"))
    assert second.parent == first.id
    assert second.counter == first.counter + 1
    assert second.tables["items"] == first.tables["items"]
    assert set(second.stages) == {"ingest", "embed"}
    assert second.stages["ingest"] == {"key": "k", "summary": {"rows": 1}}
    assert warehouse.find_stage("ingest", "k").id == second.id
    assert warehouse.find_stage("embed", "other") is None


def test_a_dropped_stage_is_not_found_again(warehouse):
    first = committed(warehouse, items=items("1"))
    with warehouse.lock():
        builder = warehouse.begin(first)
        builder.drop_stage("ingest")
        builder.drop_stage("never_there")
        second = builder.commit()
    assert second.stages == {}
    assert warehouse.find_stage("ingest", "k").id == first.id


def test_writing_without_the_lock_is_refused(warehouse):
    builder = warehouse.begin(None)
    with pytest.raises(LockRequiredError, match="needs the run lock"):
        builder.commit()
    with pytest.raises(LockRequiredError):
        warehouse.gc()
    with pytest.raises(LockRequiredError):
        warehouse.ledger()
    assert not (warehouse.root / "snapshots").exists()


def test_the_same_content_gives_the_same_content_hash_and_the_same_files(tmp_path):
    first = committed(Warehouse(tmp_path / "a"), items=items("1"), embeddings_x=vectors(3, "1"))
    second = committed(Warehouse(tmp_path / "b"), items=items("1"), embeddings_x=vectors(3, "1"))
    assert first.manifest["content"] == second.manifest["content"]
    assert first.id == second.id


def test_publishing_again_hashes_only_what_changed_since(warehouse, monkeypatch):
    snapshot = committed(warehouse, items=items("1"))
    with warehouse.lock():
        warehouse.publish(snapshot)
    again = Warehouse(warehouse.root)
    path = again.current().tables["items"][0].path
    with monkeypatch.context() as patch, again.lock():
        patch.setattr("warehouse.fragments.stream_sha256", lambda stream: pytest.fail("a file was hashed again"))
        again.publish(again.current())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    for changed in (bytes(content), bytes(content[:-1])):
        path.write_bytes(changed)
        for holder in (again, Warehouse(warehouse.root)):
            with holder.lock(), pytest.raises(CorruptFileError) as caught:
                holder.publish(holder.current())
            assert caught.value.exit_code == 6
    path.unlink()
    with again.lock(), pytest.raises(CorruptFileError, match="cannot be opened"):
        again.publish(again.current())


def test_publishing_what_is_published_writes_nothing(warehouse):
    snapshot = committed(warehouse, items=items("1"))
    with warehouse.lock():
        warehouse.publish(snapshot)
        before = (warehouse.root / "CURRENT").stat().st_mtime_ns
        assert warehouse.publish(snapshot).id == snapshot.id
        assert (warehouse.root / "CURRENT").stat().st_mtime_ns == before
    assert len(warehouse.snapshots()) == 1


def test_publishing_an_older_snapshot_gives_it_a_new_counter(warehouse):
    old = committed(warehouse, items=items("1"))
    new = committed(warehouse, old, items=items("1", "2"))
    with warehouse.lock():
        warehouse.publish(new)
        restored = warehouse.publish(old)
    assert restored.counter > new.counter
    assert restored.tables == old.tables
    assert warehouse.current().id == restored.id
    assert restored.stages == old.stages


def test_branches_lose_no_history(warehouse):
    root = committed(warehouse, items=items("1"))
    with warehouse.lock():
        left = warehouse.begin(root)
        left.append("metrics", metric("left"))
        published = warehouse.publish(left.commit())
        right = warehouse.begin(root)
        right.append("metrics", metric("right"))
        both = right.commit()
    assert published.read("metrics")["run_id"].to_pylist() == ["left"]
    assert both.read("metrics")["run_id"].to_pylist() == ["left", "right"]


def test_a_branch_committed_before_another_was_published_gets_its_history_when_published(warehouse):
    root = committed(warehouse, items=items("1"))
    with warehouse.lock():
        commits = []
        for name in ("left", "right"):
            builder = warehouse.begin(root)
            builder.append("metrics", metric(name))
            commits.append(builder.commit())
        warehouse.publish(commits[0])
        published = warehouse.publish(commits[1])
    assert sorted(published.read("metrics")["run_id"].to_pylist()) == ["left", "right"]


def test_replacing_a_history_table_makes_these_rows_the_whole_history(warehouse):
    with warehouse.lock():
        builder = warehouse.begin(None)
        builder.append("metrics", metric("a"))
        first = warehouse.publish(builder.commit())
        builder = warehouse.begin(first)
        builder.replace("metrics", metric("b"))
        second = builder.commit()
    assert second.read("metrics")["run_id"].to_pylist() == ["b"]


def test_appending_the_same_rows_twice_keeps_them_once(warehouse):
    with warehouse.lock():
        builder = warehouse.begin(None)
        builder.append("metrics", metric("a"))
        builder.append("metrics", metric("a"))
        snapshot = builder.commit()
    assert snapshot.rows("metrics") == 1


def test_columns_and_rows_can_be_chosen(warehouse):
    columns = {"kind": ["item", "user"], "text_hash": ["h", "h"], "entity_id": ["1", "1"]}
    rows = arrow_table("embeddings_x", {**columns, "embedding": np.eye(2, 4)})
    snapshot = committed(warehouse, embeddings_x=rows)
    users = snapshot.read("embeddings", columns=["embedding", "entity_id"], filter_equal={"kind": "user"})
    assert users.to_pylist() == [{"embedding": [0.0, 1.0, 0.0, 0.0], "entity_id": "1"}]
    assert snapshot.columns("embeddings")["embedding"] == "FLOAT[4]"
    with pytest.raises(UnknownColumnError, match="no column `vector`; known: kind"):
        snapshot.read("embeddings", columns=["vector"])
    with pytest.raises(UnknownTableError, match="unknown table `embeddings_y`; known:"):
        snapshot.read("embeddings_y")


def test_embeddings_stand_for_the_encoder_that_wrote_last_unless_one_is_named(warehouse):
    first = committed(warehouse, embeddings_x=vectors(3, "1"))
    second = committed(warehouse, first, embeddings_y=vectors(2, "1"))
    assert first.default_embeddings == "embeddings_x"
    assert second.default_embeddings == "embeddings_y"
    with warehouse.lock():
        builder = warehouse.begin(second)
        builder.default_embeddings("embeddings_x")
        third = builder.commit()
        with pytest.raises(UnknownTableError, match="embeddings_x, embeddings_y"):
            builder.default_embeddings("embeddings_z")
        builder = warehouse.begin(third)
        builder.drop_table("embeddings_x")
        fourth = builder.commit()
    assert third.read("embeddings").schema.field("embedding").type.list_size == 3
    assert fourth.default_embeddings is None
    assert fourth.rows("embeddings") == 0


def test_vectors_of_another_width_cannot_be_appended(warehouse):
    first = committed(warehouse, embeddings_x=vectors(3, "1"))
    with warehouse.lock():
        builder = warehouse.begin(first)
        with pytest.raises(SchemaMismatchError, match="vectors of 2 numbers; expected 3"):
            builder.append("embeddings_x", vectors(2, "2"))


def test_vectors_are_stored_as_byte_streams_without_a_dictionary_and_with_page_checksums(warehouse):
    snapshot = committed(warehouse, embeddings_x=vectors(3, "1", "2"))
    (fragment,) = snapshot.tables["embeddings_x"]
    metadata = pq.ParquetFile(fragment.path).metadata
    column = next(
        metadata.row_group(0).column(i)
        for i in range(metadata.num_columns)
        if metadata.row_group(0).column(i).path_in_schema.startswith("embedding")
    )
    assert "BYTE_STREAM_SPLIT" in column.encodings
    assert column.compression == "ZSTD"
    assert not column.has_dictionary_page


def test_a_summary_that_is_no_json_is_refused_before_anything_is_written(warehouse):
    builder = warehouse.begin(None)
    with pytest.raises(ValueError, match="not JSON compliant"):
        builder.stage("ingest", key="k", summary={"mean": float("nan")})
    with pytest.raises(TypeError):
        builder.stage("ingest", key="k", summary={"rows": np.int64(3)})


def test_an_older_fragment_reads_with_its_younger_columns_as_nulls(warehouse):
    snapshot = committed(warehouse, items=items("1"))
    entry = snapshot.manifest["tables"]["items"][0]
    without_title = pa.table({"item_id": ["0"], "attributes": ["{}"]})
    path = warehouse.root / "old.parquet"
    pq.write_table(without_title, path)
    from warehouse.fragments import Fragment
    from warehouse.storage import file_sha256
    from warehouse.table import sql_columns

    sha256 = file_sha256(path)
    target = warehouse.root / "tables" / "items" / f"{sha256}.parquet"
    path.rename(target)
    old = Fragment(target, sha256, target.stat().st_size, 1, sql_columns(without_title.schema))
    manifest = {**snapshot.manifest, "id": f"{9:08d}-{'0' * 12}", "tables": {"items": [old.entry(), entry]}}
    folder = warehouse.root / "snapshots" / manifest["id"]
    folder.mkdir()
    atomic_write(folder / "manifest.json", seal(manifest))
    both = warehouse.snapshot(manifest["id"])
    assert both.read("items")["title"].to_pylist() == [None, None]
    with warehouse.catalogue(both) as catalogue:
        assert catalogue.query("SELECT item_id, title FROM items ORDER BY 1").to_pylist()[0] == {
            "item_id": "0",
            "title": None,
        }


def test_a_manifest_of_a_newer_program_says_so(warehouse):
    snapshot = committed(warehouse, items=items("1"))
    path = warehouse.root / "snapshots" / snapshot.id / "manifest.json"
    atomic_write(path, seal({**snapshot.manifest, "format": 99}))
    with pytest.raises(FormatVersionError, match="install the newer semalign"):
        Warehouse(warehouse.root).snapshot(snapshot.id)


@pytest.mark.parametrize("snapshot_id", ["../../etc", "00000009-000000000000", "latest", ""])
def test_a_snapshot_nobody_committed_is_unknown(warehouse, snapshot_id):
    committed(warehouse, items=items("1"))
    with pytest.raises(UnknownSnapshotError, match="there is no snapshot"):
        warehouse.snapshot(snapshot_id)


def test_a_pointer_to_nowhere_is_refused(warehouse):
    committed(warehouse, items=items("1"))
    for content in (b"latest", b"00000009-000000000000", b"\xff\xfe"):
        atomic_write(warehouse.root / "CURRENT", content)
        with pytest.raises(CorruptFileError, match="CURRENT cannot be trusted"):
            warehouse.current()


def test_a_file_is_hashed_once_until_it_changes(warehouse, monkeypatch):
    from warehouse import fragments

    snapshot = committed(warehouse, items=items("1"))
    snapshot.read("items")
    hashed = []
    real = fragments.stream_sha256
    monkeypatch.setattr(fragments, "stream_sha256", lambda stream: hashed.append(stream.name) or real(stream))
    again = Warehouse(warehouse.root).snapshot(snapshot.id)
    again.read("items")
    assert hashed == []
    path = again.tables["items"][0].path
    path.chmod(0o600)
    path.touch()
    again.read("items")
    assert len(hashed) == 1
    assert Warehouse(warehouse.root).verify(again).files == 1
    assert len(hashed) == 2


def test_a_link_in_the_place_of_a_fragment_is_refused(warehouse, tmp_path):
    snapshot = committed(warehouse, items=items("1"))
    path = snapshot.tables["items"][0].path
    outside = tmp_path / "outside.parquet"
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(CorruptFileError, match="cannot be opened"):
        snapshot.read("items")


def test_nothing_under_the_root_is_readable_by_others(warehouse):
    snapshot = committed(warehouse, items=items("1"), embeddings_x=vectors(2, "1"))
    with warehouse.lock():
        warehouse.publish(snapshot)
        with warehouse.ledger() as ledger:
            ledger.backup()
        warehouse.matrix(snapshot, MatrixSpec("m", "embeddings_x", "item", ("1",), "e"))
    open_to_others = [path for path in warehouse.root.rglob("*") if stat.S_IMODE(path.lstat().st_mode) & 0o077]
    assert open_to_others == []


def test_garbage_is_what_no_kept_snapshot_names(warehouse):
    snapshot, ids = None, []
    for number in range(4):
        snapshot = committed(warehouse, snapshot, items=items(str(number)))
        ids.append(snapshot.id)
    with warehouse.lock():
        warehouse.publish(warehouse.snapshot(ids[3]))
        warehouse.publish(warehouse.snapshot(ids[1]))
        assert warehouse.gc(keep=1).snapshots == 0  # all are younger than a day
        summary = warehouse.gc(keep=1, min_age_s=0)
    current = warehouse.current()
    assert summary.snapshots == 4
    assert summary.fragments == 3
    assert summary.freed_bytes > 0
    assert [kept.id for kept in warehouse.snapshots()] == [current.id]
    assert current.read("items")["item_id"].to_pylist() == ["1"]
    assert list((warehouse.root / "staging").iterdir()) == []


def test_garbage_collection_stops_at_a_manifest_it_cannot_read(warehouse):
    first = committed(warehouse, items=items("1"))
    committed(warehouse, first, items=items("2"))
    (warehouse.root / "snapshots" / first.id / "manifest.json").chmod(0o600)
    (warehouse.root / "snapshots" / first.id / "manifest.json").write_text(json.dumps({}))
    fresh = Warehouse(warehouse.root)
    with fresh.lock(), pytest.raises(CorruptFileError):
        fresh.gc(keep=1, min_age_s=0)
    assert len(list((warehouse.root / "tables").rglob("*.parquet"))) == 2


def test_a_directory_is_installed_whole(warehouse, tmp_path):
    partial = warehouse.inside("models", "m1.partial")
    partial.mkdir(parents=True)
    (partial / "model.safetensors").write_bytes(b"x")
    warehouse.install_directory(partial, warehouse.inside("models", "m1"))
    assert (warehouse.root / "models" / "m1" / "model.safetensors").read_bytes() == b"x"
