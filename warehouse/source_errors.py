"""Sources that cannot be read: each says which, what was expected there, and how to mend it."""

from collections.abc import Sequence

from warehouse.errors import WarehouseError, listed


class SourceError(WarehouseError, ValueError):
    """A source the user named cannot be read as it is."""

    exit_code = 2


class MissingFileError(FileNotFoundError, SourceError):
    """A named file does not exist."""

    def __init__(self, path: str, kind: str) -> None:
        super().__init__(path, kind)
        self.path, self.kind = path, kind

    def __str__(self) -> str:
        return (
            f"source.{self.kind}: no file at {self.path}; correct the path in [source] "
            "(relative paths start at the settings file)"
        )


class EmptySourceError(SourceError):
    """A source holds no row."""

    def __init__(self, source: str, kind: str) -> None:
        super().__init__(source, kind)
        self.source, self.kind = source, kind

    def __str__(self) -> str:
        return f"source.{self.kind}: {self.source} holds no rows; expected at least one"


class MissingColumnError(SourceError, LookupError):
    """A column that is needed is not in the source; `ours` is what we call it, where that differs."""

    def __init__(self, column: str, known: Sequence[str], source: str, kind: str, ours: str | None = None) -> None:
        super().__init__(column, known, source, kind, ours)
        self.column, self.known, self.source, self.kind, self.ours = column, known, source, kind, ours or column

    def __str__(self) -> str:
        return (
            f"source.{self.kind}: {self.source} has no column `{self.column}`; its columns: {listed(self.known)}; "
            f'name the right one in [source.columns.{self.kind}], for example {self.ours} = "…"'
        )


class NotUtf8Error(SourceError, UnicodeError):
    """A text file is not UTF-8."""

    def __init__(self, source: str, kind: str, detail: str) -> None:
        super().__init__(source, kind, detail)
        self.source, self.kind, self.detail = source, kind, detail

    def __str__(self) -> str:
        return (
            f"source.{self.kind}: {self.source} is not UTF-8 ({self.detail}); "
            "convert it, for example with `iconv -f latin1 -t utf-8`"
        )


class UnreadableSourceError(SourceError):
    """A source whose form is not what its name says."""

    def __init__(self, source: str, kind: str, detail: str) -> None:
        super().__init__(source, kind, detail)
        self.source, self.kind, self.detail = source, kind, detail

    def __str__(self) -> str:
        return f"source.{self.kind}: {self.source} cannot be read: {self.detail}"


class ColumnMapError(SourceError):
    """A column map that gives two columns one name."""

    def __init__(self, column: str, kind: str) -> None:
        super().__init__(column, kind)
        self.column, self.kind = column, kind

    def __str__(self) -> str:
        return (
            f"source.{self.kind}: two columns would be called `{self.column}`; "
            f"give each its own name in [source.columns.{self.kind}]"
        )


class VectorFileError(SourceError):
    """A file of vectors, or of their ids, that cannot be taken as it is."""

    def __init__(self, path: str, detail: str, cure: str, ids: Sequence[str] = ()) -> None:
        super().__init__(path, detail, cure, ids)
        self.path, self.detail, self.cure, self.ids = path, detail, cure, ids

    def __str__(self) -> str:
        which = f" ({listed(self.ids, 5)})" if self.ids else ""
        return f"{self.path}: {self.detail}{which}; nothing was imported. {self.cure}"


class UnsafePickleError(WarehouseError, ValueError):
    """A pickle that holds more than arrays and plain containers."""

    exit_code = 6

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(path, detail)
        self.path, self.detail = path, detail

    def __str__(self) -> str:
        return (
            f"the pickle {self.path} is refused: {self.detail}. Nothing of it was run. Where it comes from someone you "
            "trust, save the array there with numpy.save and import the .npy"
        )


class MissingDatabaseError(SourceError, LookupError):
    """An environment variable that should hold the URL of a database does not lead to one."""

    def __init__(self, url_env: str, problem: str) -> None:
        super().__init__(url_env, problem)
        self.url_env, self.problem = url_env, problem

    def __str__(self) -> str:
        return (
            f"${self.url_env} should hold the URL of a database: {self.problem}; for PostgreSQL "
            f"`pip install 'semalign[sql]'` and {self.url_env}=postgresql+psycopg://user@host/name, whose password "
            "stands in the URL or in PGPASSWORD, never in settings"
        )


class DatabaseError(OSError, SourceError):
    """A database that cannot be reached, or refuses what it is asked."""

    def __init__(self, place: str, detail: str) -> None:
        super().__init__(place, detail)
        self.place, self.detail = place, detail

    def __str__(self) -> str:
        return (
            f"the database {self.place} answered: {self.detail}; mend the query, the table or the URL "
            "and run the command again"
        )
