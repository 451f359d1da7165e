"""The warehouse as its users hold it: a directory of immutable files, one pointer, one lock."""

import json
import os
import re
import shutil
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from warehouse.commits import SnapshotBuilder, united
from warehouse.errors import (
    CorruptFileError,
    LockRequiredError,
    PinnedError,
    TooLittleRoomError,
    UnknownSnapshotError,
    WarehouseRootError,
)
from warehouse.fragments import VerifiedFiles
from warehouse.locking import RunLock
from warehouse.pins import pinned, sweep, unpinned
from warehouse.shards import FOLDER, VectorShards
from warehouse.snapshot import Snapshot, load_manifest
from warehouse.storage import atomic_write, file_name, fsync_directory, install_tree, make_directory

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from warehouse.catalogue import Catalogue
    from warehouse.forget import Tombstones
    from warehouse.ledger import Ledger
    from warehouse.matrices import MatrixPaths, MatrixStore
    from warehouse.matrix_rows import MatrixSpec

_SNAPSHOT_ID = re.compile(r"(\d{8,18})-[0-9a-f]{12}")
_DAY_S = 86_400.0


@dataclass(frozen=True)
class GcSummary:
    """What was collected: how many snapshots and fragments, how many bytes they took.

    Args:
        rotten: names of semantic matrices whose sidecar could not be read, collected although they may be needed: they
            are derived, and the next run that needs one builds it again.
    """

    snapshots: int
    fragments: int
    freed_bytes: int
    rotten: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerifySummary:
    """What was proved: how many files and bytes of one snapshot."""

    snapshot: str
    files: int
    bytes: int


class Warehouse:
    """One warehouse directory. Making the object touches nothing; writing needs `lock`.

    Raises:
        WarehouseRootError: no folder is there and none can be made, as far as looking tells.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = _usable(root)
        self._lock = RunLock(self.root / "LOCK")
        self._verified = VerifiedFiles(self.root)
        self._loaded: dict[str, Snapshot] = {}

    def lock(self, command: str = "run") -> AbstractContextManager[None]:
        """The run lock for the length of the block; `staging/` is swept when it is taken.

        Raises:
            LockHeldError: names the process that holds it and since when.
            WarehouseRootError: the root cannot be made or written.
        """
        return self._lock.held(command, on_acquire=self._sweep)

    def holder(self) -> dict[str, object] | None:
        """Who runs here now, as {"pid", "command", "since"}, or None."""
        return self._lock.holder()

    def inside(self, *names: str) -> Path:
        """A path under the root made of plain names; nothing is created.

        Raises:
            UnsafePathError: a name that could lead elsewhere.
        """
        return self.root.joinpath(*(file_name(name) for name in names))

    def install_directory(self, partial: Path, final: Path) -> None:
        """`partial` becomes `final` in one step, every byte of it on disk first; for models and reports."""
        install_tree(partial, final)

    def current(self) -> Snapshot | None:
        """The published snapshot, None before the first; read once and pass it on."""
        pointer = self.root / "CURRENT"
        try:
            snapshot_id = pointer.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            raise CorruptFileError(str(pointer), f"it does not name a snapshot ({error})") from error
        if not _SNAPSHOT_ID.fullmatch(snapshot_id):
            raise CorruptFileError(str(pointer), f"it does not name a snapshot: {snapshot_id[:60]!r}")
        if not (self.root / "snapshots" / snapshot_id).is_dir():
            raise CorruptFileError(str(pointer), f"it names snapshot {snapshot_id}, which is not there")
        return self.snapshot(snapshot_id)

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """The snapshot of that id, published or not.

        Raises:
            UnknownSnapshotError: names the newest ones.
            CorruptFileError: its manifest changed since it was written.
        """
        if snapshot_id not in self._loaded:
            folder = self.root / "snapshots" / snapshot_id
            if not _SNAPSHOT_ID.fullmatch(snapshot_id) or not folder.is_dir():
                raise UnknownSnapshotError(snapshot_id, self._ids())
            manifest = load_manifest(folder / "manifest.json", snapshot_id)
            self._loaded[snapshot_id] = Snapshot(self.root, manifest, self._verified)
        return self._loaded[snapshot_id]

    def snapshots(self) -> list[Snapshot]:
        """Every snapshot that is there, newest first by counter."""
        return [self.snapshot(snapshot_id) for snapshot_id in self._ids()]

    def find_stage(self, stage: str, key: str) -> Snapshot | None:
        """The newest snapshot that went through this stage with this key, published or not."""
        for snapshot_id in self._ids():
            snapshot = self.snapshot(snapshot_id)
            if snapshot.stages.get(stage, {}).get("key") == key:
                return snapshot
        return None

    def begin(self, parent: Snapshot | None) -> SnapshotBuilder:
        """The next version in the making, with the parent's tables carried over."""
        return SnapshotBuilder(
            self.root,
            parent,
            current=self.current,
            next_counter=self._next_counter,
            require_lock=self._require_lock,
            verified=self._verified,
        )

    def publish(self, snapshot: Snapshot, *, forgetting: bool = False, trust_notes: bool = False) -> Snapshot:
        """The snapshot CURRENT points to afterwards; nothing is published when it does already.

        Every byte is hashed first; of what CURRENT points to already, only files that changed since they were. The
        counter never goes back and no history is lost: an older snapshot, or one made beside a newer CURRENT, is
        committed again with a new counter, and that is what is returned.

        Args:
            forgetting: history that the snapshot left out was left out on purpose.
            trust_notes: pass over files that were hashed in full since they last changed; for going back in a moment
                to what was published before.

        Raises:
            LockRequiredError: the run lock is not held by this process.
            CorruptFileError: a file of it is not what was committed; CURRENT stays.
        """
        self._require_lock("publishing")
        current = self.current()
        if current is not None and current.id == snapshot.id:
            current.verify(trust_notes=True)
            self._write_init(current)
            return current
        snapshot.verify(trust_notes=trust_notes)
        is_older = current is not None and snapshot.counter < current.counter
        if current is not None and (is_older or (not forgetting and _lacks_history(snapshot, current))):
            snapshot = self.begin(snapshot).commit(
                settings_hash=snapshot.manifest["settings_hash"],
                code_version=snapshot.manifest["code_version"],
                ledger_mark=snapshot.manifest["ledger_mark"],
            )
        atomic_write(self.root / "CURRENT", f"{snapshot.id}\n".encode())
        self._write_init(snapshot)
        return snapshot

    def verify(self, snapshot: Snapshot | None = None) -> VerifySummary | None:
        """Hashes every file of a snapshot (CURRENT by default) and trusts no note; None where nothing is published."""
        chosen = snapshot or self.current()
        if chosen is None:
            return None
        files = sum(len(fragments) for fragments in chosen.tables.values())
        return VerifySummary(chosen.id, files, chosen.verify())

    def gc(self, keep: int = 5, min_age_s: float = _DAY_S, needed: "Collection[str]" = ()) -> GcSummary:
        """Removes what no kept snapshot names: kept are CURRENT, the newest `keep`, all younger than `min_age_s`, those
        whose ids are `needed`, and what a reader has pinned. Vectors that a stopped run left behind go too.

        Raises:
            LockRequiredError: the run lock is not held by this process.
            CorruptFileError: a manifest cannot be read, so what it names is unknown; nothing is removed.
        """
        self._require_lock("collecting garbage")
        current = self.current()
        kept: list[Snapshot] = []
        dropped: list[Snapshot] = []
        for place, snapshot in enumerate(self.snapshots()):
            age_s = time.time() - (self.root / "snapshots" / snapshot.id).stat().st_mtime
            is_needed = snapshot.id in needed or (current is not None and snapshot.id == current.id)
            (kept if place < keep or is_needed or age_s < min_age_s else dropped).append(snapshot)
        gone = 0
        for snapshot in dropped:
            with unpinned(self.root, snapshot.id) as free:
                if not free:
                    kept.append(snapshot)
                    continue
                # out of sight first: a half-removed snapshot must not be found
                trash = make_directory(self.root / "staging") / f"gc-{snapshot.id}"
                (self.root / "snapshots" / snapshot.id).rename(trash)
                fsync_directory(self.root / "snapshots")
                shutil.rmtree(trash)
                self._loaded.pop(snapshot.id, None)
                gone += 1
        sweep(self.root, {snapshot.id for snapshot in kept})
        fragments, freed = self._remove_unnamed({f.path for s in kept for table in s.tables.values() for f in table})
        of_matrices, rotten = self._matrices().collect({snapshot.id for snapshot in kept}, min_age_s)
        # shards of a run that was stopped and may never go on, and counted words: texts make them again
        freed += of_matrices + self._remove_folder(FOLDER) + self._remove_folder("words")
        return GcSummary(gone, fragments, freed, rotten)

    def refuse_readers(self) -> None:
        """Raises PinnedError while any process reads any version."""
        for snapshot_id in self._ids():
            with unpinned(self.root, snapshot_id) as free:
                if not free:
                    raise PinnedError(snapshot_id)

    def tombstones(self) -> "Tombstones":
        """The users that were forgotten: what a source still says of them is not read."""
        from warehouse.forget import Tombstones

        return Tombstones(self.root / "forgotten.json")

    def note_export(self, place: Path | str) -> None:
        """Remembers that a file outside the root, or a table, holds rows of this warehouse, where it can."""
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self.root / "exports.log", flags, 0o600)
            with os.fdopen(descriptor, "a", encoding="utf-8") as log:
                log.write(json.dumps(str(place.absolute() if isinstance(place, Path) else place)) + "\n")

    def exports(self) -> list[str]:
        """Files that were written outside the root and are still there, and tables of databases."""
        log = self.root / "exports.log"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        return [path for path in dict.fromkeys(map(json.loads, lines)) if "://" in path or os.path.exists(path)]

    def ledger(self, *, read_only: bool = False) -> "Ledger":
        """The ledger of paid requests, as a context manager; made on first use unless `read_only`.

        Raises:
            LockRequiredError: it is to be written and the run lock is not held by this process.
            CorruptFileError: SQLite's own check fails.
        """
        from warehouse.ledger import Ledger

        if not read_only:
            self._require_lock("writing the ledger")

        return Ledger(self.root / "ledger.sqlite", read_only=read_only)

    def require_room(self, n_bytes: int, what: str) -> None:
        """Nothing, when the disk has so many bytes free for this user.

        Raises:
            TooLittleRoomError: names both numbers and what needs them.
        """
        place = next(place for place in (self.root, *self.root.parents) if place.exists())
        free = shutil.disk_usage(place).free
        if free < n_bytes:
            raise TooLittleRoomError(str(self.root), n_bytes, free, what)

    def catalogue(self, snapshot: Snapshot | None) -> "Catalogue":
        """SQL over one snapshot, pinned with those before it while the block runs; with None, over empty tables."""
        from warehouse.catalogue import Catalogue

        return Catalogue(snapshot, lambda: self._lineage(snapshot), self.root)

    def reading(self, snapshot: Snapshot) -> AbstractContextManager[None]:
        """The snapshot is not collected before the block ends."""
        return pinned(self.root, [snapshot.id])

    def matrix(self, snapshot: Snapshot, spec: "MatrixSpec") -> "MatrixPaths":
        """One semantic matrix of a snapshot, built when it is not there; processes that ask at once build it once."""
        return self._matrices().get(snapshot, spec)

    def verify_matrices(self) -> "Iterator[tuple[str, int]]":
        """(name, bytes) of every semantic matrix, each read in full.

        Raises:
            CorruptFileError: names the first file that is not what was written.
        """
        return self._matrices().verify()

    def _matrices(self) -> "MatrixStore":
        from warehouse.matrices import MatrixStore

        return MatrixStore(self.root / "matrices", self._verified)

    def vector_shards(self, encoder_key: str) -> VectorShards:
        """The shards of an embedding run of that encoder, as far as it came before it was stopped.

        Raises:
            LockRequiredError: the run lock is not held by this process.
        """
        self._require_lock("keeping vectors")
        return VectorShards(self.root, encoder_key)

    def _sweep(self) -> None:
        # whatever is staged was left by a process that died: the lock says nobody else writes
        staging = self.root / "staging"
        if staging.is_dir():
            for leftover in staging.iterdir():
                shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()

    def _require_lock(self, action: str) -> None:
        if not self._lock.held_by_this_process:
            raise LockRequiredError(str(self.root), action)

    def _ids(self) -> list[str]:
        folder = self.root / "snapshots"
        if not folder.is_dir():
            return []
        counted = [
            (int(match.group(1)), entry.name)
            for entry in folder.iterdir()
            if (match := _SNAPSHOT_ID.fullmatch(entry.name))
        ]
        return [name for _, name in sorted(counted, reverse=True)]

    def _next_counter(self) -> int:
        ids = self._ids()
        return int(ids[0].split("-")[0]) + 1 if ids else 1

    def _lineage(self, snapshot: Snapshot | None) -> list[Snapshot]:
        # the snapshot and those it descends from, as far back as they were kept, newest first
        there = set(self._ids())
        chain = []
        while snapshot is not None:
            chain.append(snapshot)
            snapshot = self.snapshot(snapshot.parent) if snapshot.parent in there else None
        return chain

    def _remove_unnamed(self, named: set[Path]) -> tuple[int, int]:
        count, freed = 0, 0
        for path in (self.root / "tables").glob("*/*.parquet"):
            if path not in named:
                freed += path.stat().st_size
                path.unlink()
                count += 1
        return count, freed

    def _remove_folder(self, name: str) -> int:
        files = [path for path in (self.root / name).rglob("*") if path.is_file()]
        freed = sum(path.stat().st_size for path in files)
        shutil.rmtree(self.root / name, ignore_errors=True)
        return freed

    def _write_init(self, snapshot: Snapshot) -> None:
        from warehouse.catalogue import init_sql

        text = init_sql(snapshot, self._lineage(snapshot)).encode()
        path = self.root / "init.sql"
        if not path.exists() or path.read_bytes() != text:
            atomic_write(path, text)


def _usable(root: Path | str) -> Path:
    # a folder, or a place where one can be made
    try:
        chosen = Path(root).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise WarehouseRootError(str(root), str(error)) from error
    existing = next(place for place in (chosen, *chosen.parents) if os.path.exists(place))
    if not existing.is_dir():
        raise WarehouseRootError(str(chosen), f"{existing} is not a folder")
    if existing != chosen and not os.access(existing, os.W_OK | os.X_OK):
        raise WarehouseRootError(str(chosen), f"{existing} may not be written by this user")
    return chosen


def _lacks_history(snapshot: Snapshot, current: Snapshot) -> bool:
    merged = united(snapshot.tables, current)
    return any(len(merged[name]) != len(snapshot.tables.get(name, [])) for name in merged)
