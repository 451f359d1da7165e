"""The generated catalogue: the same bytes from the same arguments, and texts that tell of tastes, as promised."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flows.demo_catalogue import DIFFICULTIES, DemoArgumentError, generate
from flows.demo_words import TOPICS

FILES = ("README.md", "interactions.csv", "items.jsonl", "topics.json", "users.jsonl")
SMALL = {"n_users": 300, "n_items": 240}


def rows(path: Path) -> list[dict]:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module", params=sorted(DIFFICULTIES))
def catalogue(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    generate(folder, seed=1, difficulty=request.param, **SMALL)
    return folder


def test_the_same_arguments_give_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    generate(tmp_path / "here", seed=3, **SMALL)
    script = f"from flows.demo_catalogue import generate; generate({str(tmp_path / 'there')!r}, seed=3, **{SMALL})"
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    for name in FILES:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes(), name


def test_another_seed_is_another_catalogue(tmp_path: Path) -> None:
    for seed in (0, 1):
        generate(tmp_path / str(seed), seed=seed, **SMALL)
    for name in FILES:
        assert (tmp_path / "0" / name).read_bytes() != (tmp_path / "1" / name).read_bytes(), name


def test_a_second_call_replaces_what_is_there_and_leaves_nothing_else(tmp_path: Path) -> None:
    generate(tmp_path, seed=0, **SMALL)
    made = generate(tmp_path, seed=1, **SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    assert len(rows(tmp_path / "interactions.csv")) == made.n_interactions


def test_ids_pairs_and_titles_occur_once_and_every_interaction_is_known(catalogue: Path) -> None:
    items, users = rows(catalogue / "items.jsonl"), rows(catalogue / "users.jsonl")
    pairs = [(row["user_id"], row["item_id"]) for row in rows(catalogue / "interactions.csv")]
    item_ids, user_ids = {item["item_id"] for item in items}, {user["user_id"] for user in users}
    assert (len(item_ids), len(user_ids)) == (SMALL["n_items"], SMALL["n_users"])
    assert len({item["title"] for item in items}) == len(items)
    assert len(set(pairs)) == len(pairs)
    assert {user for user, _ in pairs} == user_ids
    assert {item for _, item in pairs} <= item_ids


def test_every_item_has_the_attributes_the_games_prompt_reads(catalogue: Path) -> None:
    for item in rows(catalogue / "items.jsonl"):
        assert set(item) == {"item_id", "title", "publisher", "genres", "tags", "description"}
        assert all(item.values())


def test_users_have_nothing_that_could_tell_their_taste(catalogue: Path) -> None:
    assert {key for user in rows(catalogue / "users.jsonl") for key in user} == {"user_id", "joined"}


def test_the_readme_says_that_all_of_it_is_generated(catalogue: Path) -> None:
    text = (catalogue / "README.md").read_text("utf-8")
    assert text.startswith("# Generated catalogue")
    assert "invented" in text and "seed 1" in text


def test_no_two_subjects_share_a_word() -> None:
    told = [word for topic in TOPICS for word in (*topic.words, *topic.title_words)]
    assert len(told) == len(set(told))


def share_told(folder: Path) -> float:
    """Share of items whose description holds a word of their first or second subject."""
    truth = json.loads((folder / "topics.json").read_text("utf-8"))["item_topics"]
    vocabulary = {topic.name: topic.words for topic in TOPICS}
    told = [
        any(
            word in item["description"].lower()
            for name in truth[item["item_id"]]
            for word in map(str.lower, vocabulary[name])
        )
        for item in rows(folder / "items.jsonl")
    ]
    return float(np.mean(told))


def share_of_taste(folder: Path) -> float:
    """Share of interactions whose item's first subject is one of the user's three."""
    truth = json.loads((folder / "topics.json").read_text("utf-8"))
    return float(
        np.mean(
            [
                truth["item_topics"][row["item_id"]][0] in truth["user_topics"][row["user_id"]]
                for row in rows(folder / "interactions.csv")
            ]
        )
    )


def test_the_harder_the_difficulty_the_less_the_text_says_and_the_less_it_explains(tmp_path: Path) -> None:
    told, explained = [], []
    for difficulty in ("easy", "medium", "hard"):
        generate(tmp_path / difficulty, seed=2, difficulty=difficulty)
        told.append(share_told(tmp_path / difficulty))
        explained.append(share_of_taste(tmp_path / difficulty))
    assert told[0] > told[1] > told[2] > 0.6
    assert explained[0] > explained[1] > explained[2] > 2 * 3 / len(TOPICS)  # chance is 3 of 40


def test_popularity_has_a_long_tail(tmp_path: Path) -> None:
    generate(tmp_path, seed=0)
    items = [row["item_id"] for row in rows(tmp_path / "interactions.csv")]
    counts = np.sort(np.unique(items, return_counts=True)[1])[::-1]
    assert counts[0] > 5 * np.median(counts)
    assert counts[: len(counts) // 10].sum() > 0.2 * counts.sum()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"difficulty": "brutal"}, "one of easy, medium, hard"),
        ({"n_users": 3}, "`n_users` is 3, expected at least 10"),
        ({"n_items": 0}, "`n_items` is 0, expected at least 10"),
    ],
)
def test_arguments_out_of_range_are_refused_before_anything_is_written(
    tmp_path: Path, arguments: dict, said: str
) -> None:
    with pytest.raises(DemoArgumentError, match=said) as refusal:
        generate(tmp_path / "new", **arguments)
    assert refusal.value.exit_code == 2
    assert not (tmp_path / "new").exists()


def test_ten_users_and_ten_items_are_enough(tmp_path: Path) -> None:
    assert generate(tmp_path, n_users=10, n_items=10).n_interactions >= 10
