"""What a run tells while it works: a live line on a terminal, a log line every few seconds without one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

LOG_EVERY_S = 5.0


class Progress(Protocol):
    """Where steps report how far they are."""

    def advance(self, label: str, done: float, total: float | None, detail: str = "") -> None:
        """`done` of `total` units of the work called `label` are finished; total None where nobody knows."""
        ...

    def note(self, message: str) -> None:
        """One line worth keeping."""
        ...

    def close(self) -> None:
        """Nothing more will be reported."""
        ...


class SilentProgress:
    """Reports nothing."""

    def advance(self, label: str, done: float, total: float | None, detail: str = "") -> None:
        return

    def note(self, message: str) -> None:
        return

    def close(self) -> None:
        return


class LoggedProgress:
    """One line every few seconds, with rate and time left, to whatever writes lines."""

    def __init__(
        self, write: Callable[[str], None], every_s: float = LOG_EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write, self._every_s, self._clock = write, every_s, clock
        self._started: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def advance(self, label: str, done: float, total: float | None, detail: str = "") -> None:
        now = self._clock()
        finished = total is not None and done >= total
        if finished and label not in self._started:
            return  # done within one step, or said before
        started = self._started.setdefault(label, now)
        if not finished and now - self._last.setdefault(label, started) < self._every_s:
            return
        self._last[label] = now
        if finished:
            del self._started[label], self._last[label]
        self._write(progress_line(label, done, total, now - started, detail))

    def note(self, message: str) -> None:
        self._write(message)

    def close(self) -> None:
        return


class TerminalProgress:
    """A live bar for each piece of work, with rate and time left."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(file=stream, soft_wrap=True)
        columns = [
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[detail]}"),
        ]
        self._bars = Progress(*columns, console=self._console, transient=False)
        self._tasks: dict[str, Any] = {}
        self._started: dict[str, float] = {}

    def advance(self, label: str, done: float, total: float | None, detail: str = "") -> None:
        if label not in self._tasks:
            self._bars.start()
            self._tasks[label] = self._bars.add_task(label, total=total, figures="", detail="")
            self._started[label] = time.monotonic()
        elapsed_s = time.monotonic() - self._started[label]
        figures = f"{done:,.0f}" + (f"/{total:,.0f}" if total else "")
        if elapsed_s > 0.1:  # before that a rate says nothing
            figures += f" {done / elapsed_s:,.1f}/s"
        self._bars.update(self._tasks[label], completed=done, total=total, figures=figures, detail=detail)

    def note(self, message: str) -> None:
        self._console.print(message, markup=False, highlight=False)

    def close(self) -> None:
        self._bars.stop()


def open_progress(stream: TextIO | None = None) -> Progress:
    """Live on a terminal, logged elsewhere; standard error unless told."""
    chosen = sys.stderr if stream is None else stream
    if chosen.isatty():
        return TerminalProgress(chosen)
    return LoggedProgress(lambda text: print(f"{time.strftime('%H:%M:%S')} {text}", file=chosen, flush=True))


def progress_line(label: str, done: float, total: float | None, elapsed_s: float, detail: str = "") -> str:
    """`embed: 512/5,237 (10 %) 64.0/s, 1m14s left, detail`."""
    rate = done / elapsed_s if elapsed_s > 0 else 0.0
    figures = f"{done:,.0f}"
    if total:
        figures += f"/{total:,.0f} ({done / total:.0%})"
    parts = [f"{figures} {rate:,.1f}/s"] if rate else [figures]
    if total and rate and done < total:
        parts.append(f"{duration((total - done) / rate)} left")
    if detail:
        parts.append(detail)
    return f"{label}: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """`850 ms`, `12.3 s`, `4m05s`, `2h07m`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"
