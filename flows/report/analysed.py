"""What a report tells in numbers of a model's insides: how far posteriors spread, how predicted ratings are spread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PosteriorSpread:
    """The posteriors of all users in one latent space, means over seeds.

    Attributes:
        w1_low, w1_high: bounds of the mean 1-Wasserstein distance of two users.
        kl: from the prior, in nats; `information` of it tells users apart, `kl_aggregate` moves all of them.
        active: dimensions whose mean varies over users, of `latent_dim`.
    """

    model: str
    w1_low: float
    w1_high: float
    kl: float
    information: float
    kl_aggregate: float
    active: float
    latent_dim: int


@dataclass(frozen=True)
class Collapse:
    """One model that predicts ratings.

    Attributes:
        test: figure of the tested ratings -> mean over seeds.
        epochs: the first seed's validation passes: `epoch`, shares of the bins, and what else is drawn.
    """

    model: str
    test: Mapping[str, float]
    epochs: tuple[Mapping[str, float], ...]
