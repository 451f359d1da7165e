"""A text is only searched for a wording where it holds what the wording needs; nothing may be missed by that."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prompts.patterns import fold, needed
from prompts.wordings import CONTENT, EMPTY_WORDS

WORDINGS = {f"{place}-{wording.code}": wording.pattern for place, wording in enumerate(CONTENT)} | {
    "empty": EMPTY_WORDS
}


@pytest.mark.parametrize("name", [name for name, pattern in WORDINGS.items() if pattern.anywhere])
@settings(max_examples=10, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_a_pattern_fits_is_found_in_any_case(name, data):
    pattern = data.draw(st.sampled_from(WORDINGS[name].anywhere))
    text = data.draw(st.from_regex(re.compile(pattern, re.IGNORECASE)))
    assert WORDINGS[name].is_in(text)
    assert all(any(literal in fold(text) for literal in literals) for literals in needed(pattern))


def test_every_letter_that_re_takes_for_another_is_folded_into_it():
    letters = {letter for pattern in WORDINGS.values() for one in pattern.anywhere for letter in one}
    cased = "".join(
        char for char in map(chr, range(sys.maxunicode + 1)) if {char.lower(), char.upper(), char.casefold()} != {char}
    )
    same = {(found, letter) for letter in letters for found in re.findall(re.escape(letter), cased, re.IGNORECASE)}
    assert ("ſ", "s") in same and ("ı", "i") in same
    assert all(fold(found) == fold(letter) for found, letter in same)


@pytest.mark.parametrize(
    ("pattern", "asked"),
    [
        (r"\b(?:i|we) can ?not (?:help|assist)", [("not assist", "not help"), (" can",)]),
        (r"(?:red|green)?", []),
        (r"[ab][^c]\w+\s", []),
        (r"x(?:\.com|\.org)y", [("x.com", "x.org")]),
        (r"(?!never)(?<=[#@])word", [("#", "@"), ("word",)]),
        (r"(?:abc)+?d*", [("abc",)]),
        (r"İı", [("ii",)]),
        (r"(?>nobody thought of this kind)", []),
    ],
)
def test_what_a_pattern_asks_for(pattern, asked):
    assert needed(pattern) == asked
