"""How a flow calls its steps: directly here, as Prefect tasks in flows/deployed.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Stage(Protocol):
    """Runs one step of a flow; flows call every step through it."""

    def __call__(self, step: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...


def call(step: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """The step's result, computed here and now."""
    return step(*args, **kwargs)
