"""Parquet from strangers: bombs and broken footers are refused, and the process that read them goes on."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers.bombs import bomb, broken_footers
from servers.writers import started

from warehouse import (
    CorruptFileError,
    VectorFileError,
    Warehouse,
    arrow_table,
    read_source,
    read_vectors,
)

READ = """
import json, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from warehouse import read_source
began, said = time.monotonic(), None
try:
    read_source(sys.argv[1], {}, sys.argv[2])
except Exception as error:
    said = [type(error).__name__, getattr(error, "exit_code", None), str(error)]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"said": said, "seconds": time.monotonic() - began, "peak_bytes": peak}))
"""


@pytest.mark.parametrize("kind", ["items", "interactions"])
def test_T_I3_a_bomb_of_a_hundred_gigabytes_is_refused_without_being_unpacked(tmp_path, kind):
    path = tmp_path / "bomb.parquet"
    assert bomb(path) == 100_000_000_000
    out, problems = started(READ, path, kind).communicate(timeout=120)
    assert out, problems
    document = json.loads(out)
    print(f"T-I3: refused in {document['seconds']:.2f} s at a peak of {document['peak_bytes'] / 1e6:,.0f} MB")
    name, code, sentence = document["said"]
    assert (name, code) == ("CorruptFileError", 6) and "stand for 100,000," in sentence and str(path) in sentence
    assert document["peak_bytes"] < 2 << 30


@pytest.mark.full
def test_T_I3_a_bomb_of_lists_is_one_too(tmp_path):
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 4_000, pa.int32()), pa.array(["x" * 1_000_000]))
    offsets = pa.array([0, 2_000, 4_000], pa.int32())
    pq.write_table(
        pa.table({"item_id": ["0", "1"], "tags": pa.ListArray.from_arrays(offsets, text)}), tmp_path / "lists.parquet"
    )
    with pytest.raises(CorruptFileError, match="in memory"):
        read_source(tmp_path / "lists.parquet", {}, "items")


@pytest.mark.full
def test_T_I3_a_bomb_of_rows_is_one_too(tmp_path):
    numbers = pa.DictionaryArray.from_arrays(pa.array([0] * 150_000_000, pa.int8()), pa.array([7.0]))
    pq.write_table(pa.table({"item_id": numbers}), tmp_path / "rows.parquet")
    with pytest.raises(CorruptFileError, match="in memory"):
        read_source(tmp_path / "rows.parquet", {}, "items")


def test_T_I3_a_bomb_is_no_file_of_vectors(tmp_path):
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 3_000, pa.int32()), pa.array(["x" * 1_000_000]))
    pq.write_table(
        pa.table({"id": text, "v": [[1.0]] * 3_000}), tmp_path / "v.parquet", dictionary_pagesize_limit=1 << 30
    )
    with pytest.raises(CorruptFileError, match="in memory"):
        read_vectors(tmp_path / "v.parquet")


def test_a_file_of_much_repetition_is_no_bomb(tmp_path):
    n = 200_000
    pq.write_table(
        pa.table({"user_id": ["u"] * n, "item_id": ["i"] * n, "text": ["again " * 20] * n}), tmp_path / "r.parquet"
    )
    assert (tmp_path / "r.parquet").stat().st_size < 20_000
    assert read_source(tmp_path / "r.parquet").num_rows == n


def survive_broken_footers(folder, n: int, seed: int) -> None:
    """Every broken file through both doors: as a source that DuckDB reads, as a fragment that pyarrow reads."""
    print(f"seed {seed}")
    source = folder / "i.parquet"
    pairs = {"user_id": [f"u{place % 50}" for place in range(500)], "item_id": [f"i{place}" for place in range(500)]}
    pq.write_table(pa.table(pairs), source)
    outcomes: Counter[str] = Counter()
    for kind, content in broken_footers(source.read_bytes(), n, seed):
        (folder / "broken.parquet").write_bytes(content)
        for read in (read_source, read_vectors):
            with pytest.raises((CorruptFileError, VectorFileError)) as caught:
                read(folder / "broken.parquet")
            outcomes[f"{kind} {type(caught.value).__name__}"] += 1
    warehouse = Warehouse(folder / "w")
    columns = {"item_id": [str(place) for place in range(300)], "attributes": ["{}"] * 300}
    with warehouse.lock():
        builder = warehouse.begin(None)
        builder.replace("items", arrow_table("items", columns))
        snapshot = warehouse.publish(builder.commit())
    path = snapshot.tables["items"][0].path
    whole = path.read_bytes()
    path.chmod(0o600)
    for _, content in broken_footers(whole, n, seed + 1):
        path.write_bytes(content)
        with pytest.raises(CorruptFileError):
            snapshot.read("items")
        with pytest.raises(CorruptFileError), warehouse.catalogue(snapshot):
            pass
        outcomes["fragment refused"] += 2
    path.write_bytes(whole)
    assert snapshot.read("items").num_rows == 300
    print(f"T-I1: {n} sources and {n} fragments with another footer: {dict(outcomes)}; 0 accepted")


def test_T_I1_footers_that_are_not_the_writers_are_refused(tmp_path):
    survive_broken_footers(tmp_path, n=24, seed=5)


@pytest.mark.full
def test_T_I1_two_hundred_footers(tmp_path):
    survive_broken_footers(tmp_path, n=200, seed=6)


@pytest.mark.full
def test_T_I1_footers_with_single_bits_flipped_crash_nobody(tmp_path):
    rng = np.random.default_rng(7)
    source = tmp_path / "i.parquet"
    pairs = {"user_id": [f"u{place % 50}" for place in range(500)], "item_id": [f"i{place}" for place in range(500)]}
    pq.write_table(pa.table(pairs), source)
    whole = source.read_bytes()
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    files = []
    for place in range(200):
        content = bytearray(whole)
        content[rng.integers(start, len(whole))] ^= 1 << int(rng.integers(8))
        files.append(tmp_path / f"{place}.parquet")
        files[-1].write_bytes(content)
    code = """
import json, sys
from warehouse import read_source, WarehouseError
whole, counts = read_source(sys.argv[1]), {"refused": 0, "the same rows": 0, "other rows": 0}
for path in sys.argv[2:]:
    try:
        rows = read_source(path)
        counts["the same rows" if rows.equals(whole) else "other rows"] += 1
    except WarehouseError:
        counts["refused"] += 1
print(json.dumps(counts))
"""
    process = started(code, source, *files)
    out, problems = process.communicate(timeout=300)
    assert process.returncode == 0, problems[-2000:]
    counts = json.loads(out)
    assert sum(counts.values()) == 200
    print(f"T-I1: 200 footers of a source with one bit flipped, seed 7: {counts}")
