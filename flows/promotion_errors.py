"""What promotion refuses, as sentences."""

from __future__ import annotations

from collections.abc import Sequence

from flows.errors import FlowError


class NotBlessedError(FlowError, RuntimeError):
    """A model that may not take the place of the one that serves."""

    exit_code = 4

    def __init__(self, model: str, champion: str | None, reasons: Sequence[str], snapshot: str) -> None:
        super().__init__(model, champion, reasons, snapshot)
        self.model, self.champion, self.reasons, self.snapshot = model, champion, tuple(reasons), snapshot

    def __str__(self) -> str:
        stays = f"{self.champion} goes on serving" if self.champion else "nothing serves"
        return (
            f"NOT_BLESSED: {self.model} was not promoted: {'; '.join(self.reasons)}. {stays}. Let it serve all the "
            f"same: semalign promote --to {self.snapshot}. Limits: [promotion]"
        )


class ChampionLostError(FlowError, LookupError):
    """A model that should serve, and whose files are not there or not what they were."""

    exit_code = 4

    def __init__(self, model: str, model_id: str, problem: str) -> None:
        super().__init__(model, model_id, problem)
        self.model, self.model_id, self.problem = model, model_id, problem

    def __str__(self) -> str:
        return (
            f"the champion {self.model} ({self.model_id}) cannot be measured against: {self.problem}. Nothing was "
            "promoted. Bring its folder back from a copy, or promote without a champion: semalign run --first"
        )


class UnknownPromotionError(FlowError, LookupError):
    """An id that no version with lists for its users has."""

    exit_code = 2

    def __init__(self, wanted: str, known: Sequence[str]) -> None:
        super().__init__(wanted, known)
        self.wanted, self.known = wanted, known

    def __str__(self) -> str:
        held = ", ".join(self.known) or "none"
        return (
            f"no kept version has model or snapshot {self.wanted!r} with lists for its users; there are: {held}. "
            "`semalign models --history` shows what served when"
        )


class NothingToRollBackError(FlowError, LookupError):
    """A rollback where no model served before the one that does."""

    exit_code = 2

    def __init__(self, model: str | None) -> None:
        super().__init__(model)
        self.model = model

    def __str__(self) -> str:
        if self.model is None:
            return (
                "nothing was promoted yet, so there is nothing to go back from. `semalign run` promotes a first model"
            )
        return (
            f"{self.model} is the first model that served; there is none to go back to. See semalign models --history"
        )
