"""A second run over a changed catalogue pays for what changed, counted by the server: items, and users who see them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from servers.catalogue import write_catalogue
from servers.counting import chat, counting_server

from flows import cli
from warehouse import Warehouse


def told(number, asked):
    """A profile that depends on the question alone, so that a changed item has a changed profile."""
    text = asked["messages"][-1]["content"]
    profile = (
        f"Players who like calm puzzles and come back to them, as {len(text)} letters and {sum(map(ord, text))} show."
    )
    return chat(json.dumps({"reasoning": "It says so.", "profile": profile}))


def command(capsys, *words: str) -> dict:
    capsys.readouterr()
    code = cli.run([*words, "--json"])
    assert code == 0
    return json.loads(capsys.readouterr().out)


def edit_items(folder: Path, chosen: set[str]) -> None:
    """Other genres for some items."""
    rows = [json.loads(line) for line in (folder / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["genres"] = ["strategy"] if row["item_id"] in chosen else row["genres"]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def users_shown(folder: Path, items: set[str]) -> set[str]:
    """Users whose published profile was written from one of the items."""
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    rows = snapshot.read("profiles", filter_equal={"kind": "user"}).to_pylist()
    return {row["entity_id"] for row in rows if items & set(row["evidence"])}


@pytest.mark.parametrize(
    ("items", "users"), [(200, 40), pytest.param(2000, 400, marks=pytest.mark.full)], ids=["small", "full"]
)
def test_one_percent_of_the_items_edited_is_one_percent_of_the_calls_and_the_users_who_see_them(
    tmp_path, monkeypatch, capsys, items, users
):
    monkeypatch.chdir(tmp_path)
    with counting_server(told) as (url, server):
        write_catalogue(tmp_path, url, items=items, users=users)
        first = command(capsys, "profile")
        assert first["calls"] == len(server.requests) == items + users
        # user n trains on items 5n, 5n+1, 5n+2: some of these are seen by a user and some by nobody
        edited = {f"i{place * 100 + (0 if place % 2 == 0 else 3)}" for place in range(items // 100)}
        seeing = users_shown(tmp_path, edited)
        assert len(edited) == items // 100 and 0 < len(seeing) < len(edited) + 1
        before = (tmp_path / "items.jsonl").read_text(encoding="utf-8")
        edit_items(tmp_path, edited)
        expected = len(edited) + len(seeing)
        plan = command(capsys, "plan")
        assert (plan["new"], plan["changed"], plan["calls"]) == (0, expected, expected)
        assert plan["cached"] == items + users - expected
        second = command(capsys, "profile")
        assert second["calls"] == len(server.requests) - (items + users) == expected
        asked = [request["messages"][-1]["content"] for request in server.requests[items + users :]]
        assert sum("strategy" in text and "games_played" not in text for text in asked) == len(edited)
        assert command(capsys, "profile")["calls"] == 0
        # going back to the old catalogue costs nothing at all: every reply is still there
        (tmp_path / "items.jsonl").write_text(before, encoding="utf-8")
        assert command(capsys, "profile")["calls"] == 0 and len(server.requests) == items + users + expected
    print(f"{items} items, {users} users: {len(edited)} edited, {len(seeing)} users see them, {expected} calls")


def test_a_column_no_prompt_reads_and_the_order_of_rows_cost_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with counting_server(told) as (url, server):
        write_catalogue(tmp_path, url, items=20, users=4)
        command(capsys, "profile")
        rows = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text(encoding="utf-8").splitlines()]
        changed = [json.dumps({"shelf": 7, **row}) + "\n" for row in reversed(rows)]
        (tmp_path / "items.jsonl").write_text("".join(changed), encoding="utf-8")
        assert command(capsys, "profile")["calls"] == 0 and len(server.requests) == 24


def test_one_more_training_row_asks_about_its_user_and_its_item_where_reviews_are_shown(tmp_path, monkeypatch, capsys):
    """The games prompt shows reviews of an item: a new review changes the item, and whoever is shown the item."""
    monkeypatch.chdir(tmp_path)
    with counting_server(told) as (url, server):
        write_catalogue(tmp_path, url, items=20, users=3)
        command(capsys, "profile")
        with (tmp_path / "rows.csv").open("a", encoding="utf-8") as rows:
            rows.write("u0,i6,user 0 came back for it,train\n")  # u1 trains on i5, i6, i7
        before = len(server.requests)
        run = command(capsys, "profile")
        asked = [request["messages"][-1]["content"] for request in server.requests[before:]]
        assert run["calls"] == len(asked) == 3
        assert sum("games_played" in text for text in asked) == 2  # u0 and u1; the third is the item
