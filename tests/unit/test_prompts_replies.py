"""Replies: exactly what was asked for is accepted, and every other reply has one code."""

from __future__ import annotations

import json
import time

import pytest

from prompts import ReplyError, load_prompt, parse_reply

GAME = load_prompt("games", "item")
GOOD = {"reasoning": "The tags agree.", "profile": "Players who like slow exploration and quiet stories."}


def reply(**changes: object) -> str:
    return json.dumps({**GOOD, **changes})


def test_a_good_reply_gives_profile_and_reasoning():
    parsed = parse_reply(reply(), GAME)
    assert (parsed.profile, parsed.reasoning, parsed.repaired) == (GOOD["profile"], GOOD["reasoning"], False)


@pytest.mark.parametrize("fence", ["```json\n%s\n```", "```\n%s\n```", "\n ```JSON\r\n%s\r\n``` \n"])
def test_one_code_fence_is_taken_off_and_counted(fence):
    assert parse_reply(fence % reply(), GAME).repaired


def test_text_is_folded_into_clean_lines():
    parsed = parse_reply(reply(profile=" Players \n who like\u00ad quiet   stories. "), GAME)
    assert parsed.profile == "Players who like quiet stories."


BAD = {
    "prose": ("Here you are: the profile of the game.", "not_json"),
    "two objects": (reply() + reply(), "several_objects"),
    "half": (reply()[:-5], "cut_off"),
    "half a fence": ("```json\n" + reply()[:-5] + "\n```", "cut_off"),
    "a thought without end": ("<think>" + reply(), "not_json"),
    "nothing": ("", "not_json"),
    "NaN": (reply()[:-1] + ', "x": NaN}', "not_json"),
    "infinity": ('{"reasoning": -Infinity, "profile": "x"}', "cut_off"),
    "endless number": (reply()[:-1] + ', "x": ' + "9" * 5000 + "}", "not_json"),
    "list": (f"[{reply()}]", "not_an_object"),
    "string": (json.dumps(reply()), "not_an_object"),
    "null": ("null", "not_an_object"),
    "duplicate key": ('{"profile": "a", "profile": "b", "reasoning": "c"}', "duplicate_key"),
    "missing key": (json.dumps({"profile": GOOD["profile"]}), "wrong_keys"),
    "other key": (reply(score=1), "wrong_keys"),
    "other case": (json.dumps({"Profile": GOOD["profile"], "reasoning": "x"}), "wrong_keys"),
    "number": (reply(profile=3), "wrong_type"),
    "null profile": (reply(profile=None), "wrong_type"),
    "list of text": (reply(profile=[GOOD["profile"]]), "wrong_type"),
    "empty": (reply(profile=""), "no_profile"),
    "blank": (reply(profile=" \n\t "), "no_profile"),
    "invisible": (reply(profile="\u200b\x00"), "no_profile"),
    "none": (reply(profile="None."), "no_profile"),
    "short": (reply(profile="Gamers."), "too_short"),
    "long": (reply(profile="x" * 1601), "too_long"),
    "long reasoning": (reply(reasoning="x" * 1601), "too_long"),
    "surrogate by escape": (reply()[:-2] + '\\ud800"}', "not_text"),
    "surrogate": (reply(profile="x")[:-2] + '\ud800"}', "not_text"),
    "deep": (reply()[:-1] + ', "x": ' + "[" * 40 + "]" * 40 + "}", "too_deep"),
    "very deep": ("[" * 60_000, "too_deep"),
    "huge": (reply(reasoning="x" * 70_000), "too_large"),
}


@pytest.mark.parametrize("name", BAD, ids=lambda name: name.replace(" ", "_"))
def test_a_bad_reply_has_one_code(name):
    text, code = BAD[name]
    with pytest.raises(ReplyError) as refused:
        parse_reply(text, GAME)
    assert refused.value.code == code
    refused.value.detail.encode("utf-8")
    assert len(refused.value.detail) < 400


def test_brackets_and_quotes_inside_strings_are_no_nesting():
    profile = 'Players who like "[[[[" of the Dutch school { and } so on'
    assert parse_reply(reply(profile=profile), GAME).profile.startswith("Players who like")


def test_a_reply_made_to_be_slow_is_read_in_a_moment():
    started = time.monotonic()
    for text in ('"\\' * 32_000, '"' + '\\"' * 30_000, "```" + "\n" * 60_000, "{" + '"a":' * 12_000):
        with pytest.raises(ReplyError):
            parse_reply(text, GAME)
    assert time.monotonic() - started < 2


def test_choices_are_accepted_exactly(tmp_path):
    text = GAME.text.replace("min_chars: 20, max_chars: 1600}\n---", "choices: [builders, explorers]}\n---")
    (tmp_path / "games").mkdir()
    (tmp_path / "games/item.md").write_text(text)
    prompt = load_prompt("games", "item", tmp_path)
    assert parse_reply(reply(profile="builders"), prompt).profile == "builders"
    with pytest.raises(ReplyError, match="not_a_choice"):
        parse_reply(reply(profile="Builders"), prompt)
