"""A split that the source gives: words for parts, and what is refused."""

from __future__ import annotations

import pytest

from flows.errors import SplitColumnError
from flows.source_settings import SourceSettings, SplitSettings
from flows.steps.ingest import split_words
from flows.steps.split import given_parts
from warehouse import arrow_table


def table(*parts: str | None):
    return arrow_table(None, {"user_id": ["u"] * len(parts), "split": list(parts)})


def test_parts_are_read_in_their_usual_spellings():
    assert given_parts(table("train", "Validation", " test ", "valid", "val"), "split").tolist() == [0, 1, 2, 1, 1]


@pytest.mark.parametrize(
    ("parts", "words"),
    [(("train", "dev", "test"), "'dev' is no part"), (("train", "test"), "valid"), ((None, "train"), "None")],
)
def test_other_words_and_missing_parts_are_refused_by_name(parts, words):
    with pytest.raises(SplitColumnError, match=words):
        given_parts(table(*parts), "split")


def test_a_missing_column_names_the_ones_there_are():
    with pytest.raises(SplitColumnError, match="they have user_id, split"):
        given_parts(table("train"), "part")


def test_a_split_says_in_words_what_it_is():
    assert split_words(SplitSettings(), SourceSettings()) == "random 3:1:1, seed 0"
    assert (
        split_words(SplitSettings(kind="given", column="part"), SourceSettings(screen=0.2))
        == "given column part, screen of 20% of the users"
    )
