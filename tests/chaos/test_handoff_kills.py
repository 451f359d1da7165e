"""T-T3 across workers: a bundle handed to a job whose worker is lost ends with the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from servers.bundles import BASE, EVALUATION, IDS, drawn_parts
from servers.training import in_this_process

import flows.steps.handoff
from flows.errors import TrainingFailedError
from flows.handoff_errors import AlreadyTrainingError, LostWorkersError
from flows.steps.handoff import EVENTS, HandedOver, train_bundle
from rec_models import Bundle, write_bundle
from rec_models.training import train

# saves after every epoch and takes its time, so that a kill strikes between two of them
SLOW = """
import sys, time
from pathlib import Path
import rec_models.training as training
from rec_models.__main__ import main
whole, epoch = training.train, training._Run._epoch
training.train = lambda bundle, emit, **how: whole(bundle, emit, saves_every_s=0, **how)
def slow(self, *args):
    time.sleep(0.1)
    return epoch(self, *args)
training._Run._epoch = slow
code = main(sys.argv[1:])
print([name for name in ("prefect", "duckdb", "openai", "pyarrow", "flows", "warehouse") if name in sys.modules])
sys.exit(code)
"""
JOB = """
import sys
from pathlib import Path
import flows.steps.training_process as training_process
import flows.steps.handoff as handoff
handoff.BEATS_EVERY_S = 0.2
real = training_process.subprocess.Popen
def slow(command, **options):
    return real([command[0], "-c", {slow!r}, *command[3:]], **options)
training_process.subprocess.Popen = slow
handoff.train_bundle(Path(sys.argv[1]), sys.argv[2:])
"""


class Processes:
    """Jobs that are processes of this machine; some of them are killed, with all they started, after so many epochs."""

    def __init__(self, kill_after: tuple[int, ...] = ()) -> None:
        self.kill_after, self.started, self.cancelled = list(kill_after), [], []

    def submit(self, bundle, arguments):
        code = JOB.format(slow=SLOW)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.started.append(
            subprocess.Popen(
                [sys.executable, "-c", code, str(bundle), *arguments], start_new_session=True, env=environment
            )
        )
        self.bundle = bundle
        return str(len(self.started) - 1)

    def standing(self, job):
        process = self.started[int(job)]
        events = self.bundle / EVENTS
        n_epochs = events.read_text(encoding="utf-8").count('"event": "epoch"') if events.exists() else 0
        if self.kill_after and n_epochs >= self.kill_after[0]:
            self.kill_after.pop(0)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return "running"  # as a server goes on believing
        return "running" if process.poll() is None or process.returncode < 0 else "over"

    def cancel(self, job):
        self.cancelled.append(job)

    def end(self):
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def bundle_at(folder: Path, model: dict | None = None, epochs: int = 12) -> Path:
    parts = drawn_parts(np.random.default_rng(0))
    training = {"epochs": epochs, "batch_size": 16, "evaluate_every": 1, "patience": 100}
    settings = {"model": model or BASE, "training": training, "evaluation": EVALUATION, "seed": 3}
    write_bundle(folder, parts=parts, semantic={}, about={}, **IDS, **settings)
    return folder


def weights(folder: Path) -> str:
    return json.loads((folder / "checkpoint" / "sha256.json").read_text(encoding="utf-8"))["model.safetensors"]


def test_T_T3_a_lost_worker_is_noticed_and_the_next_one_resumes_bit_for_bit(tmp_path):
    whole, cut = bundle_at(tmp_path / "whole"), bundle_at(tmp_path / "cut")
    torch.set_num_threads(1)
    train(Bundle.open(whole), lambda event: None, device="cpu")
    jobs, events = Processes(kill_after=(4,)), []
    trainer = HandedOver(jobs, lost_after_s=3, polls_every_s=0.02)
    try:
        arguments = ["train", str(cut), "--device", "cpu", "--threads", "1"]
        trainer("cut", arguments, cut / "train.log", events.append)
    finally:
        jobs.end()
    names = [event["event"] for event in events]
    assert len(jobs.started) == 2 and jobs.cancelled == ["0"] and "resume" in names and names[-1] == "done"
    assert weights(cut) == weights(whole)
    assert "[]" in (cut / "train.log").read_text(encoding="utf-8").splitlines()  # what training had imported
    assert not (cut / EVENTS).exists()


class Scripted:
    """Jobs that do what a test says, here and now."""

    def __init__(self, *acts):
        self.acts, self.n = acts, 0

    def submit(self, bundle, arguments):
        act = self.acts[min(self.n, len(self.acts) - 1)]
        self.n += 1
        act(bundle, arguments)
        return "job"

    def standing(self, job):
        return "over"

    def cancel(self, job):
        pass


def test_a_training_that_fails_fails_for_whoever_waits_and_is_not_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(flows.steps.handoff, "run_rec_models", in_this_process)
    bundle = bundle_at(tmp_path / "b", model=BASE | {"typo": 1})

    def act(folder, arguments):
        with pytest.raises(TrainingFailedError):
            train_bundle(folder, arguments)

    jobs = Scripted(act)
    with pytest.raises(TrainingFailedError, match="unknown option `typo`") as caught:
        HandedOver(jobs, polls_every_s=0)("m", ["train", str(bundle)], bundle / "train.log", lambda event: None)
    assert caught.value.exit_code == 2 and jobs.n == 1


def test_jobs_that_vanish_are_counted_and_half_a_line_is_passed_over(tmp_path):
    (tmp_path / "b").mkdir()

    def vanish(folder, arguments):
        with (folder / EVENTS).open("a", encoding="utf-8") as stream:
            stream.write('{"event": "epoch", "epoch": 0}\n{"event": "epo')

    jobs, events = Scripted(vanish), []
    with pytest.raises(LostWorkersError, match="3 jobs ended without a word"):
        HandedOver(jobs, polls_every_s=0)("m", ["train", str(tmp_path / "b")], tmp_path / "log", events.append)
    assert jobs.n == 3 and [event["event"] for event in events] == ["epoch"] * 3


def test_one_bundle_is_trained_by_one_job_at_a_time(tmp_path):
    bundle = bundle_at(tmp_path / "b")
    jobs = Processes()
    job = jobs.submit(bundle, ["--device", "cpu"])
    try:
        deadline = time.monotonic() + 60
        while not (bundle / EVENTS).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(AlreadyTrainingError):
            train_bundle(bundle, [])
    finally:
        jobs.end()
    assert job == "0"
