"""Training without a process of its own, for runs in which the processes are not what is looked at."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import pytest

import flows.steps.clusters
import flows.steps.duel
import flows.steps.recommend
import flows.steps.reproduce
import flows.steps.train
from flows.errors import TrainingFailedError


def train_here(patch: pytest.MonkeyPatch) -> None:
    """Every step that starts `python -m rec_models …` calls it in this process from now on."""
    for step in (
        flows.steps.clusters,
        flows.steps.duel,
        flows.steps.recommend,
        flows.steps.reproduce,
        flows.steps.train,
    ):
        patch.setattr(step, "run_rec_models", in_this_process)


def in_this_process(label: str, arguments: Any, log: Any, on_event: Any) -> None:
    """`python -m rec_models …` without a new interpreter."""
    from rec_models.__main__ import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(list(arguments))
    events = [json.loads(line) for line in printed.getvalue().splitlines()]
    if code:
        raise TrainingFailedError(label, code, events[-1]["message"], str(log), arguments[0])
    for event in events:
        on_event(event)
