"""The map of the items: places that vectors decide, groups that an attribute decides, points that stay data."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.report import ItemMap, MapPoint
from flows.report.page import map_points
from flows.steps.item_map import flat, grouped


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 60), st.integers(1, 12))
def test_every_place_is_on_the_map_whatever_the_vectors(seed, n_rows, dim):
    vectors = np.random.default_rng(seed).standard_normal((n_rows, dim)).astype(np.float32)
    places, explained = flat(vectors)
    assert places.shape == (n_rows, 2) and (places >= 0).all() and (places <= 1).all(), f"seed {seed}"
    assert 0 <= explained <= 1 + 1e-9
    again, _ = flat(vectors)
    assert (again == places).all()


def test_two_clouds_lie_apart_and_the_share_of_variance_is_told():
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((200, 16)).astype(np.float32) * 0.05
    vectors[:100, 0] += 1
    places, explained = flat(vectors)
    first, second = places[:100, 0], places[100:, 0]
    assert min(first.max(), second.max()) < max(first.min(), second.min())
    assert explained > 0.8
    assert flat(np.ones((5, 4), np.float32))[1] == 0


def test_the_attribute_that_tells_items_apart_makes_the_groups():
    rows = [{"genres": ["Drama", "War"] if n % 3 else ["Comedy"], "code": f"c{n}"} for n in range(30)]
    column, kinds, groups = grouped(rows)
    assert (column, groups) == ("genres", ("Drama", "Comedy")) and kinds[:3] == [1, 0, 0]
    rows = [{"shelf": f"s{n % 9}"} for n in range(90)]
    column, kinds, groups = grouped(rows)
    assert column == "shelf" and len(groups) == 6 and groups[-1] == "other" and kinds.count(5) == 40
    assert grouped([{"code": f"c{n}"} for n in range(30)]) == (None, [0] * 30, ("items",))
    assert grouped([]) == (None, [], ("items",))


@pytest.mark.parametrize("text", ["</script><b>", "<!--", "]]>&amp;", "\u2028\u2029", '"\\'])
def test_no_text_of_a_point_ends_its_element(text):
    world = ItemMap((MapPoint(0.1, 0.2, 0, text, text),), 1, 0.5, "genre", (text,))
    page = map_points(world)
    assert not re.search(r"[<>&\u2028\u2029]", page)
    assert json.loads(page)["texts"] == [text] and json.loads(page)["groups"] == [text]
