"""Rows are made to fit their table, or refused with the column that does not."""

import datetime

import numpy as np
import pyarrow as pa
import pytest

from warehouse import (
    INTERACTIONS,
    ITEMS,
    METRICS,
    DuplicateKeyError,
    SchemaMismatchError,
    UnknownTableError,
    arrow_table,
    pack_entities,
    unpack_attributes,
)
from warehouse.tables import EMBEDDINGS


def test_columns_may_come_in_any_order_and_in_types_that_lose_nothing():
    rows = pa.table({"attributes": pa.array(["{}"], pa.large_string()), "item_id": ["1"]})
    fitting = ITEMS.conform(rows)
    assert fitting.schema.names == ["item_id", "title", "attributes"]
    assert fitting["title"].null_count == 1
    assert fitting["attributes"].type == pa.string()


def test_an_unknown_column_a_missing_one_a_null_and_a_wrong_type_are_each_named():
    good = {"item_id": ["1"], "attributes": ["{}"]}
    for change, named in [
        ({"colour": ["red"]}, "unknown column `colour`"),
        ({"attributes": None}, "column `attributes` is missing"),
        ({"item_id": pa.array([None], pa.string())}, "`item_id` has 1 nulls"),
        ({"title": pa.array([[1]])}, "`title` is list"),
    ]:
        columns = {name: value for name, value in {**good, **change}.items() if value is not None}
        with pytest.raises(SchemaMismatchError, match=named):
            ITEMS.conform(pa.table(columns))


def test_a_cast_that_would_lose_digits_is_refused():
    rows = arrow_table(None, {"user_id": ["u"], "item_id": ["i"], "timestamp": ["yesterday"]})
    with pytest.raises(SchemaMismatchError, match="timestamp"):
        INTERACTIONS.conform(rows)


def test_a_repeated_key_is_refused_with_the_key():
    rows = arrow_table("interactions", {"user_id": ["u", "u"], "item_id": ["i", "i"]})
    with pytest.raises(DuplicateKeyError, match="'user_id': 'u'"):
        INTERACTIONS.check_keys(rows)


def test_vectors_keep_their_width_and_other_lists_are_refused():
    columns = {"kind": ["item"], "entity_id": ["1"], "text_hash": ["h"]}
    rows = arrow_table("embeddings_mini", {**columns, "embedding": np.ones((1, 3))})
    assert rows.schema.field("embedding").type == pa.list_(pa.float32(), 3)
    with pytest.raises(SchemaMismatchError, match="fixed_size_list"):
        EMBEDDINGS.member("embeddings_mini").conform(pa.table({**columns, "embedding": [[1.0]]}))


def test_a_name_nobody_declared_is_refused_with_the_names_known():
    with pytest.raises(UnknownTableError, match="unknown table `profile`; known: items"):
        arrow_table("profile", {})


def test_a_metric_that_is_not_a_number_is_stored_as_unknown():
    columns = {"run_id": ["r"], "model": ["m"], "seed": [1], "protocol": ["p"], "part": ["test"], "metric": ["recall"]}
    rows = arrow_table(METRICS, {**columns, "value": np.array([np.nan])})
    assert rows["value"].null_count == 1


def test_items_are_packed_with_every_attribute_and_without_the_empty_ones():
    rows = pa.table(
        {
            "item_id": ["1", "2"],
            "title": ["  Cafe\u0301\x00 ", None],
            "tags": pa.array([["a", None], []], pa.list_(pa.string())),
            "price": [float("nan"), 2.5],
            "released": [datetime.date(2020, 1, 2), None],
        }
    )
    packed = pack_entities(rows, "items")
    assert packed["title"].to_pylist() == ["Café", None]
    assert unpack_attributes(packed) == [
        {"title": "Café", "tags": ["a"], "released": "2020-01-02"},
        {"price": 2.5},
    ]


def test_users_without_attributes_are_packed_as_empty_objects():
    assert pack_entities(pa.table({"user_id": ["1"]}), "users").to_pylist() == [{"user_id": "1", "attributes": "{}"}]
