"""The door: every refused row is in quarantine with its code and evidence, every other row is kept."""

import json
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from warehouse import EmptySourceError, check_door

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ITEMS = pa.table({"item_id": ["a", "b"], "title": ["A", "B"]})
USERS = pa.table({"user_id": ["u", "v"], "age": [30, 40]})


def refused(door) -> list[tuple[str, str, str]]:
    return [(row["kind"], row["entity_id"], row["code"]) for row in door.quarantine.to_pylist()]


def test_each_fault_of_an_interaction_has_its_code_and_the_rest_stays():
    rows = pa.Table.from_pylist(
        [
            {"user_id": "u", "item_id": "a", "rating": "4", "timestamp": "2020-01-02", "text": "  "},
            {"user_id": None, "item_id": "a", "rating": "4", "timestamp": None, "text": None},
            {"user_id": "u", "item_id": " ", "rating": "4", "timestamp": None, "text": None},
            {"user_id": "u", "item_id": "zz", "rating": "4", "timestamp": None, "text": None},
            {"user_id": "nobody", "item_id": "a", "rating": "4", "timestamp": None, "text": None},
            {"user_id": "v", "item_id": "a", "rating": "four", "timestamp": None, "text": None},
            {"user_id": "v", "item_id": "a", "rating": "nan", "timestamp": None, "text": None},
            {"user_id": "v", "item_id": "a", "rating": "4", "timestamp": "noon", "text": None},
            {"user_id": "v", "item_id": "a", "rating": "4", "timestamp": "1970-01-01", "text": None},
            {"user_id": "v", "item_id": "a", "rating": "4", "timestamp": "2026-06-03", "text": None},
            {"user_id": "u", "item_id": "a", "rating": "5", "timestamp": None, "text": None},
            {"user_id": "v", "item_id": "b", "rating": None, "timestamp": None, "text": "good"},
        ]
    )
    door = check_door(rows, ITEMS, USERS, run_id="r", now=NOW)
    assert [code for _, _, code in refused(door)] == [
        "null_id",
        "null_id",
        "unknown_item",
        "unknown_user",
        "bad_rating",
        "bad_rating",
        "bad_time",
        "absurd_time",
        "absurd_time",
        "duplicate_pair",
    ]
    assert door.interactions.to_pylist() == [
        {"user_id": "u", "item_id": "a", "rating": 4.0, "timestamp": datetime(2020, 1, 2, tzinfo=UTC), "text": None},
        {"user_id": "v", "item_id": "b", "rating": None, "timestamp": None, "text": "good"},
    ]
    evidence = json.loads(door.quarantine["detail"].to_pylist()[4])
    assert evidence == {"row": 5, "user_id": "v", "item_id": "a", "rating": "four", "text": None, "timestamp": None}
    assert set(door.quarantine["run_id"].to_pylist()) == {"r"}
    assert door.quarantined_share == 10 / 16


def test_a_refused_row_does_not_make_a_good_one_a_duplicate():
    rows = pa.table({"user_id": ["u", "u"], "item_id": ["a", "a"], "rating": ["x", "1"]})
    door = check_door(rows, ITEMS, now=NOW)
    assert refused(door) == [("interaction", "u", "bad_rating")]
    assert door.interactions.num_rows == 1


@pytest.mark.parametrize(
    ("before", "latest", "kept"),
    [
        (None, False, ["2026-02-01"]),
        (None, True, ["2026-05-01"]),
        (datetime(2026, 4, 1, tzinfo=UTC), False, ["2026-02-01", None]),
        (datetime(2026, 4, 1, tzinfo=UTC), True, ["2026-05-01", "2026-03-01"]),
        (datetime(2026, 1, 1, tzinfo=UTC), True, ["2026-05-01"]),
    ],
)
def test_one_row_of_a_repeated_pair_stays_on_each_side_of_a_moment(before, latest, kept):
    times = ["2026-02-01", None, "2026-05-01", "2026-01-01", "2026-03-01"]
    rows = pa.table({"user_id": ["u"] * 5, "item_id": ["a"] * 5, "timestamp": times})
    door = check_door(rows, ITEMS, now=NOW, before=before, latest=latest)
    found = door.interactions["timestamp"].to_pylist()
    assert [moment and moment.date().isoformat() for moment in found] == kept
    assert refused(door) == [("interaction", "u", "duplicate_pair")] * (5 - len(kept))


def test_the_first_row_of_an_id_stays():
    items = pa.table({"item_id": ["a", None, "a", ""], "title": ["first", "x", "second", "y"]})
    users = pa.table({"user_id": ["u", "u"]})
    door = check_door(pa.table({"user_id": ["u"], "item_id": ["a"]}), items, users, now=NOW)
    assert door.items.to_pylist() == [{"item_id": "a", "title": "first"}]
    assert refused(door) == [
        ("item", "", "null_id"),
        ("item", "a", "duplicate_id"),
        ("item", "", "null_id"),
        ("user", "u", "duplicate_id"),
    ]


def test_without_users_every_user_is_known():
    door = check_door(pa.table({"user_id": ["anyone"], "item_id": ["a"]}), ITEMS, now=NOW)
    assert door.users is None
    assert door.quarantine.num_rows == 0


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, 1_000_000_000])
@pytest.mark.parametrize("kind", [pa.int64(), pa.float64()])
def test_times_as_numbers_are_seconds_or_finer(unit, kind):
    stamp = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    times = pa.array([int(stamp.timestamp()) * unit]).cast(kind, safe=False)
    rows = pa.table({"user_id": ["u"], "item_id": ["a"], "timestamp": times})
    assert check_door(rows, ITEMS, now=NOW).interactions["timestamp"].to_pylist() == [stamp]


@pytest.mark.parametrize(
    "kind",
    [pa.int32(), pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("ms", "UTC"), pa.timestamp("us", "Europe/Paris")],
)
def test_times_of_every_type_become_utc_microseconds(kind):
    seconds = 1_577_934_245
    naive = datetime(2020, 1, 2, 3, 4, 5)
    values = [seconds] if pa.types.is_integer(kind) else [naive.replace(tzinfo=UTC) if kind.tz else naive]
    rows = pa.table({"user_id": ["u"], "item_id": ["a"], "timestamp": pa.array(values, kind)})
    times = check_door(rows, ITEMS, now=NOW).interactions["timestamp"]
    assert times.type == pa.timestamp("us", "UTC")
    assert times.to_pylist() == [naive.replace(tzinfo=UTC)]


def test_a_day_ahead_is_the_latest_that_is_believed():
    times = [NOW + timedelta(hours=23), NOW + timedelta(hours=25)]
    rows = pa.table({"user_id": ["u", "v"], "item_id": ["a", "a"], "timestamp": pa.array(times)})
    assert refused(check_door(rows, ITEMS, now=NOW)) == [("interaction", "v", "absurd_time")]


def test_other_columns_come_through():
    rows = pa.table({"user_id": ["u", None], "item_id": ["a", "a"], "split": ["train", "test"]})
    assert check_door(rows, ITEMS, now=NOW).interactions["split"].to_pylist() == ["train"]


def test_nothing_left_is_refused_with_the_counts():
    rows = pa.table({"user_id": ["u", "v"], "item_id": ["x", "y"]})
    with pytest.raises(EmptySourceError, match="2 unknown_item"):
        check_door(rows, ITEMS, now=NOW)
