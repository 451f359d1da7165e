"""What import and export refuse, as sentences; the files themselves are refused by the warehouse."""

from __future__ import annotations

from collections.abc import Sequence

from flows.errors import FlowError


class UnknownIdsError(FlowError, ValueError):
    """Too many vectors of nobody the warehouse knows."""

    exit_code = 4

    def __init__(
        self,
        path: str,
        kind: str,
        n_unknown: int,
        n_rows: int,
        limit: float,
        ids: Sequence[str],
        option: str = "--max-unknown",
    ) -> None:
        super().__init__(path, kind, n_unknown, n_rows, limit, ids, option)
        self.path, self.kind, self.n_unknown, self.n_rows = path, kind, n_unknown, n_rows
        self.limit, self.ids, self.option = limit, ids, option

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.n_unknown:,} of {self.n_rows:,} vectors have an id that no {self.kind} here has (such "
            f"as {', '.join(self.ids)}), more than the allowed {self.limit:.1%}; nothing was imported. "
            f'`semalign sql "SELECT {self.kind}_id FROM {self.kind}s LIMIT 10"` shows the ids; mend the file, or raise '
            f"{self.option}"
        )


class TableTakenError(FlowError, ValueError):
    """A name under which vectors lie that these may not be mixed with."""

    exit_code = 2

    def __init__(self, table: str, problem: str, cure: str = "Choose another name with --as") -> None:
        super().__init__(table, problem, cure)
        self.table, self.problem, self.cure = table, problem, cure

    def __str__(self) -> str:
        return f"table `{self.table}` {self.problem}; nothing was imported. {self.cure}"


class NoVectorsError(FlowError, ValueError):
    """A table asked for in a form that its rows do not have."""

    exit_code = 2

    def __init__(self, table: str, asked: str, problem: str, expected: str) -> None:
        super().__init__(table, asked, problem, expected)
        self.table, self.asked, self.problem, self.expected = table, asked, problem, expected

    def __str__(self) -> str:
        return f"table `{self.table}` cannot be written to {self.asked}: {self.problem}. Expected {self.expected}"
