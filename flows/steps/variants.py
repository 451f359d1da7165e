"""Arms of an A/B test: which of them a user is in follows from the user's id and the test's salt alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flows.errors import SettingValueError
from flows.settings import RecommendSettings
from flows.steps.train import PlannedModel

_POINTS = 1 << 64


@dataclass(frozen=True)
class Arm:
    """What some users are given: a name for the column `variant`, a model, and how diverse their lists are."""

    name: str
    model: PlannedModel
    diversity: float


def arms_of(model: PlannedModel, trained: Sequence[PlannedModel], settings: RecommendSettings) -> list[Arm]:
    """The arms as they are set, in that order; without any, everybody gets the model under its label.

    Raises:
        SettingValueError: an arm names a model that is none of the run's.
    """
    if not settings.variants:
        return [Arm(model.label, model, settings.diversity)]
    known = {one.label: one for one in reversed(trained)} | {model.label: model}
    arms = []
    for name, variant in settings.variants.items():
        label = variant.model or model.label
        if label not in known:
            problem = f"no model of this run has that label; it has {', '.join(sorted(known))}"
            raise SettingValueError(f"recommend.variants.{name}.model", label, problem)
        diversity = settings.diversity if variant.diversity is None else variant.diversity
        arms.append(Arm(name, known[label], diversity))
    return arms


def arm_of_each(user_ids: Sequence[str], shares: Mapping[str, float], salt: str) -> np.ndarray:
    """(users,) int64 place of each user's arm among the shares.

    A user keeps their arm when others come or go. A share that grows takes users from its neighbours alone.
    """
    if len(shares) < 2:
        return np.zeros(len(user_ids), np.int64)
    points = np.fromiter((_point(salt, user_id) for user_id in user_ids), np.float64, len(user_ids))
    bounds = np.cumsum(list(shares.values()))[:-1]
    return np.searchsorted(bounds, points, side="right")


def _point(salt: str, user_id: str) -> float:
    """Where in 0 … 1 a user stands under a salt."""
    digest = hashlib.blake2b(f"{salt}\x1f{user_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / _POINTS
