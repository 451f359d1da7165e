"""What a trained model has learnt, seen from outside: the latent it decodes for every user."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from rec_models.errors import NoLatentError
from rec_models.gaussians import DiagonalGaussian
from rec_models.interactions import ResidentInteractions, UserBatch
from rec_models.normalizing import ConditionedGaussian
from rec_models.recommender import Recommender, VariationalRecommender

_USERS_AT_ONCE = 1024


@runtime_checkable
class Aligned(Protocol):
    """A variational model beside which a second encoder reads language."""

    collaborative: VariationalRecommender

    def posteriors(self, batch: UserBatch) -> tuple[DiagonalGaussian, DiagonalGaussian, DiagonalGaussian]:
        """(fused, collaborative, language) posteriors of clean rows, as inference decodes them."""
        ...


@torch.no_grad()
def posterior_means(model: Recommender, history: ResidentInteractions, name: str) -> dict[str, NDArray[np.float32]]:
    """Posterior means of every user as inference sees them.

    Args:
        name: the model's, for the error.

    Returns:
        `decoded` (n_users, latent), what the decoder is given, after a flow where the model has one; of an aligned
        model also `source` and `language`, the two it was fused from.

    Raises:
        NoLatentError: the model has no diagonal posterior.
    """
    model.eval()
    parts: dict[str, list[NDArray[np.float32]]] = {}
    users = np.arange(history.n_users)
    for start in range(0, len(users), _USERS_AT_ONCE):
        batch = history.batch(users[start : start + _USERS_AT_ONCE])
        for part, posterior in _posteriors(model, batch, name).items():
            mean = posterior.mean
            if isinstance(posterior, ConditionedGaussian):
                mean = base_of(model, name).point(posterior)
            parts.setdefault(part, []).append(mean.float().cpu().numpy())
    return {part: np.concatenate(blocks) for part, blocks in parts.items()}


def decoded_posterior(model: Recommender, batch: UserBatch, name: str) -> DiagonalGaussian:
    """(batch, latent) the Gaussian that is decoded as inference sees it; in front of a flow where there is one.

    Raises:
        NoLatentError: the model has no diagonal posterior.
    """
    return _posteriors(model, batch, name)["decoded"]


@torch.no_grad()
def posteriors_of(
    model: Recommender,
    history: ResidentInteractions,
    users: NDArray[np.int64],
    name: str,
    keep: float = 1.0,
    rng: torch.Generator | None = None,
) -> DiagonalGaussian:
    """(len(users), latent) float32 the decoded posteriors of users, from rows of which a share is kept; see `masked`.

    Raises:
        NoLatentError: the model has no diagonal posterior.
    """
    found = []
    for start in range(0, len(users), _USERS_AT_ONCE):
        batch = history.batch(users[start : start + _USERS_AT_ONCE])
        found.append(decoded_posterior(model, batch if keep == 1 else masked(batch, keep, rng), name))
    return DiagonalGaussian(
        torch.cat([each.mean.float() for each in found]), torch.cat([each.log_variance.float() for each in found])
    )


def masked(batch: UserBatch, keep: float, rng: torch.Generator | None) -> UserBatch:
    """The batch with each entry kept by chance `keep` and divided by it, as dropout does in training.

    Entries are left out rather than zeroed, so that whatever counts entries counts those that are seen.
    """
    kept = torch.rand(batch.values.shape, generator=rng, device=batch.values.device) < keep
    lengths = torch.zeros_like(batch.lengths).index_add_(0, batch.rows, kept.long())
    return replace(
        batch,
        rows=batch.rows[kept],
        items=batch.items[kept],
        values=batch.values[kept] / keep,
        offsets=torch.cumsum(lengths, 0) - lengths,
        lengths=lengths,
    )


def base_of(model: Recommender, name: str) -> VariationalRecommender:
    """The base whose decoder a variational model ranks by.

    Raises:
        NoLatentError: it is not a variational model.
    """
    if isinstance(model, VariationalRecommender):
        return model
    if isinstance(model, Aligned):
        return model.collaborative
    raise NoLatentError(name)


def _posteriors(model: Recommender, batch: UserBatch, name: str) -> dict[str, DiagonalGaussian]:
    if isinstance(model, VariationalRecommender):
        return {"decoded": model.encode(batch, None).posterior}
    if isinstance(model, Aligned):
        return dict(zip(("decoded", "source", "language"), model.posteriors(batch), strict=True))
    raise NoLatentError(name)
