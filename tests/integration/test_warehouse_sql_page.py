"""The page of queries, run query by query; and the two macros that are more than a join, against numpy."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pytest
from servers.published import AFTER, BEFORE, PAIRS, TITLES, publish

PAGE = Path(__file__).parents[2] / "docs" / "sql.md"
QUERIES = re.findall(r"^(\d+)\. (.+?)\n\n```sql\n(.+?)\n```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    warehouse = publish(tmp_path_factory.mktemp("page") / "w")
    with warehouse.catalogue(warehouse.current()) as opened:
        yield opened


def test_the_page_has_its_queries_in_order_and_no_block_escapes_the_test():
    assert [int(number) for number, _, _ in QUERIES] == list(range(1, 26))
    assert PAGE.read_text(encoding="utf-8").count("```sql\n") == len(QUERIES)


@pytest.mark.parametrize("query", [pytest.param(sql, id=number) for number, _, sql in QUERIES])
def test_a_query_of_the_page_runs(catalogue, query):
    # nothing changed a week ago, and the last seven days begin before the first snapshot: its own changes show
    expects_nothing = "> 0.95" in query
    assert (catalogue.query(query).num_rows == 0) == expects_nothing


def nearest(vectors: dict[tuple[str, str], np.ndarray], item: str, k: int) -> set[str]:
    others = [other for other in TITLES if other != item]
    return set(sorted(others, key=lambda other: -float(vectors["item", item] @ vectors["item", other]))[:k])


def test_the_neighbours_a_new_profile_lost_and_won_are_those_of_the_two_spaces(catalogue):
    (row,) = catalogue.query("FROM changed_profiles('2020-01-01', k := 2)").to_pylist()
    before, now = nearest(BEFORE, "1", 2), nearest(AFTER, "1", 2)
    assert before != now, "the example moved nothing"
    assert (row["item_id"], row["profile_now"]) == ("1", "A slow puzzle on wheels.")
    assert row["similarity_to_before"] == pytest.approx(float(BEFORE["item", "1"] @ AFTER["item", "1"]), abs=1e-6)
    assert row["neighbours_stayed"] == len(before & now)
    assert (row["neighbours_gone"], row["neighbours_come"]) == (sorted(before - now), sorted(now - before))


def test_since_a_moment_after_the_last_change_nothing_changed(catalogue):
    assert catalogue.query("FROM changed_profiles(?)", [datetime(2100, 1, 1, tzinfo=UTC)]).num_rows == 0


def test_an_item_is_offered_to_the_nearest_users_who_have_not_met_it(catalogue):
    rows = catalogue.query("FROM users_like('1', 5)").to_pylist()
    strangers = [user for user in ("u", "v", "w") if (user, "1") not in PAIRS]
    expected = {user: float(AFTER["user", user] @ AFTER["item", "1"]) for user in strangers}
    assert {row["user_id"]: row["similarity"] for row in rows} == pytest.approx(expected, abs=1e-6)


def test_coverage_counts_what_is_said_and_what_was_set_aside(catalogue):
    items, users = catalogue.query("FROM coverage()").to_pylist()
    assert (items["entities"], items["with_profile"], items["with_vector"], items["share_with_vector"]) == (4, 4, 4, 1)
    assert (users["entities"], users["with_profile"], users["set_aside"], users["with_vector"]) == (3, 0, 1, 3)


def rounded(row: tuple) -> list:
    # threads add up in any order
    return [round(value, 9) if isinstance(value, float) else value for value in row]


def test_the_exported_file_answers_the_page_without_this_program(catalogue, tmp_path):
    path = tmp_path / "it's all.duckdb"
    catalogue.export(path)
    assert path.stat().st_mode & 0o777 == 0o400 and list(tmp_path.iterdir()) == [path]
    with duckdb.connect(str(path), read_only=True) as connection:
        for _, _, sql in QUERIES:
            rows = [tuple(row.values()) for row in catalogue.query(sql).to_pylist()]
            assert [rounded(row) for row in connection.sql(sql).fetchall()] == [rounded(row) for row in rows]
        with pytest.raises(duckdb.Error, match="read-only"):
            connection.execute("DELETE FROM items")


def test_an_export_that_fails_leaves_nothing_behind(catalogue, tmp_path, monkeypatch):
    monkeypatch.setattr("warehouse.catalogue.MACROS", ("cost_by_day", "no_such_macro"))
    with pytest.raises(FileNotFoundError):
        catalogue.export(tmp_path / "x.duckdb")
    assert list(tmp_path.iterdir()) == []
