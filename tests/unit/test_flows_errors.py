"""Every error: a sentence with its facts, an exit code, and a way through a pickle."""

from __future__ import annotations

import inspect
import pickle
import sys
from collections.abc import Sequence

import pytest

from flows import errors
from flows.steps.training_process import run_rec_models

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.FlowError) and kind is not errors.FlowError
]
FACTS = {str: "fact", int: 2, float: 0.5, object: "fact", Sequence[str]: ("one", "two")}


def example(kind: type[errors.FlowError]) -> errors.FlowError:
    parameters = list(inspect.signature(kind).parameters.values())
    return kind(*(FACTS[parameter.annotation] for parameter in parameters))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_sentence_names_its_facts_and_survives_a_pickle(kind):
    error = example(kind)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes, of this very line
    assert str(again) == str(error) and len(str(error)) > 20
    assert error.exit_code in {1, 2, 4, 5, 6}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_it_is_also_the_builtin_a_caller_would_catch(kind):
    builtin = [
        base
        for base in kind.__mro__
        if base.__module__ == "builtins" and base not in (Exception, BaseException, object)
    ]
    assert builtin


def test_a_training_process_hands_its_exit_code_on():
    assert errors.TrainingFailedError("dmrec", 4, "nan", "log").exit_code == 4
    assert errors.TrainingFailedError("dmrec", -9, "killed", "log").exit_code == 1


def test_a_training_process_that_was_killed_says_so_and_not_what_an_earlier_one_said_last(monkeypatch, tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nkill -9 $$\n", encoding="utf-8")
    (tmp_path / "python").chmod(0o700)
    (tmp_path / "log").write_text("a warning of yesterday\n", encoding="utf-8")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(errors.TrainingFailedError, match=r"killed by signal 9 .*memory does; run it again") as caught:
        run_rec_models("dmrec", ["train", "bundle"], tmp_path / "log", lambda event: None)
    assert "yesterday" not in str(caught.value) and caught.value.exit_code == 1
