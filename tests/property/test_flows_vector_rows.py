"""Laws of pooling: one row an entity, length 1, whatever the order and the company."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.steps.texts import SetTexts, text_hash
from flows.steps.vector_rows import VectorIndex, vector_rows

DIM = 6


def vector_of(text: str) -> np.ndarray:
    """A unit vector that belongs to a text."""
    drawn = np.random.default_rng(int(text_hash(text)[:8], 16)).normal(size=DIM).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


def set_texts(of_items: list[list[str]], of_users: list[list[int]]) -> SetTexts:
    """Items with their texts, and users with the items they are pooled from."""
    texts = [text for own in of_items for text in own]
    hashes = np.array([text_hash(text).encode() for text in texts], "S70")
    own = np.array([text_hash("|".join(own)).encode() for own in of_items], "S70")
    items, users = [f"i{n}" for n in range(len(of_items))], [f"u{n}" for n in range(len(of_users))]
    return SetTexts(
        ["item"] * len(items), items, own, np.cumsum([0, *map(len, of_items)]), hashes, texts,
        users, np.cumsum([0, *map(len, of_users)]), np.array([i for own in of_users for i in own], np.int64),
    )  # fmt: skip


def filled(texts: SetTexts) -> VectorIndex:
    index = VectorIndex(np.concatenate([texts.text_hashes, texts.hashes]))
    index.put(texts.text_hashes, np.stack([vector_of(text) for text in texts.texts]))
    return index


some_texts = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=4)


@given(st.lists(some_texts, min_size=1, max_size=9), st.sampled_from(["mean", "max"]), st.data())
def test_every_row_is_the_pooled_vector_of_its_texts_at_length_one(of_items, pooling, draw):
    members = st.lists(st.integers(0, len(of_items) - 1), min_size=1, max_size=5)
    of_users = draw.draw(st.lists(members, max_size=4))
    texts = set_texts(of_items, of_users)
    rows = vector_rows(texts, filled(texts), pooling)
    join = np.mean if pooling == "mean" else np.max
    joined = [join([vector_of(text) for text in own], axis=0) for own in of_items]
    expected = np.stack([vector / np.linalg.norm(vector) for vector in joined])
    n = len(of_items)
    assert np.allclose(rows["embedding"][:n], expected, atol=1e-5)
    assert np.allclose(np.linalg.norm(rows["embedding"], axis=1), 1, atol=1e-5)
    means = [expected[own].mean(axis=0) for own in of_users]
    assert all(
        np.allclose(row, mean / np.linalg.norm(mean), atol=1e-4)
        for row, mean in zip(rows["embedding"][n:], means, strict=True)
    )
    assert [*rows["entity_id"][:n], *rows["entity_id"][n:]] == [*texts.ids, *texts.pooled]


def test_a_row_known_as_a_whole_needs_none_of_its_texts():
    texts = set_texts([["a", "b"], ["c"]], [])
    index = filled(texts)
    index.put(texts.hashes[:1], vector_of("as it was pooled before")[None])
    rows = vector_rows(texts, index, "mean")
    assert np.array_equal(rows["embedding"][0], vector_of("as it was pooled before"))
    assert np.allclose(rows["embedding"][1], vector_of("c"), atol=1e-6)


def test_a_mean_without_direction_is_no_vector():
    texts = set_texts([["a", "b"], ["c"]], [[0, 1]])
    index = VectorIndex(np.concatenate([texts.text_hashes, texts.hashes]))
    index.put(texts.text_hashes, np.array([[1, 0], [-1, 0], [0, 1]], np.float32))
    rows = vector_rows(texts, index, "mean")
    assert rows["entity_id"][0] == "i1" and np.isfinite(rows["embedding"][0]).all()


@given(st.lists(st.sampled_from("abcdefgh"), max_size=12), st.lists(st.sampled_from("abcdefgh"), max_size=12))
def test_an_index_keeps_the_first_vector_of_what_it_was_made_for_and_nothing_else(wanted, offered):
    hashes = np.array([text_hash(text).encode() for text in wanted], "S70")
    index = VectorIndex(hashes)
    new = np.array([text_hash(text).encode() for text in offered], "S64")
    rows = np.stack([vector_of(text) for text in offered]) if offered else np.zeros((0, DIM), np.float32)
    assert index.put(new, rows) == len({*wanted} & {*offered})
    assert index.put(new, rows) == 0
    for text, known, place in zip(wanted, index.knows(hashes), index.places(hashes), strict=True):
        assert known == (text in offered)
        assert not known or np.array_equal(index.matrix[place], vector_of(text))


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_many_entities_are_pooled_in_parts_with_the_same_result(pooling, monkeypatch):
    import flows.steps.vector_rows

    texts = set_texts(
        [list("abcdefghij"[n % 7 : n % 7 + 1 + n % 3]) for n in range(50)], [[n, n + 1] for n in range(40)]
    )
    whole = vector_rows(texts, filled(texts), pooling)["embedding"]
    monkeypatch.setattr(flows.steps.vector_rows, "_ENTITIES_AT_ONCE", 8)
    assert np.array_equal(vector_rows(texts, filled(texts), pooling)["embedding"], whole)
