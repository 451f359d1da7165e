"""The table of races: what replaces what, and what a reader is told."""

from __future__ import annotations

import json

from benchmarks.__main__ import documents, kept, line
from benchmarks.races import RACES, Row

SEEN = {
    "race": "topk",
    "command": "topk --users 9",
    **Row("lists", 1.5, 1.4, 1.6, 2.0, 1.0, 1.5, "s", "peak 1 GB")._asdict(),
}
WITHOUT = {"race": "topk", "command": "topk --users 9", "not_run": "needs implicit"}


def test_a_race_replaces_its_own_rows_and_one_that_was_not_run_replaces_none(tmp_path):
    path = tmp_path / "results" / "machine.json"
    assert kept(path, [WITHOUT], "topk") == [WITHOUT]
    assert kept(path, [SEEN], "topk") == [SEEN]
    assert kept(path, [WITHOUT], "topk") == [SEEN]
    ease = {"race": "ease", "command": "ease", "not_run": "needs recbole, split"}
    assert kept(path, [ease], "ease") == [ease, SEEN]
    assert json.loads(path.read_text()) == [ease, SEEN]
    large = SEEN | {"command": "topk --users 99"}
    assert kept(path, [WITHOUT, large], "topk") == [ease, SEEN, large]  # each command of a race stands for itself
    assert kept(path, [large], "topk") == [ease, large]  # and goes when the race has it no longer


def test_a_reader_is_told_what_was_raced_and_whether_the_goal_is_met():
    assert line(SEEN) == "topk           1.50x (1.40-1.60), goal 2 MISSED: lists (1 and 1.5 s; peak 1 GB)"
    assert "goal 1.2 met" in line(SEEN | {"goal": 1.2})
    assert "goal" not in line(SEEN | {"goal": None})
    assert line(WITHOUT) == "topk           not run: needs implicit"


def test_output_is_one_document_or_one_a_line_between_other_words():
    assert documents('{"a":\n 1}') == [{"a": 1}]
    assert documents('warning\n{"a": 1}\n{"a": 2}\n') == [{"a": 1}, {"a": 2}]


def test_two_seeds_against_recbole_are_one_row_with_their_spread():
    def side(name, seed, epoch_s, recall):
        found = {"epoch_s": epoch_s, "recall@20": recall, "epochs": 3 + seed, "size": [5, 7000]}
        return {"side": name, "seed": seed} | found

    found = [side("ours", 0, 1.0, 0.30), side("theirs", 0, 4.0, 0.20), side("ours", 1, 1.0, 0.32)]
    (row,) = RACES["lightgcn"].rows([*found, side("theirs", 1, 6.0, 0.22)])
    assert (row.ratio, row.low, row.high, row.goal) == (5.0, 4.0, 6.0, 3.0)
    assert row.what == "LightGCN, an epoch, 5 users × 7,000 items, against RecBole"
    assert row.note == "test recall@20 0.3100 against 0.2100, 2 seeds, 4 and 4 epochs"
