"""Tables and last words: nothing cut off, nothing that a terminal would obey."""

from __future__ import annotations

import json

from flows.caution import clean
from flows.cli_output import cell, emit_json, emit_table, last_word, metric_columns, p_words


def test_numbers_are_never_cut_off_however_narrow_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    emit_table("t", ("model", *"abcdefgh"), [("a-model-with-a-long-name", *(0.12345 + n for n in range(8)))])
    out = capsys.readouterr().out
    assert all(f"{0.12345 + n:.4f}" in out for n in range(8)) and "…" not in out


def test_long_texts_are_folded_not_lost(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    emit_table("t", ("id", "text"), [(1, "word " * 30)])
    assert capsys.readouterr().out.count("word") == 30


def test_control_characters_of_strangers_do_not_reach_the_terminal(capsys):
    assert clean("a\x1b[31mred\x07") == "a�[31mred�"
    emit_table("t\x1b[31m", ("id\x1b[31m",), [("a\x1b[31m\u202e",)], caption="c\x1b[31m")
    last_word("b\x1b[31m")
    captured = capsys.readouterr()
    assert "\x1b[31m" not in captured.out + captured.err and "\u202e" not in captured.out


def test_the_last_word_is_one_line_with_a_command_to_copy(capsys):
    last_word("done\nwell", ["sql", "SELECT 1"])
    assert capsys.readouterr().err == "semalign: done well → semalign sql 'SELECT 1'\n"


def test_a_document_is_one_json_value(capsys):
    emit_json({"a": [1, "é"]})
    assert json.loads(capsys.readouterr().out) == {"a": [1, "é"]}


def test_values_read_like_values():
    assert [cell(value) for value in (None, 1234, 0.123456, 12345.6, True, "x")] == [
        "–",
        "1,234",
        "0.1235",
        "12,346",
        "True",
        "x",
    ]
    assert (p_words(0.01234), p_words(1e-9)) == ("0.0123", "<1e-4")


def test_recall_comes_first_then_ndcg():
    metrics = {"m": {"coverage@20": 1.0, "ndcg@10": 1.0, "recall@20": 1.0}}
    assert metric_columns(metrics) == ["recall@20", "ndcg@10", "coverage@20"]


def test_uncertain_calls_are_told_with_the_most_they_can_have_cost():
    from flows.cli_inspect import uncertain_words

    doubt = {"uncertain": 3, "uncertain_usd": 0.0125, "uncertain_unpriced": 0}
    assert uncertain_words(doubt) == "3 uncertain attempts (at most 0.0125 USD)"
    assert uncertain_words(doubt | {"uncertain_unpriced": 2}).endswith("0.0125 USD and 2 without a known price)")
