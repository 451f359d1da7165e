"""What handing a training over refuses, as sentences."""

from __future__ import annotations

from flows.errors import FlowError


class AlreadyTrainingError(FlowError, RuntimeError):
    """A bundle that a job which lives has in hand."""

    exit_code = 5

    def __init__(self, bundle: str) -> None:
        super().__init__(bundle)
        self.bundle = bundle

    def __str__(self) -> str:
        return f"another job trains the bundle {self.bundle}; whoever waits for it follows that one"


class LostWorkersError(FlowError, RuntimeError):
    """Jobs that vanished one after the other."""

    exit_code = 4

    def __init__(self, model: str, attempts: int, bundle: str) -> None:
        super().__init__(model, attempts, bundle)
        self.model, self.attempts, self.bundle = model, attempts, bundle

    def __str__(self) -> str:
        return (
            f"training of {self.model}: {self.attempts} jobs ended without a word. What they had trained is kept in "
            f"{self.bundle}, and the next run resumes there. Look at the workers of the pool and at train.log beside it"
        )
