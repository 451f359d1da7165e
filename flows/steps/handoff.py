"""A bundle trained elsewhere: handed to whoever takes jobs, watched through two files, taken back from lost workers.

The bundle's folder is all that both sides share. The job writes `events.jsonl` (what `python -m rec_models` says, then
one line that says how it ended) and touches `heartbeat` while it lives; a lock keeps two jobs from training one bundle.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from flows.errors import TrainingFailedError
from flows.handoff_errors import AlreadyTrainingError, LostWorkersError
from flows.steps.training_process import OnEvent, run_rec_models

EVENTS, HEARTBEAT, LOCK = "events.jsonl", "heartbeat", "training.lock"
BEATS_EVERY_S = 2.0
# How much longer than between two beats the first one may be waited for.
STARTS_SLOWLY = 5
HANDED_BACK, FAILED = "handed_back", "failed"

Standing = Literal["waiting", "running", "over"]


class Jobs(Protocol):
    """Where training jobs are taken, such as a work pool."""

    def submit(self, bundle: Path, arguments: Sequence[str]) -> str:
        """Name of a new job that calls `train_bundle` with these."""
        ...

    def standing(self, job: str) -> Standing:
        """Whether the job waits for a worker, is believed to run, or has ended in whatever way."""
        ...

    def cancel(self, job: str) -> None:
        """Nobody waits for the job any longer; it may be unable to hear that."""
        ...


@dataclass(frozen=True)
class HandedOver:
    """Trains as `run_rec_models` does, in a job of somebody else.

    Args:
        lost_after_s: a running job whose heart has not beaten for so long is taken for dead.
        attempts: jobs that may be lost before the run gives up.
    """

    jobs: Jobs
    lost_after_s: float = 60.0
    polls_every_s: float = 1.0
    attempts: int = 3

    def __call__(self, label: str, arguments: Sequence[str], log: Path, on_event: OnEvent) -> None:
        """Follows jobs of `train BUNDLE …` to the end of one; a job after a lost one resumes from its checkpoint.

        Raises:
            TrainingFailedError: the training ended badly, and would again.
            LostWorkersError: `attempts` jobs vanished.
        """
        bundle = Path(arguments[1])
        for _ in range(self.attempts):
            if self._followed(label, bundle, arguments[2:], log, on_event):
                for name in (EVENTS, HEARTBEAT, LOCK):
                    (bundle / name).unlink(missing_ok=True)
                return
        raise LostWorkersError(label, self.attempts, str(bundle))

    def _followed(self, label: str, bundle: Path, arguments: Sequence[str], log: Path, on_event: OnEvent) -> bool:
        """Whether a job came to its end; False where it vanished."""
        events = _Tail(bundle / EVENTS)
        job = self.jobs.submit(bundle, arguments)
        pulse = _Pulse(bundle / HEARTBEAT)
        try:
            while True:
                standing = self.jobs.standing(job)  # asked first: what an ended job wrote is there to be read
                for event in events.new():
                    if event["event"] == HANDED_BACK:
                        return True
                    if event["event"] == FAILED:
                        raise TrainingFailedError(label, event["exit_code"], event["message"], str(log))
                    on_event(event)
                if standing == "over":
                    return False
                silent_s = pulse.silent_s()
                if standing == "running" and silent_s > self.lost_after_s * (1 if pulse.beaten else STARTS_SLOWLY):
                    self.jobs.cancel(job)
                    return False
                time.sleep(self.polls_every_s)
        except BaseException:
            with suppress(Exception):  # what ended the run says more than a job that could not be told
                self.jobs.cancel(job)
            raise


def train_bundle(bundle: Path, arguments: Sequence[str]) -> None:
    """The job's side: trains the bundle in a process of its own, which resumes where an earlier job was cut off.

    Raises:
        AlreadyTrainingError: a job that lives has this bundle.
        TrainingFailedError: as `run_rec_models`; it was written down for whoever waits.
    """
    with _alone(bundle), _beating(bundle / HEARTBEAT), (bundle / EVENTS).open("a", encoding="utf-8") as stream:

        def write(event: Mapping[str, Any]) -> None:
            stream.write(json.dumps(dict(event)) + "\n")
            stream.flush()

        try:
            run_rec_models(bundle.name, ["train", str(bundle), *arguments], bundle / "train.log", write)
        except TrainingFailedError as error:
            write({"event": FAILED, "exit_code": error.exit_code, "message": error.message})
            raise
        write({"event": HANDED_BACK})


class _Tail:
    """Whole lines that were written to a file since this was made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = path.stat().st_size if path.exists() else 0

    def new(self) -> Iterator[dict[str, Any]]:
        if not self._path.exists():
            return
        with self._path.open("rb") as stream:
            stream.seek(self._at)
            text = stream.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            # a job that was killed while it wrote leaves half a line, and the next one goes on behind it
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and isinstance(event.get("event"), str):
                    yield event


class _Pulse:
    """For how long a file has not been touched, by this process's clock alone: two machines need not agree."""

    def __init__(self, path: Path) -> None:
        self._path, self._seen, self._since = path, _beat(path), time.monotonic()
        self.beaten = False

    def silent_s(self) -> float:
        beat = _beat(self._path)
        if beat != self._seen:
            self._seen, self._since, self.beaten = beat, time.monotonic(), True
        return time.monotonic() - self._since


def _beat(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@contextmanager
def _alone(bundle: Path) -> Iterator[None]:
    descriptor = os.open(bundle / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyTrainingError(str(bundle)) from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _beating(path: Path) -> Iterator[None]:
    stop = threading.Event()

    def beat() -> None:
        while True:
            path.touch()
            if stop.wait(BEATS_EVERY_S):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
