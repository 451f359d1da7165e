"""What goes wrong where work is handed to other machines."""

from __future__ import annotations

from flows.errors import FlowError


class MissingRunnerError(FlowError, ImportError):
    """A runner of shards that an optional package brings."""

    exit_code = 2

    def __init__(self, runner: str) -> None:
        super().__init__(runner)
        self.runner = runner

    def __str__(self) -> str:
        return (
            f"engine.runner = {self.runner!r} needs prefect-{self.runner}, which is not installed. "
            f"pip install 'semalign[{self.runner}]', or set engine.runner = \"local\""
        )
