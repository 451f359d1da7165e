"""T-V1: whatever a model writes, it becomes a row that fits the schema or a code; nothing else can happen."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.examples import body_of, example_prompt, examples

from prompts import ReplyError, load_prompt, parse_reply
from providers.envelope import read_envelope

PROMPT = example_prompt()
GAME = load_prompt("games", "item")
SPOILS = [
    "",
    "\x00",
    '"',
    "{",
    "}",
    "[",
    "]",
    "\\",
    "\\u",
    "\ud800",
    "\u202e",
    "NaN",
    ",",
    ":",
    "'",
    "//",
    "```",
    "<think>",
]
NAMES = ["profile", "reasoning", "Profile", "summary", "audience", "themes", "extra"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=10,
)
near_misses = st.dictionaries(st.sampled_from(NAMES), json_values)
wrapped = st.tuples(st.sampled_from(["", "```json\n", "Sure: ", "<think>x</think>", "{"]), near_misses.map(json.dumps))


def assert_lawful(text: str) -> bool:
    """Whether the reply was kept; by then it fits the schema to the letter."""
    try:
        reply = parse_reply(text, PROMPT)
    except ReplyError as error:
        assert error.code.replace("_", "").isalpha()
        error.detail.encode("utf-8")
        assert len(error.detail) < 400
        return False
    summary, audience, themes = (reply.fields[name] for name in ("summary", "audience", "themes"))
    assert isinstance(summary, str) and 20 <= len(summary) <= 600 and reply.profile == summary
    assert isinstance(audience, str) and 10 <= len(audience) <= 300 and reply.reasoning == audience
    assert isinstance(themes, tuple) and 1 <= len(themes) <= 8
    assert all(isinstance(theme, str) and 2 <= len(theme) <= 40 for theme in themes)
    json.dumps(dict(reply.fields), ensure_ascii=False).encode("utf-8")
    return True


@settings(max_examples=300, deadline=None)
@given(st.text() | json_values.map(json.dumps) | near_misses.map(json.dumps) | wrapped.map("".join))
def test_T_V1_no_text_raises_anything_but_its_code_or_breaks_the_schema(text):
    assert_lawful(text)


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=20, max_size=80), st.text(min_size=1, max_size=30), st.data())
def test_T_V1_a_good_reply_spoilt_anywhere_is_still_lawful_for_a_shipped_prompt(profile, reasoning, data):
    good = json.dumps({"reasoning": reasoning, "profile": profile}, ensure_ascii=data.draw(st.booleans()))
    at = data.draw(st.integers(0, len(good)))
    try:
        reply = parse_reply(good[:at] + data.draw(st.sampled_from([*SPOILS, good])) + good[at + 1 :], GAME)
    except ReplyError as error:
        assert error.code
        return
    assert 20 <= len(reply.profile) <= 1600 and 1 <= len(reply.reasoning) <= 1600


def mutated(text: str, rng: random.Random) -> str:
    """One to four cuts, doublings, swaps and insertions."""
    for _ in range(rng.randint(1, 4)):
        at, size = rng.randrange(len(text) + 1), rng.choice([1, 1, 2, 5, 40])
        match rng.randrange(4):
            case 0:
                text = text[:at] + text[at + size :]
            case 1:
                text = text[:at] + rng.choice(SPOILS) + text[at:]
            case 2:
                text = text[: at + size] + text[at:]
            case _:
                text = text[:at]
    return text


def fuzz(n: int, seed: int) -> int:
    """How many of n mutated examples were kept."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    rows = [text for row in examples("bad_replies") if (text := read_envelope(body_of(row)).text) and len(text) < 5000]
    return sum(assert_lawful(mutated(rng.choice(rows), rng)) for _ in range(n))


def test_T_V1_1_100_mutated_examples_are_lawful():
    assert 0 < fuzz(1_100, seed=20_260_101) < 1_100


@pytest.mark.full
@pytest.mark.parametrize("seed", range(1, 5))
def test_T_V1_10_000_mutated_examples_are_lawful(seed):
    fuzz(2_500, seed)
