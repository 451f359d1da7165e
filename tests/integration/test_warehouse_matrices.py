"""Semantic matrices: built once, mapped by all, patched where little changed, built again when their bytes rot."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from warehouse import CorruptFileError, MatrixError, MatrixSpec, UnsafePathError, Warehouse, arrow_table, write_parquet

WIDTH = 5
ORDER = tuple(f"i{number}" for number in range(40))


@pytest.fixture
def warehouse(tmp_path):
    return Warehouse(tmp_path)


def texts(*changed: int, missing: tuple[int, ...] = ()) -> dict[str, str]:
    """item → text, some of them in another version, some without any."""
    return {
        item_id: f"{item_id} v2" if number in changed else item_id
        for number, item_id in enumerate(ORDER)
        if number not in missing
    }


def vector(text: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    drawn = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


def commit(warehouse, told: dict[str, str], shuffle: int = 0, **odd: np.ndarray):
    """A snapshot whose embeddings are those of the texts, in any order of rows, beside the rows of one user."""
    names = list(told)
    np.random.default_rng(shuffle).shuffle(names)
    stacked = np.stack([odd.get(name, vector(told[name])) for name in names] + [vector("somebody")])
    columns = {
        "kind": ["item"] * len(names) + ["user"],
        "entity_id": [*names, "i0"],
        "text_hash": [hashlib.sha256(told[name].encode()).hexdigest() for name in names] + ["0" * 64],
    }
    with warehouse.lock():
        builder = warehouse.begin(warehouse.current())
        builder.replace("embeddings_x", arrow_table("embeddings_x", {**columns, "embedding": stacked}))
        return warehouse.publish(builder.commit())


def spec(key: str = "k", **more) -> MatrixSpec:
    return MatrixSpec(
        **{"key": key, "table": "embeddings_x", "kind": "item", "order": ORDER, "encoder_key": "e", **more}
    )


def expected(told: dict[str, str]) -> np.ndarray:
    return np.stack([vector(told[name]) if name in told else np.zeros(WIDTH, np.float32) for name in ORDER])


def is_built(warehouse, key: str) -> bool:
    return (warehouse.root / "matrices" / f"{key}.json").exists()


def test_rows_come_in_index_order_mapped_and_without_a_copy(warehouse):
    snapshot = commit(warehouse, texts(), shuffle=3)
    paths = warehouse.matrix(snapshot, spec())
    values, mask = paths.open()
    assert isinstance(values, np.memmap)
    assert paths.missing == 0
    np.testing.assert_array_equal(values, expected(texts()))
    assert mask.all()
    with pytest.raises(ValueError, match="read-only"):
        values[0, 0] = 1
    written = paths.values.stat().st_mtime_ns
    assert Warehouse(warehouse.root).matrix(snapshot, spec()).values.stat().st_mtime_ns == written


def test_an_entity_without_a_vector_is_masked_and_counted(warehouse):
    told = texts(missing=(0, 7, 39))
    paths = warehouse.matrix(commit(warehouse, told), spec())
    values, mask = paths.open()
    assert paths.missing == 3
    assert np.flatnonzero(~mask).tolist() == [0, 7, 39]
    np.testing.assert_array_equal(values, expected(told))


def test_users_have_a_matrix_of_their_own(warehouse):
    snapshot = commit(warehouse, texts())
    values, mask = warehouse.matrix(snapshot, spec("u", kind="user", order=("h", "i0"))).open()
    assert mask.tolist() == [False, True]
    np.testing.assert_array_equal(values[1], vector("somebody"))


@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_order_of_rows_and_kinds_each_vector_lies_at_its_place(warehouse, seed):
    rng = np.random.default_rng(seed)
    told = {kind: [f"{kind} {n}" for n in range(rng.integers(1, 30))] for kind in ("item", "user")}
    named = [(kind, name) for kind, names in told.items() for name in names]
    if seed % 3 == 1:  # as the embed stage writes them first, then users before items, then in any order
        named.reverse()
    elif seed % 3 == 2:
        rng.shuffle(named)
    columns = {
        "kind": [kind for kind, _ in named],
        "entity_id": [name for _, name in named],
        "text_hash": [hashlib.sha256(name.encode()).hexdigest() for _, name in named],
        "embedding": np.stack([vector(name) for _, name in named]),
    }
    with warehouse.lock():
        builder = warehouse.begin(None)
        builder.replace("embeddings_x", arrow_table("embeddings_x", columns))
        snapshot = warehouse.publish(builder.commit())
    for kind, names in told.items():
        values, mask = warehouse.matrix(snapshot, spec(kind, kind=kind, order=tuple(names))).open()
        assert mask.all()
        np.testing.assert_array_equal(values, [vector(name) for name in names])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_are_the_nearest_ones(warehouse, dtype):
    values, _ = warehouse.matrix(commit(warehouse, texts()), spec(dtype=dtype)).open()
    wanted = torch.from_numpy(expected(texts())).to(getattr(torch, dtype))
    assert torch.equal(torch.from_numpy(np.array(values)).view(getattr(torch, dtype)), wanted)


def test_changed_rows_are_written_beside_the_rest_and_read_in_its_place(warehouse):
    whole = warehouse.matrix(commit(warehouse, texts()), spec())
    told = texts(4, 21, missing=(9,))
    patched = warehouse.matrix(commit(warehouse, told, shuffle=1), spec("k2"))
    assert patched.values == whole.values
    assert patched.patch is not None
    assert patched.missing == 1
    values, mask = patched.open()
    np.testing.assert_array_equal(values, expected(told))
    assert np.flatnonzero(~mask).tolist() == [9]
    np.testing.assert_array_equal(whole.open()[0], expected(texts()))


def test_a_patch_follows_a_patch_and_a_row_can_go_back(warehouse):
    base = warehouse.matrix(commit(warehouse, texts()), spec())
    warehouse.matrix(commit(warehouse, texts(4, 21)), spec("k2"))
    third = warehouse.matrix(commit(warehouse, texts(21, 30)), spec("k3"))
    assert third.values == base.values
    np.testing.assert_array_equal(third.open()[0], expected(texts(21, 30)))


def test_many_changed_rows_another_order_or_encoder_make_a_whole_matrix(warehouse):
    snapshot = commit(warehouse, texts())
    warehouse.matrix(snapshot, spec())
    for key, more in (("o", {"order": ORDER[::-1]}), ("e", {"encoder_key": "other"}), ("d", {"dtype": "float16"})):
        assert warehouse.matrix(snapshot, spec(key, **more)).patch is None
    told = texts(*range(20))
    paths = warehouse.matrix(commit(warehouse, told), spec("k2"))
    assert paths.patch is None
    np.testing.assert_array_equal(paths.open()[0], expected(told))


def test_a_rotten_or_cut_file_is_built_again_also_under_a_patch(warehouse):
    snapshot = commit(warehouse, texts())
    paths = warehouse.matrix(snapshot, spec())
    later = commit(warehouse, texts(4))
    warehouse.matrix(later, spec("k2"))
    content = bytearray(paths.values.read_bytes())
    content[-1] ^= 1
    paths.values.write_bytes(content)
    np.testing.assert_array_equal(warehouse.matrix(later, spec("k2")).open()[0], expected(texts(4)))
    np.testing.assert_array_equal(warehouse.matrix(snapshot, spec()).open()[0], expected(texts()))
    os.truncate(paths.mask, 10)
    assert warehouse.matrix(snapshot, spec()).open()[1].all()


def test_rot_that_leaves_no_trace_in_the_file_system_is_found_by_a_full_look(warehouse):
    paths = warehouse.matrix(commit(warehouse, texts()), spec())
    assert [name for name, _ in warehouse.verify_matrices()] == ["k"]
    before = paths.values.stat()
    with paths.values.open("r+b") as stream:
        stream.seek(-3, os.SEEK_END)
        stream.write(b"\x55")
    os.utime(paths.values, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(CorruptFileError, match=r"k\.npy"):
        list(warehouse.verify_matrices())


def test_what_is_read_from_parquet_is_hashed_whatever_the_notes_say(warehouse):
    snapshot = commit(warehouse, texts())
    fragment = snapshot.tables["embeddings_x"][0]
    other = arrow_table(
        "embeddings_x",
        {"kind": ["item"], "entity_id": ["i0"], "text_hash": ["0" * 64], "embedding": np.ones((1, WIDTH))},
    )
    fragment.path.unlink()
    write_parquet(fragment.path, other)
    with pytest.raises(CorruptFileError):
        warehouse.matrix(snapshot, spec())
    assert not is_built(warehouse, "k")
    assert list((warehouse.root / "matrices").glob("*.npy")) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused(warehouse, bad):
    row = np.full(WIDTH, 0.1, np.float32)
    row[2] = bad
    with pytest.raises(MatrixError, match="not finite"):
        warehouse.matrix(commit(warehouse, texts(), i7=row), spec())
    assert not is_built(warehouse, "k")


def test_a_vector_of_nobody_is_refused(warehouse):
    with pytest.raises(MatrixError, match="'i39' has a vector and no place"):
        warehouse.matrix(commit(warehouse, texts()), spec(order=ORDER[:-1]))


def test_a_key_is_a_plain_name(warehouse):
    with pytest.raises(UnsafePathError):
        warehouse.matrix(commit(warehouse, texts()), spec("../k"))


def test_gc_removes_what_no_kept_snapshot_asked_for_but_no_base_of_a_patch(warehouse):
    warehouse.matrix(commit(warehouse, texts()), spec())
    warehouse.matrix(commit(warehouse, texts(*range(20))), spec("gone"))
    newest = commit(warehouse, texts(4))
    warehouse.matrix(newest, spec("k2"))
    with warehouse.lock():
        warehouse.gc(keep=1, min_age_s=0)
    assert not is_built(warehouse, "gone")
    np.testing.assert_array_equal(warehouse.matrix(newest, spec("k2")).open()[0], expected(texts(4)))


@pytest.mark.parametrize(
    "sidecar",
    [b"", b"{}", b"\x00\xff", b"[]", b"null", b'{"base": "k0", "files": []', b"[" * 100_000, "unlike", "whole"],
    ids=["empty", "no_fields", "no_text", "list", "null", "torn", "deep", "unlike", "whole"],
)
def test_gc_collects_a_matrix_whose_sidecar_has_rotted_names_it_and_it_is_built_again(warehouse, sidecar):
    snapshot = commit(warehouse, texts())
    for key in ("k0", "k1"):
        warehouse.matrix(snapshot, spec(key, encoder_key=key))
    path = warehouse.root / "matrices" / "k0.json"
    if sidecar == "unlike":
        path.write_text(path.read_text().replace('"files":{', '"files":7,"other":{'))
    elif sidecar != "whole":
        path.write_bytes(sidecar)
    size = sum(file.stat().st_size for file in path.parent.glob("k0.*"))
    with warehouse.lock():
        summary = warehouse.gc(keep=1, min_age_s=0)
    if sidecar == "whole":
        assert summary.rotten == () and is_built(warehouse, "k0")
    else:
        assert summary.rotten == ("k0",) and summary.freed_bytes >= size - len("k0.lock")
        assert {file.name for file in path.parent.glob("k0.*")} <= {"k0.lock"}
    assert is_built(warehouse, "k1")
    values, mask = warehouse.matrix(snapshot, spec("k0", encoder_key="k0")).open()
    np.testing.assert_array_equal(values, expected(texts()))
    assert mask.all()


def test_processes_that_ask_at_once_build_it_once(warehouse):
    snapshot = commit(warehouse, texts())
    code = f"""
import sys
from warehouse import MatrixSpec, Warehouse
warehouse = Warehouse(sys.argv[1])
spec = MatrixSpec("k", "embeddings_x", "item", {ORDER!r}, "e")
print(warehouse.matrix(warehouse.current(), spec).values.stat().st_ino)
"""
    workers = [
        subprocess.Popen([sys.executable, "-c", code, str(warehouse.root)], stdout=subprocess.PIPE) for _ in range(3)
    ]
    seen = {worker.communicate(timeout=60)[0] for worker in workers}
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert seen == {f"{warehouse.matrix(snapshot, spec()).values.stat().st_ino}\n".encode()}


def test_rows_of_ids_outside_the_order_are_left_out_where_that_is_asked_for_and_else_refused(warehouse):
    rng = np.random.default_rng(4)
    print("seed 4")
    snapshot = commit(warehouse, texts(missing=(3, 5)), shuffle=2)
    whole = dict(zip(ORDER, expected(texts(missing=(3, 5))), strict=True))
    with pytest.raises(MatrixError, match="no place in the order"):
        warehouse.matrix(snapshot, spec("strict", order=ORDER[:-1]))
    for turn in range(4):
        order = tuple(rng.permutation([*ORDER, "new"])[: rng.integers(1, len(ORDER))].tolist())
        paths = warehouse.matrix(snapshot, spec(f"k{turn}", order=order, leave_strangers=True))
        values, mask = paths.open()
        np.testing.assert_array_equal(values, [whole.get(name, np.zeros(WIDTH)) for name in order])
        there = [name in whole and name not in (ORDER[3], ORDER[5]) for name in order]
        assert mask.tolist() == there and paths.missing == there.count(False)
