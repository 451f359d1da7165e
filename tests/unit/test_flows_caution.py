"""What is printed: no character that a screen obeys, no secret that somebody typed."""

from __future__ import annotations

import pytest

from flows.caution import clean, masked, names_a_secret, without_userinfo
from flows.steps.training_process import _environment


@pytest.mark.parametrize("character", ["\x1b", "\x07", "\r", "\x9b", "\u202e", "\u2066", "\ud800", "\ufeff"])
def test_a_character_that_a_screen_obeys_becomes_a_mark(character):
    assert clean(f"a{character}b") == "a\ufffdb"


def test_tabs_line_feeds_and_letters_of_any_script_pass():
    assert clean("a\tb\nÉ漢字") == "a\tb\nÉ漢字"


@pytest.mark.parametrize("name", ["api_key", "apikey", "API_KEY", "hub_token", "password", "client_secret"])
def test_names_of_secrets_are_known(name):
    assert names_a_secret(name)


@pytest.mark.parametrize("name", ["api_key_env", "max_tokens", "tokens", "secretary", "key"])
def test_other_names_are_left_alone(name):
    assert not names_a_secret(name)


@pytest.mark.parametrize(
    "words",
    [
        ["--set", "profiles.engine.api_key=sk-HIDDEN"],
        ["--set=profiles.engine.api_key=sk-HIDDEN"],
        ["--set", 'profiles.engine={name="openai",token="sk-HIDDEN"}'],
        ["--set", "profiles.engine.base_url=http://user:HIDDEN@evil.example/v1"],
        ["--config", "http://user:HIDDEN@evil.example/v1"],
    ],
    ids=str,
)
def test_a_secret_in_a_command_is_not_printed_again(words):
    assert "HIDDEN" not in " ".join(masked(["run", *words]))


def test_other_words_of_a_command_stay_as_they_are():
    words = ["run", "--set", "split.seed=1", "--set=profiles.engine.api_key_env=MY_KEY", "--json"]
    assert masked(words) == words
    assert masked(words, everything=True)[2] == "split.seed=…"


def test_an_address_keeps_its_host():
    assert without_userinfo("see http://u:p@host/v1 and a@b") == "see http://…@host/v1 and a@b"


def test_a_training_process_is_told_no_key_whatever_its_name(monkeypatch):
    for name in ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "OPENAI_KEY", "ANYTHING_ELSE", "HF_TOKEN"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    told = _environment()
    assert "canary" not in told.values() and told["OMP_NUM_THREADS"] == "1" and "PATH" in told
