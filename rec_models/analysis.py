"""What a trained model has learnt, seen from outside: the latent it decodes for every user."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from rec_models.errors import NoLatentError
from rec_models.gaussians import DiagonalGaussian
from rec_models.interactions import ResidentInteractions, UserBatch
from rec_models.recommender import Recommender, VariationalRecommender

_USERS_AT_ONCE = 1024


@runtime_checkable
class Aligned(Protocol):
    """A variational model beside which a second encoder reads language."""

    def posteriors(self, batch: UserBatch) -> tuple[DiagonalGaussian, DiagonalGaussian, DiagonalGaussian]:
        """(fused, collaborative, language) posteriors of clean rows, as inference decodes them."""
        ...


@torch.no_grad()
def posterior_means(model: Recommender, history: ResidentInteractions, name: str) -> dict[str, NDArray[np.float32]]:
    """Posterior means of every user as inference sees them.

    Args:
        name: the model's, for the error.

    Returns:
        `decoded` (n_users, latent), what the decoder is given; of an aligned model also `source` and `language`, the
        two it was fused from.

    Raises:
        NoLatentError: the model has no diagonal posterior.
    """
    model.eval()
    parts: dict[str, list[NDArray[np.float32]]] = {}
    users = np.arange(history.n_users)
    for start in range(0, len(users), _USERS_AT_ONCE):
        batch = history.batch(users[start : start + _USERS_AT_ONCE])
        for part, posterior in _posteriors(model, batch, name).items():
            parts.setdefault(part, []).append(posterior.mean.float().cpu().numpy())
    return {part: np.concatenate(blocks) for part, blocks in parts.items()}


def _posteriors(model: Recommender, batch: UserBatch, name: str) -> dict[str, DiagonalGaussian]:
    if isinstance(model, VariationalRecommender):
        return {"decoded": model.encode(batch, None).posterior}
    if isinstance(model, Aligned):
        return dict(zip(("decoded", "source", "language"), model.posteriors(batch), strict=True))
    raise NoLatentError(name)
