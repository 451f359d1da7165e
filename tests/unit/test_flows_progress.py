"""Progress: lines every few seconds, with rate and time left."""

from __future__ import annotations

import pytest

from flows.progress import LoggedProgress, duration, progress_line


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_every_few_seconds_and_one_at_the_end():
    lines: list[str] = []
    clock = Clock()
    progress = LoggedProgress(lines.append, every_s=5, clock=clock)
    for second in range(12):
        clock.now = float(second)
        progress.advance("embed", second, 12)
    progress.advance("embed", 12, 12)
    assert len(lines) == 3
    assert lines[0].startswith("embed: 5/12 (42%) 1.0/s, 7.0 s left")


def test_work_that_is_over_at_once_is_not_announced():
    lines: list[str] = []
    LoggedProgress(lines.append).advance("profile", 3, 3)
    assert lines == []


def test_a_line_without_a_total_says_how_many():
    assert progress_line("train", 30, None, 15.0, "best 0.1") == "train: 30 2.0/s, best 0.1"


@pytest.mark.parametrize(("seconds", "words"), [(0.25, "250 ms"), (12.34, "12.3 s"), (245, "4m05s"), (7620, "2h07m")])
def test_durations_read_like_durations(seconds, words):
    assert duration(seconds) == words
