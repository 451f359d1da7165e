"""What a trained model has learnt, seen from outside: the latent of every user, the factors behind a user's list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from rec_models.alignment import plan_entropy
from rec_models.bundle import Bundle
from rec_models.errors import NoFactorsError, NoLatentError, UnknownIdsError
from rec_models.explanation import SHARP, Explainable, Explanation, TextSide, overlap
from rec_models.gaussians import DiagonalGaussian
from rec_models.interactions import ResidentInteractions, UserBatch
from rec_models.measured import all_rows
from rec_models.normalizing import ConditionedGaussian
from rec_models.recommender import Recommender, VariationalRecommender
from rec_models.training import load_trained

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


@dataclass(frozen=True)
class FactorItems:
    """One factor of a user: its share of the history, ids of the items it holds, ids and log-odds of those it shows."""

    share: float
    held: tuple[str, ...]
    shown: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class TextFactors:
    """The factors of one text channel of a user, and how they go with those of the interactions.

    Attributes:
        name: what the channel counts: `words`, `concepts`, `hybrid` or `items`.
        shares: how much of the user's text each factor holds.
        units: what each factor speaks of most: words, concepts, or ids of items.
        plan, sharp, signed: a row for each factor of the interactions; see `TextSide`.
        entropy: of the plan, in bits; log2 of the number of factors if it is even, None where it is no plan but signed.
        overlap: mean share of units that two factors have in common.
    """

    name: str
    shares: tuple[float, ...]
    units: tuple[tuple[str, ...], ...]
    plan: tuple[tuple[float, ...], ...]
    sharp: tuple[tuple[float, ...], ...] | None
    signed: bool
    entropy: float | None
    overlap: float


@dataclass(frozen=True)
class UserFactors:
    """What stands behind one user's list; `similarity` is the mean cosine between two factors."""

    user_id: str
    n_history: int
    similarity: float
    factors: tuple[FactorItems, ...]
    texts: tuple[TextFactors, ...]


def factors_of_users(
    bundle: Bundle, users: Sequence[str], *, top: int = 10, epsilon: float = SHARP, taken: bool = False
) -> list[UserFactors]:
    """The factors of some users of a trained model, on the CPU, from all that is known of them, as lists are made.

    Args:
        users: ids.
        top, epsilon, taken: see `Explainable`.

    Raises:
        NoFactorsError: the model has none.
        UnknownIdsError: a user is no row of the bundle.
    """
    known = json.loads((bundle.directory / "user_ids.json").read_text("utf-8"))
    places = {user: place for place, user in enumerate(known)}
    if unknown := [user for user in users if user not in places]:
        raise UnknownIdsError("user", unknown, len(places), str(bundle.directory))
    model = load_trained(bundle, torch.device("cpu"))
    if not isinstance(model, Explainable):
        raise NoFactorsError(bundle.config["model"]["name"])
    items: list[str] = json.loads((bundle.directory / "item_ids.json").read_text("utf-8"))
    shown, _ = all_rows(bundle, bundle.inputs())
    batch = ResidentInteractions(shown).batch(np.array([places[user] for user in users], np.int64))
    told = model.factors_of(batch, top=top, epsilon=epsilon, taken=taken)
    return [_user(told, row, user, int(batch.lengths[row]), items) for row, user in enumerate(users)]


def _user(told: Explanation, row: int, user: str, n_history: int, items: list[str]) -> UserFactors:
    factors = []
    for share, held, tops, scores in zip(
        told.shares[row], told.held[row], told.tops[row], told.scores[row], strict=True
    ):
        there = scores.isfinite()
        factors.append(
            FactorItems(
                float(share),
                tuple(items[item] for item in held.tolist() if item >= 0),
                tuple(items[item] for item in tops[there].tolist()),
                tuple(scores[there].tolist()),
            )
        )
    texts = tuple(_text(side, row, items) for side in told.sides)
    return UserFactors(user, n_history, float(told.similarity[row]), tuple(factors), texts)


def _text(side: TextSide, row: int, items: list[str]) -> TextFactors:
    names = list(side.unit_names) or items
    return TextFactors(
        side.name,
        tuple(side.shares[row].tolist()),
        tuple(tuple(names[unit] for unit in units) for units in side.tops[row].tolist()),
        tuple(map(tuple, side.plan[row].tolist())),
        None if side.sharp is None else tuple(map(tuple, side.sharp[row].tolist())),
        side.signed,
        None if side.signed else float(plan_entropy(side.plan[row : row + 1])),
        float(overlap(side.tops[row : row + 1])),
    )
