"""Laws of the warehouse: nothing is lost at the door, names cannot escape, what is stored comes back."""

import json
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warehouse import (
    EmptySourceError,
    IdentifierError,
    UnsafePathError,
    Warehouse,
    arrow_table,
    atomic_write,
    canonical_json,
    check_door,
    make_directory,
    pack_entities,
    sql_identifier,
    unpack_attributes,
)

few = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
ids = st.sampled_from(["a", "b", "c", "", " ", "d'", None])
ratings = st.sampled_from(["1", "x", "nan", None])
times = st.sampled_from(["2020-01-01", "1900-01-01", "9999-01-01", "noon", None])


@few
@given(
    pairs=st.lists(st.tuples(ids, ids, ratings, times), min_size=1, max_size=30),
    items=st.lists(ids, max_size=8),
    users=st.none() | st.lists(ids, max_size=8),
)
def test_T_I4_every_row_is_kept_or_quarantined_and_never_both(pairs, items, users):
    columns = dict(zip(("user_id", "item_id", "rating", "timestamp"), map(list, zip(*pairs, strict=True)), strict=True))
    interactions = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    item_rows = pa.table({"item_id": pa.array(items, pa.string())})
    user_rows = None if users is None else pa.table({"user_id": pa.array(users, pa.string())})
    try:
        door = check_door(interactions, item_rows, user_rows, now=datetime(2026, 1, 1, tzinfo=UTC))
    except EmptySourceError:
        return
    kinds = door.quarantine["kind"].to_pylist()
    assert door.interactions.num_rows + kinds.count("interaction") == len(pairs)
    assert door.items.num_rows + kinds.count("item") == len(items)
    assert (door.users.num_rows if door.users else 0) + kinds.count("user") == len(users or [])
    kept = list(zip(*(door.interactions[name].to_pylist() for name in ("user_id", "item_id")), strict=True))
    assert len(set(kept)) == len(kept)
    assert {item for _, item in kept} <= set(door.items["item_id"].to_pylist())
    if door.users is not None:
        assert {user for user, _ in kept} <= set(door.users["user_id"].to_pylist())


@pytest.fixture(scope="module")
def one_connection():
    connection = duckdb.connect()
    connection.execute("CREATE TABLE canary_of_the_test AS SELECT 1 AS x")
    return connection


identifiers = st.text(max_size=80) | st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True)


def refused_or_itself(one_connection: duckdb.DuckDBPyConnection, name: str) -> None:
    try:
        sql_identifier(name)
    except IdentifierError:
        return
    cursor = one_connection.cursor()
    cursor.execute(f'CREATE OR REPLACE VIEW v AS SELECT 2 AS "{name}"')
    assert cursor.sql("SELECT * FROM v").columns == [name]
    assert cursor.sql("SELECT x FROM canary_of_the_test").fetchall() == [(1,)]


@settings(max_examples=300)
@given(identifiers)
def test_S7_a_name_is_refused_or_is_the_identifier_it_says(one_connection, name):
    refused_or_itself(one_connection, name)


@pytest.mark.full
@settings(max_examples=5_000)
@given(identifiers)
def test_S7_five_thousand_names(one_connection, name):
    refused_or_itself(one_connection, name)


odd_names = st.text(max_size=140) | st.text(alphabet="./\\~*?[]\0aA-_", max_size=12)


@pytest.mark.full
def test_S9_nothing_is_written_outside_under_any_of_two_thousand_names(tmp_path):
    root = tmp_path / "outer" / "w"
    warehouse = Warehouse(root)
    taken = []

    @settings(max_examples=2_000)
    @given(odd_names | st.sampled_from(["..", "CON", "nul.txt", "～", "a" * 300, "a\0b", "．．／", "-rf", "a/../../b"]))
    def write(name: str) -> None:
        try:
            path = warehouse.inside("models", name)
        except UnsafePathError:
            return
        make_directory(path)
        atomic_write(path / "written", b"x")
        taken.append(name)

    write()
    outside = [path for path in tmp_path.rglob("*") if not path.is_relative_to(root) and path != root.parent]
    assert outside == []
    assert {path.name for path in (root / "models").iterdir()} == set(taken)
    print(f"S9: 2,000 names, {len(set(taken))} of them plain and inside, 0 files outside")


@settings(max_examples=500)
@given(odd_names)
def test_S9_a_path_is_refused_or_stays_inside(name):
    root = Path("/warehouse-of-the-test")
    try:
        path = Warehouse(root).inside("models", name)
    except UnsafePathError:
        return
    assert path.parent == root / "models"
    assert path.resolve().is_relative_to(root)


texts = st.text(st.characters(codec="utf-8"), max_size=40)


@settings(few, max_examples=15)
@given(rows=st.dictionaries(texts, st.none() | texts, min_size=1, max_size=10))
def test_any_text_is_read_back_as_it_was_stored_from_arrow_and_from_sql(rows):
    table = arrow_table(
        "items", {"item_id": list(rows), "title": list(rows.values()), "attributes": ["{}"] * len(rows)}
    )
    with TemporaryDirectory() as folder:
        warehouse = Warehouse(folder)
        with warehouse.lock():
            builder = warehouse.begin(None)
            builder.replace("items", table)
            snapshot = builder.commit()
        assert snapshot.read("items").to_pylist() == table.to_pylist()
        with warehouse.catalogue(snapshot) as catalogue:
            assert catalogue.query("FROM items").to_pylist() == table.to_pylist()


@settings(few, max_examples=20)
@given(
    values=st.lists(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=20),
)
def test_vectors_come_back_bit_for_bit(values):
    array = np.array(values, dtype=np.float32)
    n = len(array)
    columns = {"kind": ["item"] * n, "entity_id": [str(i) for i in range(n)], "text_hash": ["h"] * n}
    with TemporaryDirectory() as folder:
        warehouse = Warehouse(folder)
        with warehouse.lock():
            builder = warehouse.begin(None)
            builder.replace("embeddings_x", arrow_table("embeddings_x", {**columns, "embedding": array}))
            snapshot = builder.commit()
        column = snapshot.read("embeddings")["embedding"].combine_chunks()
    np.testing.assert_array_equal(column.flatten().to_numpy().reshape(-1, 3).view(np.uint32), array.view(np.uint32))


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(plain)
def test_canonical_json_is_a_fixed_point(value):
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@settings(max_examples=200)
@given(st.text(max_size=30))
def test_T_I5_packed_text_has_no_control_character_and_packing_it_again_changes_nothing(text):
    title = text.encode("utf-8", "replace").decode()
    once = pack_entities(pa.table({"item_id": ["1"], "title": [title]}), "items")
    (attributes,) = unpack_attributes(once)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in attributes.get("title", ""))
    again = pack_entities(
        pa.table({"item_id": ["1"], "title": pa.array([attributes.get("title")], pa.string())}), "items"
    )
    assert again.to_pylist() == once.to_pylist()


@pytest.mark.parametrize("seed", range(3))
def test_history_is_the_union_of_every_published_branch(seed, tmp_path):
    rng = np.random.default_rng(seed)
    warehouse = Warehouse(tmp_path)
    said, snapshots = [], [None]
    with warehouse.lock():
        for number in range(12):
            builder = warehouse.begin(snapshots[rng.integers(len(snapshots))])
            run = {"run_id": [str(number)], "command": ["run"], "started_at": [number], "settings": ["{}"]}
            builder.append("runs", arrow_table("runs", {**run, "settings_hash": ["h"]}))
            snapshots.append(builder.commit())
            if rng.random() < 0.5:
                published = warehouse.publish(snapshots[-1])
                said.append(str(number))
                assert set(said) <= set(published.read("runs")["run_id"].to_pylist())
        counters = [snapshot.counter for snapshot in reversed(warehouse.snapshots())]
    assert counters == sorted(set(counters))
