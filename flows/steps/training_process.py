"""rec_models as a process of its own: its JSON lines in, its exit code out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.errors import TrainingFailedError
from flows.workspace import Workspace

STOP_WITHIN_S = 10.0
# All that a training process is told of the environment: where programs, libraries and devices are, and how many
# threads. Keys go by too many names to be left out by name.
_TOLD = frozenset({"PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TMP", "TEMP", "VIRTUAL_ENV"})
_TOLD_PREFIXES = (
    *("LC_", "LD_", "DYLD_", "PYTHON", "XDG_", "OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "MALLOC_"),
    *("CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "NCCL_", "TORCH", "PYTORCH_", "TRITON_"),
)

# Beneath the matrices of the warehouse, so that whatever clears those clears what was made of them.
DERIVED = ("matrices", "derived")

OnEvent = Callable[[Mapping[str, Any]], None]
# Takes what `run_rec_models` takes, and returns when the model is trained.
Trainer = Callable[[str, Sequence[str], Path, OnEvent], None]


def place_of_work(workspace: Workspace) -> list[str]:
    """Arguments that say where a process computes, with how many threads, and where it keeps graphs for the next."""
    threads = ["--threads", str(workspace.threads)] if workspace.threads else []
    return ["--device", workspace.device, *threads, "--cache", str(workspace.warehouse.inside(*DERIVED))]


def together(workspace: Workspace) -> list[str]:
    """Arguments that say how many processes train one model."""
    return ["--processes", str(workspace.engine.processes)] if workspace.engine.processes > 1 else []


def run_rec_models(label: str, arguments: Sequence[str], log: Path, on_event: OnEvent) -> None:
    """Runs `python -m rec_models …` to its end; events are handed over as they come, the rest goes to the log.

    Raises:
        TrainingFailedError: a non-zero end, with the process's own sentence and exit code.
    """
    command = [sys.executable, "-m", "rec_models", *arguments]
    failure: dict[str, Any] = {}
    with log.open("a", encoding="utf-8") as sink:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=sink, text=True, env=_environment(), umask=0o077, encoding="utf-8"
        )
        try:
            for line in process.stdout or ():
                event = _event(line)
                if event is None:
                    sink.write(line)
                elif event["event"] == "error":
                    failure = dict(event)
                else:
                    on_event(event)
            code = process.wait()
        except BaseException:
            _stop(process)
            raise
    if code:
        message = failure.get("message") or _killed(code) or _last_line(log) or f"exit code {code}"
        raise TrainingFailedError(label, int(failure.get("exit_code", code)), message, str(log), arguments[0])


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in _TOLD or name.startswith(_TOLD_PREFIXES)}


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _killed(code: int) -> str:
    """What a signal did, which the process had no time to say; its log may end with a line of an earlier one."""
    if code >= 0:
        return ""
    cause = ", which is what a lack of memory does" if -code == signal.SIGKILL else ""
    return f"killed by signal {-code} ({signal.strsignal(-code)}){cause}; run it again: what was saved is kept"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
