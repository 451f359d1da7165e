"""An older model measured beside a newer one: the same users, the same targets, neither asked for what it was shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rec_models.bundle import SEEN, Bundle
from rec_models.errors import NothingToEvaluateError
from rec_models.evaluation import Evaluation, evaluate
from rec_models.interactions import InteractionMatrix, ResidentInteractions, UserBatch
from rec_models.measured import histories_of, ranked
from rec_models.recommender import Recommender
from rec_models.settings import parse_evaluation
from rec_models.training import load_trained


@dataclass(frozen=True)
class Rescored:
    """Both models over the users that both know.

    Attributes:
        newer, older: over the same users, in indices of the newer bundle.
        n_unknown: test users that the older model has never heard of; they are left out.
        n_shown: targets that the older model was trained on; nobody is asked for them.
    """

    newer: Evaluation
    older: Evaluation
    n_unknown: int
    n_shown: int


class Translated(Recommender):
    """A model among users and items that are numbered otherwise; items it does not know are never in its lists.

    Args:
        users: (n_users,) int64 the model's own index of each user, -1 for one it does not know.
        items: (n_items,) int64 the same of items.
        n_items: how many items the model has.
    """

    users: Tensor
    items: Tensor

    def __init__(self, model: Recommender, users: NDArray[np.int64], items: NDArray[np.int64], n_items: int) -> None:
        super().__init__()
        self.model, self.n_items = model, n_items
        self.register_buffer("users", torch.from_numpy(users), persistent=False)
        self.register_buffer("items", torch.from_numpy(items), persistent=False)

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) float32, -inf for items that the model does not know."""
        own = self.items[batch.items]
        known = own >= 0
        rows, own, values = batch.rows[known], own[known], batch.values[known]
        # a row's items ascend in the model's numbers too: some models search in them
        order = torch.argsort(rows * self.n_items + own)
        rows, own, values = rows[order], own[order], values[order]
        lengths = torch.bincount(rows, minlength=len(batch))
        offsets = torch.cumsum(lengths, 0) - lengths
        users = self.users[batch.users].clamp_min(0)
        told = self.model.scores(UserBatch(users, rows, own, values, offsets, lengths, self.n_items)).float()
        scores = torch.full((len(batch), len(self.items)), -torch.inf, device=told.device)
        here = torch.nonzero(self.items >= 0).squeeze(1)
        scores[:, here] = told[:, self.items[here]]
        return scores


def rescored(newer: Bundle, older: Bundle, device: torch.device) -> Rescored:
    """The test metrics of two trained models over the newer one's test part, paired by user.

    Users that the older model does not know are left out, and so are targets that it was trained on: both models are
    told not to list those. What each is asked with is the user's row of today, as far as it knows the items.

    Raises:
        NothingToEvaluateError: no user is left.
    """
    settings = parse_evaluation(newer.config["evaluation"])
    users, items = (_places(newer, older, kind) for kind in ("user_ids", "item_ids"))
    before, inputs = older.inputs(), newer.inputs()
    test = newer.part("test")
    shown = _renumbered(before.known, users, items, test.shape)
    n_unknown = int(np.count_nonzero((users < 0) & (test.lengths() > 0)))
    targets = _without(test, shown, users >= 0)
    if targets.nnz == 0:
        raise NothingToEvaluateError("test")
    n_shown = int(test.lengths()[users >= 0].sum()) - targets.nnz
    train, history, masked = histories_of(newer, inputs, device)
    exclude = ResidentInteractions(inputs.known.union(newer.part(SEEN), shown), device) if n_shown else masked
    challenger = ranked(load_trained(newer, device), inputs, settings.cold_items)
    champion = ranked(load_trained(older, device), before, settings.cold_items)
    champion = Translated(champion, users, items, before.n_items).to(device)
    asked = {"part": "test", "exclude": exclude, "train": train}
    return Rescored(
        evaluate(challenger, history, targets, settings, **asked),
        evaluate(champion, history, targets, settings, **asked),
        n_unknown,
        n_shown,
    )


def _places(newer: Bundle, older: Bundle, kind: str) -> NDArray[np.int64]:
    """Index in the older bundle of each id of the newer one, -1 where it is not there."""
    place = {known: index for index, known in enumerate(_ids(older, kind))}
    return np.array([place.get(one, -1) for one in _ids(newer, kind)], np.int64)


def _ids(bundle: Bundle, kind: str) -> Sequence[str]:
    return json.loads((bundle.directory / f"{kind}.json").read_text("utf-8"))


def _renumbered(
    matrix: InteractionMatrix, users: NDArray[np.int64], items: NDArray[np.int64], shape: tuple[int, int]
) -> InteractionMatrix:
    """The older matrix in the newer numbers, without whom and what is there no longer."""
    back = [np.full(n, -1, np.int64) for n in matrix.shape]
    for here, mine in zip(back, (users, items), strict=True):
        here[mine[mine >= 0]] = np.flatnonzero(mine >= 0)
    row, column = back[0][np.repeat(np.arange(matrix.n_users), matrix.lengths())], back[1][matrix.indices]
    there = (row >= 0) & (column >= 0)
    return InteractionMatrix.from_pairs(row[there], column[there], None, n_users=shape[0], n_items=shape[1])


def _without(test: InteractionMatrix, shown: InteractionMatrix, kept: NDArray[np.bool_]) -> InteractionMatrix:
    """The pairs of `test` of the users kept that are not in `shown`."""
    cells = [np.repeat(np.arange(part.n_users), part.lengths()) * part.n_items + part.indices for part in (test, shown)]
    fresh = ~np.isin(cells[0], cells[1])
    user = cells[0] // test.n_items
    fresh &= kept[user]
    return InteractionMatrix.from_pairs(
        user[fresh], test.indices[fresh], test.values[fresh], n_users=test.n_users, n_items=test.n_items
    )
