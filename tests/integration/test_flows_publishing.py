"""What is published for every user: cold items, filters, diverse lists and the arms of an A/B test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from servers.small_world import write_small_world
from servers.training import train_here

import providers
from benchmarks.stand_ins import HashedWords
from flows import cli
from warehouse import Warehouse

ARMS = """
[recommend.variants.control]
share = 0.5
[recommend.variants.diverse]
share = 0.25
diversity = 0.6
[recommend.variants.simple]
share = 0.25
model = "popularity"
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder in which a run has ended; later runs only publish other lists."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(providers, "parse_encoder", lambda settings: HashedWords())
        train_here(patch)
        folder = tmp_path_factory.mktemp("published")
        write_small_world(folder)
        patch.chdir(folder)
        assert cli.run(["recommend"]) == 0
        yield folder


def lists(folder: Path) -> list[dict]:
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    return snapshot.read("recommendations").to_pylist()


def items_of(rows: list[dict], user_id: str) -> list[str]:
    return [row["item_id"] for row in sorted(rows, key=lambda row: row["rank"]) if row["user_id"] == user_id]


def test_everybody_has_a_list_in_which_the_item_nobody_took_may_stand(world):
    rows = lists(world)
    assert len({row["user_id"] for row in rows}) == 20
    assert {row["variant"] for row in rows} == {"dmrec"} and {len(row["model"]) for row in rows} == {16}
    assert "i15" in {row["item_id"] for row in rows}


def test_a_filter_by_sql_decides_over_items_and_over_users(world, capsys):
    stock = "FROM items WHERE attributes ->> '$.in_stock' = 'yes'"
    words = ["--set", f"recommend.items=SELECT item_id {stock}"]
    words += ["--set", "recommend.users=SELECT user_id FROM users WHERE user_id < 'u05'"]
    assert cli.run(["recommend", *words]) == 0
    rows = lists(world)
    assert {row["user_id"] for row in rows} == {f"u0{n}" for n in range(5)}
    assert rows and all(int(row["item_id"][1:]) % 5 != 4 for row in rows)
    capsys.readouterr()
    assert cli.run(["recommend", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["new_snapshot"] is False


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT title FROM items", "expected a column item_id"),
        ("SELECT item_id FROM items WHERE false", "no rows"),
        ("SELECT 'x' AS item_id", "no id of items"),
        ("DROP TABLE items", "only reading statements"),
    ],
)
def test_a_filter_that_is_none_is_refused_with_exit_code_2(world, capsys, query, problem):
    capsys.readouterr()
    assert cli.run(["recommend", "--set", f"recommend.items={query}"]) == 2
    assert problem in capsys.readouterr().err


def test_arms_are_dealt_by_user_and_each_row_names_its_own(world, capsys):
    (world / "arms.toml").write_text((world / "semalign.toml").read_text() + ARMS, encoding="utf-8")
    assert cli.run(["recommend", "--config", "arms.toml"]) == 0
    rows = lists(world)
    arm_of = {row["user_id"]: row["variant"] for row in rows}
    assert len(arm_of) == 20 and set(arm_of.values()) == {"control", "diverse", "simple"}
    assert all(row["variant"] == arm_of[row["user_id"]] for row in rows)
    models = {arm: {row["model"] for row in rows if row["variant"] == arm} for arm in set(arm_of.values())}
    assert models["control"] == models["diverse"] != models["simple"]
    plain = {user: items_of(rows, user) for user in arm_of}
    assert cli.run(["recommend"]) == 0
    before = lists(world)
    other = {
        arm: [user for user in arm_of if arm_of[user] == arm and plain[user] != items_of(before, user)]
        for arm in models
    }
    assert not other["control"] and other["diverse"] and other["simple"]
    assert cli.run(["recommend", "--config", "arms.toml", "--set", "recommend.variants.simple.model=none_such"]) == 2
    assert "dmrec, popularity" in capsys.readouterr().err


def test_diverse_lists_are_of_more_kinds_and_keep_their_first_item(world):
    assert cli.run(["recommend", "--set", "recommend.diversity=0.8"]) == 0
    diverse = lists(world)
    assert cli.run(["recommend"]) == 0
    plain = lists(world)
    users = {row["user_id"] for row in plain}

    def tastes(rows: list[dict]) -> int:
        return sum(len({int(item[1:]) % 2 for item in items_of(rows, user)}) for user in users)

    assert tastes(diverse) > tastes(plain)
    assert all(items_of(diverse, user)[0] == items_of(plain, user)[0] for user in users)
    assert all(len(items_of(diverse, user)) == len(set(items_of(diverse, user))) == 4 for user in users)


def test_the_report_of_a_run_maps_the_items_and_is_told_where_it_lies(world, capsys):
    assert cli.run(["run"]) == 0
    capsys.readouterr()
    assert cli.run(["report", "--json"]) == 0
    page = Path(json.loads(capsys.readouterr().out)["report"]).read_text(encoding="utf-8")
    points = json.loads(page.split('id="map-points">')[1].split("</script>")[0])
    assert len(points["titles"]) == 16 and points["named"] and "yes" in points["groups"]
    assert all(0 <= place <= 1 for place in points["x"] + points["y"])
