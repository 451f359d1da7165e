"""Whether a model may serve: facts in, reasons against it out. Nothing is read or written here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from flows.settings import PromotionSettings


@dataclass(frozen=True)
class Duel:
    """A challenger against the champion in one metric, paired over test users.

    Attributes:
        value, champion_value: means over these users.
        difference, low, high: of the gain, with its 95 % bootstrap interval.
        coverage, champion_coverage: share of the catalogue in any list, 0..1.
        n_unknown: test users that the champion does not know; left out.
        n_shown: targets that the champion was trained on; left out.
    """

    metric: str
    value: float
    champion_value: float
    difference: float
    low: float
    high: float
    n_users: int
    coverage: float
    champion_coverage: float
    n_unknown: int = 0
    n_shown: int = 0


@dataclass(frozen=True)
class GateFacts:
    """What is known of a model that wants to serve.

    Attributes:
        duel: None where there is no champion, or the model is the champion.
        served: share of the users with a list.
        n_not_finite: scores of lists that are no numbers.
        n_strangers: items or users of the snapshot that stand elsewhere, or nowhere, in the model's own item map.
        quarantined_share: of items and users.
        drifts: measure → relative change, of what the same recipe made.
        rolled_back: why it may not serve again, where somebody took it out.
    """

    duel: Duel | None
    served: float
    n_not_finite: int = 0
    n_strangers: int = 0
    quarantined_share: float = 0.0
    drifts: tuple[tuple[str, float], ...] = ()
    rolled_back: str | None = None


def reasons_against(facts: GateFacts, settings: PromotionSettings) -> list[str]:
    """Why the model may not serve, in words with numbers and limits; empty where it may."""
    reasons = list(_unusable(facts))
    if not settings.gate:
        return reasons
    if facts.rolled_back:
        reasons.append(facts.rolled_back)
    if facts.duel is not None:
        reasons += _worse(facts.duel, settings)
    if not facts.served >= settings.min_served:
        reasons.append(f"{facts.served:.1%} of the users get a list, min_served asks for {settings.min_served:.1%}")
    limit = settings.max_quarantined_share
    if limit is not None and not facts.quarantined_share <= limit:
        share = f"{facts.quarantined_share:.1%} of items and users are in quarantine"
        reasons.append(f"{share}, max_quarantined_share allows {limit:.1%}")
    for measure, change in facts.drifts:
        if settings.max_drift is not None and not abs(change) <= settings.max_drift:
            reasons.append(f"{measure} changed by {change:+.1%}, max_drift allows {settings.max_drift:.1%}")
    return reasons


def _unusable(facts: GateFacts) -> Iterator[str]:
    """What no setting lets through."""
    if facts.n_not_finite:
        yield f"{facts.n_not_finite:,} scores of its lists are not finite"
    if facts.n_strangers:
        yield f"{facts.n_strangers:,} items or users are not where its item map has them"


def _worse(duel: Duel, settings: PromotionSettings) -> Iterator[str]:
    values = (duel.value, duel.champion_value, duel.low, duel.high, duel.coverage, duel.champion_coverage)
    if not all(map(math.isfinite, values)):
        yield f"{duel.metric} of the two models is no number, so they cannot be compared"
        return
    if duel.n_users < settings.min_users:
        yield f"only {duel.n_users} test users are known to both models, min_users asks for {settings.min_users}"
        return
    gain = f"{duel.metric} {duel.value:.4f} after {duel.champion_value:.4f} ({_interval(duel)}, {duel.n_users:,} users)"
    if duel.high < 0:
        yield f"{gain}: it is worse"
    elif duel.difference < 0 and duel.low < -settings.max_loss * duel.champion_value:
        yield f"{gain}: it may be worse by more than max_loss, {settings.max_loss:.1%}"
    kept = settings.min_coverage_kept
    if kept is not None and duel.coverage < kept * duel.champion_coverage:
        share = f"its lists show {duel.coverage:.1%} of the catalogue, the champion's {duel.champion_coverage:.1%}"
        yield f"{share}; min_coverage_kept is {kept:g}"


def _interval(duel: Duel) -> str:
    return f"gain {duel.difference:+.4f}, 95 % interval {duel.low:+.4f} to {duel.high:+.4f}"
