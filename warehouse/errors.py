"""Everything the warehouse refuses, each as one sentence: what failed, where, got, expected, cure."""

from collections.abc import Sequence


class WarehouseError(Exception):
    """Root of the package's errors; `args` are the facts, `str()` is the sentence.

    `exit_code` is what a command ends with: 2 the user's input, 4 resumable stop, 5 lock, 6 untrusted bytes, 1 a bug.
    """

    exit_code: int = 1

    def __init__(self, *facts: object) -> None:
        # OSError subclasses would read errno out of the arguments: the facts are set here, once, so that all pickle
        self.args = facts


def listed(names: Sequence[str], limit: int = 20) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(str(name) for name in list(names)[:limit])
    more = len(names) - limit
    return (shown or "none") + (f" and {more} more" if more > 0 else "")


class LockHeldError(WarehouseError, BlockingIOError):
    """Another run holds the warehouse."""

    exit_code = 5

    def __init__(self, path: str, pid: int | None, command: str, since: str) -> None:
        super().__init__(path, pid, command, since)
        self.path, self.pid, self.command, self.since = path, pid, command, since

    def __str__(self) -> str:
        who = f"process {self.pid}" if self.pid else "another process"
        return (
            f"the warehouse is locked: {who} has been running `{self.command}` since {self.since} ({self.path}); "
            "wait for it to end or stop it; the lock goes with the process"
        )


class PinnedError(WarehouseError, BlockingIOError):
    """A reader still has a version that must go."""

    exit_code = 5

    def __init__(self, snapshot_id: str) -> None:
        super().__init__(snapshot_id)
        self.snapshot_id = snapshot_id

    def __str__(self) -> str:
        return f"a process is reading snapshot {self.snapshot_id}; nothing was changed. Wait for it to end, or stop it"


class UnknownUserError(WarehouseError, LookupError):
    """A user that no kept version names."""

    exit_code = 2

    def __init__(self, user_id: str, root: str) -> None:
        super().__init__(user_id, root)
        self.user_id, self.root = user_id, root

    def __str__(self) -> str:
        return f"no version in {self.root} names user `{self.user_id}`; nothing was changed. Ids are as in the source"


class LockUnsupportedError(WarehouseError, OSError):
    """The file system does not keep file locks."""

    exit_code = 2

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(path, detail)
        self.path, self.detail = path, detail

    def __str__(self) -> str:
        return (
            f"the file system of {self.path} does not keep file locks ({self.detail}); two runs there would pay for "
            "everything twice; put [warehouse] root on a local disk"
        )


class WarehouseRootError(WarehouseError, OSError):
    """The root is no folder, or none can be made or written there."""

    exit_code = 2

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"{self.path!r} cannot hold the warehouse: {self.reason}; expected a folder you may write in, or a place "
            "where one can be made; name it with --root or as [warehouse] root"
        )


class LockRequiredError(WarehouseError, RuntimeError):
    """A write was tried without the lock."""

    def __init__(self, root: str, action: str) -> None:
        super().__init__(root, action)
        self.root, self.action = root, action

    def __str__(self) -> str:
        return f"{self.action} in {self.root} needs the run lock; wrap it in `with warehouse.lock(command=…)`"


class CorruptFileError(WarehouseError, ValueError):
    """Bytes on disk are not the bytes that were written."""

    exit_code = 6

    def __init__(
        self, path: str, detail: str, cure: str = "restore the file from a backup or publish another snapshot"
    ) -> None:
        super().__init__(path, detail, cure)
        self.path, self.detail, self.cure = path, detail, cure

    def __str__(self) -> str:
        return f"{self.path} cannot be trusted: {self.detail}; {self.cure}"


class FormatVersionError(WarehouseError, ValueError):
    """A file was written by a newer version of the program."""

    exit_code = 2

    def __init__(self, path: str, got: object, known: object) -> None:
        super().__init__(path, got, known)
        self.path, self.got, self.known = path, got, known

    def __str__(self) -> str:
        return f"{self.path} has format {self.got}, this version reads up to {self.known}; install the newer semalign"


class SchemaDriftError(WarehouseError, TypeError):
    """A fragment with a column that its table has no longer, or as another type."""

    exit_code = 2

    def __init__(self, path: str, table: str, got: str, now: str) -> None:
        super().__init__(path, table, got, now)
        self.path, self.table, self.got, self.now = path, table, got, now

    def __str__(self) -> str:
        return (
            f"{self.path} was written with {self.got}, and table `{self.table}` of this version {self.now}; columns "
            "are added, never renamed, dropped or retyped: read it with the semalign that wrote it, or give the column "
            "back"
        )


class UnsafePathError(WarehouseError, ValueError):
    """A name or path that would leave the warehouse, or a link where a file belongs."""

    exit_code = 2

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path!r} is refused as a path inside the warehouse: {self.reason}"


class IdentifierError(WarehouseError, ValueError):
    """A name that may not become an SQL identifier."""

    exit_code = 2

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name!r} is not a table or column name; expected ^[a-z][a-z0-9_]{{0,62}}$"


class UnknownTableError(WarehouseError, LookupError):
    """No table of that name is declared."""

    exit_code = 2

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, known)
        self.name, self.known = name, known

    def __str__(self) -> str:
        return f"unknown table `{self.name}`; known: {listed(self.known)}. Declared in warehouse/tables/"


class UnknownColumnError(WarehouseError, LookupError):
    """A table has no column of that name."""

    exit_code = 2

    def __init__(self, table: str, column: str, known: Sequence[str]) -> None:
        super().__init__(table, column, known)
        self.table, self.column, self.known = table, column, known

    def __str__(self) -> str:
        return f"table `{self.table}` has no column `{self.column}`; known: {listed(self.known)}"


class UnknownSnapshotError(WarehouseError, LookupError):
    """No snapshot of that id exists."""

    exit_code = 2

    def __init__(self, snapshot_id: str, known: Sequence[str]) -> None:
        super().__init__(snapshot_id, known)
        self.snapshot_id, self.known = snapshot_id, known

    def __str__(self) -> str:
        return f"there is no snapshot {self.snapshot_id!r}; newest: {listed(self.known, 5)}"


class SchemaMismatchError(WarehouseError, TypeError):
    """Rows do not have the columns their table declares."""

    def __init__(self, table: str, detail: str, expected: str) -> None:
        super().__init__(table, detail, expected)
        self.table, self.detail, self.expected = table, detail, expected

    def __str__(self) -> str:
        return f"rows for `{self.table}` do not fit: {self.detail}; expected {self.expected}"


class DuplicateKeyError(WarehouseError, ValueError):
    """Two rows share what must identify one."""

    def __init__(self, table: str, keys: Sequence[str], example: str) -> None:
        super().__init__(table, keys, example)
        self.table, self.keys, self.example = table, keys, example

    def __str__(self) -> str:
        return f"rows for `{self.table}` repeat the key ({listed(self.keys)}), for example {self.example}"


class DiskFullError(WarehouseError, OSError):
    """No room is left; what was acknowledged before is safe."""

    exit_code = 4

    def __init__(self, path: str, needed_bytes: int | None = None) -> None:
        super().__init__(path, needed_bytes)
        self.path, self.needed_bytes = path, needed_bytes

    def __str__(self) -> str:
        need = f" ({self.needed_bytes:,} bytes were to be written)" if self.needed_bytes else ""
        return f"the disk is full at {self.path}{need}; what is published is untouched; make room, then run again"


class DiskFaultError(WarehouseError, OSError):
    """The disk refused a write; what was acknowledged before is safe."""

    exit_code = 4

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(path, detail)
        self.path, self.detail = path, detail

    def __str__(self) -> str:
        return (
            f"the disk refused to write at {self.path} ({self.detail}); what is published is whole "
            "(`semalign verify --full` proves it). Mend or change the disk (`dmesg` names it), then run again"
        )


class TooLittleRoomError(WarehouseError, OSError):
    """Less room than a run is likely to need; it was not begun."""

    exit_code = 4

    def __init__(self, path: str, needed_bytes: int, free_bytes: int, what: str) -> None:
        super().__init__(path, needed_bytes, free_bytes, what)
        self.path, self.needed_bytes, self.free_bytes, self.what = path, needed_bytes, free_bytes, what

    def __str__(self) -> str:
        return (
            f"too little room at {self.path}: {self.what} may need {self.needed_bytes:,} bytes, and "
            f"{self.free_bytes:,} are free; nothing was sent. Make room or move [warehouse] root, then run again"
        )


class SqlError(WarehouseError, ValueError):
    """A query that was refused or failed."""

    exit_code = 2

    def __init__(self, message: str, known: Sequence[str]) -> None:
        super().__init__(message, known)
        self.message, self.known = message, known

    def __str__(self) -> str:
        return f"SQL: {self.message}; tables: {listed(self.known, 40)}"


class LedgerClosedError(WarehouseError, RuntimeError):
    """The ledger was used after its end."""

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(path, detail)
        self.path, self.detail = path, detail

    def __str__(self) -> str:
        return f"the ledger {self.path} takes no more entries: {self.detail}"


class LedgerWriteError(WarehouseError, OSError):
    """SQLite could not write; what was acknowledged before is safe."""

    exit_code = 4

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(path, detail)
        self.path, self.detail = path, detail

    def __str__(self) -> str:
        return (
            f"the ledger {self.path} could not be written ({self.detail}); mend the disk and run the same command again"
        )


class AlreadyAnsweredError(WarehouseError, ValueError):
    """A key would be paid a second time."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"request {self.key} already has its answer in the ledger; ask `answered` before `intend`"


class UnknownAttemptError(WarehouseError, LookupError):
    """An outcome for an attempt that was never announced, or was settled before."""

    def __init__(self, key: str, number: int, detail: str) -> None:
        super().__init__(key, number, detail)
        self.key, self.number, self.detail = key, number, detail

    def __str__(self) -> str:
        return f"attempt {self.number} of request {self.key} cannot be settled: {self.detail}"


class MatrixError(WarehouseError, ValueError):
    """A semantic matrix that may not be stored."""

    def __init__(self, key: str, detail: str) -> None:
        super().__init__(key, detail)
        self.key, self.detail = key, detail

    def __str__(self) -> str:
        return f"semantic matrix {self.key} is refused: {self.detail}"
