"""Evidence: allowed attributes only, cleaned and capped, with the ids of the rows behind it."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from prompts import (
    HistoryEntry,
    MissingAttributeError,
    ReviewEntry,
    check_attributes,
    item_evidence,
    load_prompt,
    render,
    rendered_data,
    user_evidence,
)

GAME = load_prompt("games", "item")
PLAYER = load_prompt("games", "user")
MOVIE = load_prompt("movies", "item")


def entries(n: int) -> list[HistoryEntry]:
    return [HistoryEntry(f"i{k}", title=f"Game {k}", profile=f"For people who like {k}.", rating=k) for k in range(n)]


def evidence_of(prompt, attributes, *args, **kwargs):
    build = item_evidence if prompt.kind == "item" else user_evidence
    evidence = build(prompt, attributes, *args, **kwargs)
    assert evidence is not None
    return evidence


def test_only_allowed_attributes_are_read_in_the_prompts_order():
    evidence = evidence_of(GAME, {"price": 3, "tags": ["Cosy"], "title": "Moss", "secret": "x", "genres": ["Puzzle"]})
    assert evidence.attributes == (("title", "Moss"), ("genres", ("Puzzle",)), ("tags", ("Cosy",)))


def test_personal_attributes_of_users_are_never_read():
    rows = {
        "age": "thirty-three",
        "gender": "F",
        "occupation": "writer",
        "interests": ["chess"],
        "name": "Ada",
        "zip_code": "1",
    }
    for prompt in (load_prompt(domain, "user") for domain in ("games", "movies", "papers", "generic")):
        evidence = evidence_of(prompt, rows, [])
        assert evidence.attributes == (("interests", ("chess",)),)
        shown = str(render(prompt, evidence).messages[1])
        assert not any(value in shown for value in ("thirty", '"F"', "writer", "Ada"))


def test_a_missing_value_is_the_word_none_and_no_field():
    rendered = render(GAME, evidence_of(GAME, {"title": "Moss", "genres": [], "tags": None, "developer": "nan"}))
    assert rendered_data(rendered)["game"] == {"title": "Moss", "genres": "None", "tags": "None", "developer": "None"}
    assert rendered.fields == (("", "Moss"),)


@pytest.mark.parametrize("empty", [None, "", "  ", "None", "NaN", float("nan"), [], [None, ""], "\u200b\x00"])
def test_a_row_without_any_text_has_no_evidence(empty):
    assert item_evidence(GAME, {"title": empty, "tags": None}) is None


def test_a_required_attribute_that_is_no_column_is_refused_with_prompt_columns_and_cure():
    with pytest.raises(MissingAttributeError) as refused:
        check_attributes(GAME, ["titel", "tags"])
    assert str(refused.value) == (
        "prompt games/item needs the attribute `title`, which the data does not have; columns: titel, tags."
        ' `titel` looks close: map a column with source.columns.items.title = "<your column>", or choose another'
        " profiles.domain"
    )
    with pytest.raises(MissingAttributeError):
        item_evidence(GAME, {"tags": ["a"]})
    check_attributes(PLAYER, [])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (" a\n\tb ", "a b"),
        (True, "yes"),
        (2016, "2016"),
        (3.0, "3"),
        (0.1, "0.1"),
        (math.inf, "None"),
        ("e\u0301\u202e\x07", "é"),
        ("\ud800x", "x"),
        ({"b": 1, "a": "ü"}, '{"a": "ü", "b": 1}'),
        ("x" * 500, "x" * 199 + "…"),
    ],
)
def test_values_become_one_line_of_visible_text(value, shown):
    assert dict(evidence_of(GAME, {"title": value, "tags": ["t"]}).attributes)["title"] == shown


def test_lists_are_split_deduplicated_and_capped():
    evidence = evidence_of(
        MOVIE, {"title": "M", "cast": "A B,C D, A B ,E,F,G,H", "genres": "Drama|drama|Film-Noir|Film noir"}
    )
    shown = dict(evidence.attributes)
    assert shown["cast"] == ("A B", "C D", "E", "F", "G") and evidence.truncated
    assert shown["genres"] == ("Drama", "Film-Noir")


def test_a_long_text_is_cut_after_a_word_and_says_so():
    rendered = render(GAME, evidence_of(GAME, {"title": "T", "description": "word " * 1000}))
    description = rendered_data(rendered)["game"]["description"]
    assert len(description) <= 2000 and description.endswith("word…") and rendered.truncated
    assert not render(GAME, evidence_of(GAME, {"title": "T"})).truncated


def test_a_users_evidence_names_the_items_it_shows_and_the_prompt_names_no_ids():
    evidence = evidence_of(PLAYER, {}, entries(40), seed=1, user_id="user-77")
    assert len(evidence.pairs) == len(set(evidence.pairs)) == PLAYER.limits.history
    data = rendered_data(render(PLAYER, evidence))
    assert [game["title"] for game in data["games_played"]] == [f"Game {pair[1:]}" for pair in evidence.pairs]
    assert list(data["games_played"][0]) == ["title", "description", "rating", "review"]
    assert data["games_played"][0]["review"] == "None"
    text = str(render(PLAYER, evidence).messages)
    assert "user-77" not in text and not any(f"'{pair}'" in text or f'"{pair}"' in text for pair in evidence.pairs)


def test_a_user_with_few_items_shows_them_all_and_items_without_text_are_never_drawn():
    history = [*entries(3), HistoryEntry("blank"), HistoryEntry("none", title="None", profile="  ")]
    assert sorted(evidence_of(PLAYER, {}, history).pairs) == ["i0", "i1", "i2"]
    assert user_evidence(PLAYER, {}, history[3:]) is None
    assert user_evidence(PLAYER, {}, []) is None


def test_the_sample_depends_on_seed_and_user_and_not_on_the_order_of_rows():
    history = entries(30)
    one = evidence_of(PLAYER, {}, history, seed=5, user_id="a")
    assert one == evidence_of(PLAYER, {}, history[::-1], seed=5, user_id="a")
    others = [evidence_of(PLAYER, {}, history, seed=s, user_id=u).pairs for s, u in [(6, "a"), (5, "b")]]
    assert one.pairs not in others


def test_one_more_item_changes_few_samples():
    changed = 0
    for user in range(200):
        before = evidence_of(PLAYER, {}, entries(30), seed=0, user_id=str(user))
        after = evidence_of(PLAYER, {}, entries(31), seed=0, user_id=str(user))
        changed += before.pairs != after.pairs
        assert len(set(after.pairs) - set(before.pairs)) <= 1
    assert changed < 200 * 6 / 31 * 2


def test_every_item_is_drawn_about_equally_often():
    drawn = Counter(
        pair for user in range(600) for pair in evidence_of(PLAYER, {}, entries(20), seed=0, user_id=str(user)).pairs
    )
    expected = 600 * 6 / 20
    assert len(drawn) == 20 and all(0.7 * expected < count < 1.3 * expected for count in drawn.values())


def test_reviews_are_sampled_without_names_and_their_writers_are_the_pairs():
    reviews = [ReviewEntry(f"writer-{n}", f"opinion {n}") for n in range(20)] + [ReviewEntry("mute", " ")]
    evidence = evidence_of(GAME, {"title": "T"}, reviews, seed=2, item_id="g1")
    assert len(evidence.pairs) == len(evidence.reviews) == GAME.limits.reviews
    assert "mute" not in evidence.pairs
    assert [f"opinion {writer[7:]}" for writer in evidence.pairs] == list(evidence.reviews)
    assert "writer-" not in str(render(GAME, evidence).messages)


def test_reviews_alone_are_evidence():
    evidence = item_evidence(GAME, {"title": None}, [ReviewEntry("u", "Quiet and lovely.")])
    assert evidence is not None and render(GAME, evidence).fields == ()


def test_the_hash_changes_with_anything_shown_and_with_nothing_else():
    base = evidence_of(PLAYER, {"interests": ["chess"], "age": 4}, entries(3), user_id="u")
    same = evidence_of(PLAYER, {"interests": ["chess "], "age": 5}, entries(3), user_id="u")
    others = [
        evidence_of(PLAYER, {"interests": ["go"]}, entries(3), user_id="u"),
        evidence_of(PLAYER, {"interests": ["chess"]}, entries(2), user_id="u"),
        evidence_of(
            PLAYER, {"interests": ["chess"]}, [*entries(2), HistoryEntry("i2", "Game 2", "Changed.")], user_id="u"
        ),
    ]
    assert base.hash == same.hash and len(base.hash) == 64
    assert len({evidence.hash for evidence in [base, *others]}) == 4
