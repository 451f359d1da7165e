"""Where a flow works: the warehouse, who hears about progress, and what this run has cost so far."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flows.errors import InterruptedRunError
from flows.progress import Progress, SilentProgress
from flows.settings import EngineSettings, Settings

if TYPE_CHECKING:
    from flows.steps.training_process import Trainer
    from warehouse import Snapshot, SnapshotBuilder, Warehouse

PROFILE = "profile"
STAGES = ("ingest", "profile", "embed", "augment", "train", "evaluate", "recommend", "promote", "report")


class AskedRow(NamedTuple):
    """A row in quarantine that a language model was asked for.

    Attributes:
        asked: PROFILE, or the aspect.
    """

    asked: str
    kind: str
    entity_id: str


@dataclass
class StageNote:
    """What one stage did in this run."""

    name: str
    computed: bool
    seconds: float
    summary: str


@dataclass
class VectorTally:
    """What this run asked of a server of embeddings, and what it paid."""

    calls: int = 0
    replies: int = 0
    cached: int = 0
    failed: int = 0
    tokens_in: int = 0
    usd: float | None = 0.0


@dataclass
class Tally:
    """What this run did, counted as it happens.

    Attributes:
        replies: new ones that are kept, whatever they say; `calls` also counts those that brought none.
        reasked: second questions that were sent.
        quarantined: profiles that this run put aside.
        training_seconds: wall time of the models it trained; the stage that registers them begins after them.
        vectors: what was asked of a server of embeddings, which is no part of the counts above.
    """

    calls: int = 0
    replies: int = 0
    cached: int = 0
    failed: int = 0
    reasked: int = 0
    quarantined: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float | None = 0.0
    embedded: int = 0
    embeddings_reused: int = 0
    trained: int = 0
    training_seconds: float = 0.0
    committed: int = 0
    stages: list[StageNote] = field(default_factory=list)
    vectors: VectorTally = field(default_factory=VectorTally)

    @property
    def has_paid(self) -> bool:
        """Whether any call was made, so that the ledger holds what no backup holds yet."""
        return self.calls + self.vectors.calls > 0

    def totals(self) -> dict[str, int | float | None]:
        """Calls, tokens and USD of profiles and vectors together; one unknown price makes the sum unknown."""
        both = (self, self.vectors)
        sums = {name: sum(getattr(part, name) for part in both) for name in ("calls", "cached", "failed", "tokens_in")}
        usd = None if self.usd is None or self.vectors.usd is None else self.usd + self.vectors.usd
        return {**sums, "tokens_out": self.tokens_out, "usd": usd}


@dataclass
class Workspace:
    """One run's place of work. Writing needs the lock, which `opened` holds.

    Args:
        again: rows in quarantine that are asked for another reply.
        accepting: rows in quarantine whose best text is taken as it is.
        first: the run's model is promoted as if no model served.
        trainer: trains bundles somewhere else than in a process of this machine.
    """

    warehouse: Warehouse
    settings_hash: str
    command: str
    progress: Progress = field(default_factory=SilentProgress)
    device: str = "auto"
    threads: int | None = None
    retry: bool = False
    repay: bool = False
    first: bool = False
    trainer: Trainer | None = None
    again: frozenset[AskedRow] = frozenset()
    accepting: frozenset[AskedRow] = frozenset()
    run_id: str = field(default_factory=lambda: new_run_id())
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=time.monotonic)
    tally: Tally = field(default_factory=Tally)
    guarded: set[str] = field(default_factory=set)
    published_before: str | None = None
    engine: EngineSettings = field(default_factory=EngineSettings)

    def decides(self, *asked: str) -> bool:
        """Whether this run was told what to do about rows in quarantine of these questions."""
        return any(row.asked in asked for row in self.again | self.accepting)

    def found(self, stage: str, key: str) -> str | None:
        """Id of the newest snapshot in which the stage was done under this very key; counted as kept."""
        snapshot = self.warehouse.find_stage(stage, key)
        if snapshot is None:
            return None
        self.tally.stages.append(StageNote(stage, False, 0.0, describe(snapshot.stages[stage]["summary"])))
        return snapshot.id

    def commit(self, builder: SnapshotBuilder, ledger_mark: int | None = None) -> Snapshot:
        """The builder's snapshot, durable but not yet published."""
        return builder.commit(settings_hash=self.settings_hash, code_version=code_version(), ledger_mark=ledger_mark)

    def done(self, stage: str, snapshot: Snapshot, started: float) -> str:
        """Id of the snapshot a stage has just committed; counted as computed."""
        self.tally.committed += 1
        note = StageNote(stage, True, time.monotonic() - started, describe(snapshot.stages[stage]["summary"]))
        self.tally.stages.append(note)
        self.progress.note(f"{stage}: {note.summary}")
        return snapshot.id


@contextmanager
def opened(
    settings: Settings,
    command: str,
    progress: Progress,
    threads: int | None = None,
    retry: bool = False,
    repay: bool = False,
    first: bool = False,
) -> Iterator[Workspace]:
    """The workspace of a command that writes, with the warehouse's lock held until the block ends.

    Args:
        threads: compute threads of training; the settings' own, or as many as there are, where nothing is said.
        retry: profiles without a reply are asked for again, though nothing changed.
        repay: requests whose paid results a server has lost may be paid again.
        first: the run's model is promoted as if no model served.

    Raises:
        LockHeldError: another run holds the lock; exit code 5.
        WarehouseRootError: the warehouse's place is a file, or no folder can be made there; exit code 2.
    """
    from warehouse import Warehouse

    warehouse = Warehouse(settings.warehouse.root)
    device, threads = str(settings.training.get("device", "auto")), threads or settings.training.get("threads")
    before = os.umask(0o077)  # what a run writes is readable by its owner alone
    try:
        with warehouse.lock(command=command):
            current = warehouse.current()
            workspace = Workspace(warehouse, settings.hash(), command, progress, device, threads, retry, repay, first)
            workspace.published_before = current.id if current else None
            workspace.engine = settings.engine
            try:
                yield workspace
            except InterruptedRunError:
                raise  # whoever stops a run wants it to end: the next one backs up
            except Exception as error:
                _back_up(workspace, error)
                raise
    finally:
        os.umask(before)


def _back_up(workspace: Workspace, error: Exception) -> None:
    """A run that paid and did not come to its end has paid replies that no backup holds yet.

    After a failed write nobody knows what the disk holds: then the ledger is left alone, and opening it next time
    shows whether it is whole.
    """
    from warehouse import CorruptFileError, DiskFaultError, DiskFullError, LedgerClosedError, LedgerWriteError

    doubtful = (CorruptFileError, DiskFaultError, DiskFullError, LedgerClosedError, LedgerWriteError)
    if not workspace.tally.has_paid or isinstance(error, doubtful):
        return
    # the error that ended the run says more than one of its backup, which is a full disk again
    with suppress(Exception), workspace.warehouse.ledger() as ledger:
        ledger.backup()


def describe(summary: dict[str, object]) -> str:
    """The plain numbers and words of a stage's summary in one line."""
    shown = {
        name: value for name, value in summary.items() if isinstance(value, int | float | str) and not _is_hash(value)
    }
    counted = {name: f"{value:,}" if _is_count(value) else str(value) for name, value in shown.items()}
    return ", ".join(f"{name.removeprefix('n_').replace('_', ' ')} {value}" for name, value in counted.items())


def new_run_id() -> str:
    """A run's name: when it began, and enough randomness to be alone with it."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


@lru_cache(maxsize=1)
def code_version() -> str:
    """The installed version, with the git commit where the code runs from a checkout."""
    try:
        number = version("semalign")
    except PackageNotFoundError:
        number = "unknown"
    checkout = Path(__file__).resolve().parent.parent
    if not (checkout / ".git").exists():
        return number
    git = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    answer = subprocess.run(git, capture_output=True, text=True, check=False, env={"PATH": os.environ.get("PATH", "")})
    return f"{number}+g{answer.stdout.strip()}" if answer.returncode == 0 and answer.stdout.strip() else number


def versions() -> dict[str, str]:
    """Versions of what computes a run's results, without importing any of it."""
    names = ("torch", "sentence-transformers", "duckdb", "pyarrow", "numpy", "scipy", "openai", "prefect", "semalign")
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
