"""Evaluation under a named protocol: history is masked here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from inspect import getmembers, isfunction, signature
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveInt, field_validator, model_validator
from torch import Tensor

from rec_models import metrics
from rec_models.errors import NothingToEvaluateError
from rec_models.interactions import InteractionMatrix, ResidentInteractions, UserBatch
from rec_models.protocols import PROTOCOLS
from rec_models.rated_lists import MASKED_SCORE, MIDDLE, TIE_DRAWS, RatedEntries, hits_among
from rec_models.rating_report import RatingReport
from rec_models.recommender import Recommender

METRICS: dict[str, Callable[..., Any]] = {name: f for name, f in getmembers(metrics, isfunction)}
# What each metric reads; training selects by finding what is relevant, never by being novel or even.
_READS = {name: frozenset(signature(f).parameters) for name, f in METRICS.items()}
SELECTING = tuple(name for name, reads in _READS.items() if "hits" in reads)

# Place of a batch's first user, the batch, and its scores with -inf where they are masked.
_Scored = tuple[int, UserBatch, Tensor]

# Users ranked at once, fewer where the catalogue is large: their scores take 256 MB at most.
_USERS_AT_ONCE, _SCORES_AT_ONCE = 1024, 2**26


class EvaluationConfig(BaseModel):
    """What is measured.

    Attributes:
        protocol: the name under which numbers may be compared. The first two rank the full catalogue for users with at
            least one relevant item, in validation and test alike. `dmrec`: the input is the user's training row, and
            that is what is masked. `strong` (generalisation to users held out of training): the input and what is
            masked are the user's fold-in row. `dgrm-paper` and `dgrm-code` rank a user's tested items alone, the
            relevant being the k best rated of those that were liked; `dgrm-paper` lists what is predicted to be liked
            (where a model predicts ratings), `dgrm-code` what scores at least the mean of the user's row.
        ks: cut-offs.
        names: functions of `rec_models.metrics`.
        select_by: the validation metric that picks the weights to keep.
        cold_items: what scores items without a training interaction: the `model`, as in the papers, or their `text`
            (`rec_models.cold`).
        relevant_rating: only what was rated so and above is relevant, and learnt from by models that read no ratings;
            None leaves everything relevant, and in the protocols of DGRM what is rated 3.
        ties: `random` is the mean of seeded random orders, `index` the order of the catalogue; None is the protocol's
            own, random in those of DGRM. The full catalogue knows the index alone.
        cut_lists: where the protocols of DGRM keep out of a list what is predicted too low: `always`, also None, or in
            the `test` alone. A user has few ratings in validation, often no more than a list has places, and there a
            cut list can only lose: what is selected by it is the model that predicts nothing low. The other
            protocols cut no list.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Literal["dmrec", "strong", "dgrm-paper", "dgrm-code"] = "dmrec"
    ks: tuple[PositiveInt, ...] = (10, 20)
    names: tuple[str, ...] = ("recall", "ndcg")
    select_by: str = "recall@20"
    cold_items: Literal["model", "text"] = "model"
    relevant_rating: float | None = None
    ties: Literal["random", "index"] | None = None
    cut_lists: Literal["always", "test"] | None = None

    @field_validator("names")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in METRICS:
                raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
        return names

    @field_validator("select_by")
    @classmethod
    def _shaped(cls, select_by: str) -> str:
        name, _, k = select_by.partition("@")
        if name not in SELECTING or not k.isdigit() or int(k) < 1:
            raise ValueError(f"{select_by!r} is not metric@k; metrics to select by: {', '.join(SELECTING)}")
        return select_by

    @model_validator(mode="after")
    def _measurable(self) -> EvaluationConfig:
        if self.among_rated and (lists := [name for name in self.names if "hits" not in _READS[name]]):
            raise ValueError(f"{lists[0]!r} speaks of the catalogue, which {self.protocol!r} does not rank")
        if not self.among_rated and self.ties == "random":
            raise ValueError(f"`ties` 'random' is of the protocols that rank rated items alone, not {self.protocol!r}")
        return self

    @property
    def among_rated(self) -> bool:
        """Whether only rated items are ranked."""
        return PROTOCOLS[self.protocol].among_rated

    @property
    def reads_ratings(self) -> bool:
        """Whether the tested parts must hold ratings, whatever a model asks for."""
        return self.among_rated or self.relevant_rating is not None


@dataclass(frozen=True)
class Evaluation:
    """Values of each evaluated user, and of all their lists together.

    Attributes:
        users: (evaluated,) int64 user indices with something to find.
        values: metric@k -> (evaluated,) float64.
        catalogue: metric@k of the metrics that speak of all lists together, such as Gini.
        coverage: k -> share of the catalogue that appears in at least one list of length k.
        ratings: what `RatingReport` says of a model that predicts ratings.
    """

    users: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    catalogue: dict[str, float]
    coverage: dict[int, float]
    ratings: dict[str, float] = field(default_factory=dict)

    def means(self) -> dict[str, float]:
        """metric@k -> mean over the evaluated users, and what speaks of all their lists or ratings together."""
        means = {name: float(values.mean()) for name, values in self.values.items()}
        return means | self.catalogue | self.ratings


def evaluate(
    model: Recommender,
    history: ResidentInteractions,
    relevant: InteractionMatrix,
    config: EvaluationConfig,
    *,
    part: str,
    exclude: ResidentInteractions | None = None,
    train: ResidentInteractions | None = None,
    distributions: bool = False,
) -> Evaluation:
    """Metrics of every user with at least one relevant item, over what the protocol ranks.

    Args:
        model: scores users from `history`.
        history: what the model is fed and what is masked.
        relevant: what should be found.
        part: name of the relevant part, for the error and for `cut_lists`.
        exclude: masked instead of `history`, where a protocol masks more than it feeds.
        train: whose users an item's popularity is counted over, where that is not `history`.
        distributions: of predicted ratings, also test user by user how they are distributed.

    Raises:
        NothingToEvaluateError: nobody has a relevant item.
    """
    tested = relevant
    if config.relevant_rating is not None and not config.among_rated:
        relevant = tested.rated_at_least(config.relevant_rating)
    counts = np.diff(relevant.indptr)
    users = np.flatnonzero(counts)
    if len(users) == 0:
        raise NothingToEvaluateError(part)
    wanted = {(name, k) for name in config.names for k in config.ks}
    selected, _, at = config.select_by.partition("@")
    wanted.add((selected, int(at)))
    masked = _scored(model, history, users, exclude or history)
    report = RatingReport(tested.values) if model.predicts_ratings else None
    if report is not None:
        masked = _reported(masked, users, ResidentInteractions(tested, history.device), report)
    if config.among_rated:
        whole = config.cut_lists == "test" and part != "test"
        rated = _rated(model, masked, ResidentInteractions(tested, history.device), users, config, whole)
        found = _among_rated(rated, users, wanted, config)
    else:
        depth = max(k for _, k in wanted)
        lists = _ranked(masked, relevant, users, depth, config.ks, train or history)
        found = _over_catalogue(lists, users, counts[users], wanted)
    if len(found.users) == 0:
        raise NothingToEvaluateError(part)
    return found if report is None else replace(found, ratings=report.figures(distributions=distributions))


def _over_catalogue(
    lists: _Lists, users: NDArray[np.int64], n_relevant: NDArray[np.int64], wanted: set[tuple[str, int]]
) -> Evaluation:
    values: dict[str, NDArray[np.float64]] = {}
    catalogue: dict[str, float] = {}
    for name, k in sorted(wanted):
        if "exposure" in _READS[name]:
            catalogue[f"{name}@{k}"] = METRICS[name](lists.exposure[k], k)
        elif "information" in _READS[name]:
            values[f"{name}@{k}"] = METRICS[name](lists.information, k)
        else:
            values[f"{name}@{k}"] = METRICS[name](lists.hits, n_relevant, k)
    covered = {k: metrics.coverage(exposure, k) for k, exposure in lists.exposure.items()}
    return Evaluation(users, values, catalogue, covered)


@dataclass(frozen=True)
class _Lists:
    """What metrics read of the lists that all users were given; see `rec_models.metrics`."""

    hits: NDArray[np.bool_]
    information: NDArray[np.float32]
    exposure: dict[int, NDArray[np.int64]]


def _rated(
    model: Recommender,
    masked: Iterator[_Scored],
    tested: ResidentInteractions,
    users: NDArray[np.int64],
    config: EvaluationConfig,
    whole: bool,
) -> RatedEntries:
    """The tested entries with their scores; of `whole` lists nothing is kept out."""
    columns: list[tuple[NDArray[Any], ...]] = []
    for start, batch, scores in masked:
        entries = tested.batch(users[start : start + len(batch)])
        picked = scores[entries.rows, entries.items]
        if whole:
            passing = torch.ones_like(picked, dtype=torch.bool)
        elif config.protocol == "dgrm-code":
            row_means = scores.masked_fill(torch.isinf(scores), MASKED_SCORE).mean(1)
            passing = picked >= row_means[entries.rows]
        else:
            passing = picked >= (_liked(config) if model.predicts_ratings else -torch.inf)
        found = (entries.rows + start, entries.values, picked, passing)
        columns.append(tuple(column.cpu().numpy() for column in found))
    rows, ratings, scored, passes = (np.concatenate(column) for column in zip(*columns, strict=True))
    return RatedEntries(rows, ratings, scored, passes, len(users))


def _liked(config: EvaluationConfig) -> float:
    return MIDDLE if config.relevant_rating is None else config.relevant_rating


def _among_rated(
    rated: RatedEntries, users: NDArray[np.int64], wanted: set[tuple[str, int]], config: EvaluationConfig
) -> Evaluation:
    liked = _liked(config)
    asked = np.bincount(rated.rows[rated.ratings >= liked], minlength=len(users)) > 0
    if config.protocol == "dgrm-code":  # who liked nothing counts 0, and an ideal list is full
        asked[:] = True
    rng = np.random.default_rng(0x7E)
    draws = [None] if config.ties == "index" else [rng] * TIE_DRAWS
    values = {}
    for name, k in sorted(wanted):
        total = np.zeros(int(asked.sum()))
        for draw in draws:
            hits, n_relevant = (part[asked] for part in hits_among(rated, k, liked, draw))
            full = config.protocol == "dgrm-code" and name == "ndcg"
            total += METRICS[name](hits, np.full_like(n_relevant, k) if full else n_relevant.clip(1), k)
        values[f"{name}@{k}"] = total / len(draws)
    return Evaluation(users[asked], values, {}, {})


def _ranked(
    masked: Iterator[_Scored],
    relevant: InteractionMatrix,
    users: NDArray[np.int64],
    depth: int,
    ks: tuple[int, ...],
    counted: ResidentInteractions,
) -> _Lists:
    truth, device = ResidentInteractions(relevant, counted.device), counted.device
    popularity = torch.bincount(counted.items, minlength=relevant.n_items).clamp_min(1)
    bits = torch.log2(max(1, len(counted.active)) / popularity)
    exposure = {k: torch.zeros(relevant.n_items, dtype=torch.int64, device=device) for k in ks}
    hits = np.zeros((len(users), depth), bool)
    information = np.full((len(users), depth), np.nan, np.float32)
    for start, batch, scores in masked:
        best, items = first_k(scores, depth)
        relevant_here = torch.zeros_like(scores, dtype=torch.bool)
        answers = truth.batch(users[start : start + len(batch)])
        relevant_here[answers.rows, answers.items] = True
        real = torch.isfinite(best)
        block = slice(start, start + len(batch)), slice(0, items.shape[1])
        hits[block] = (relevant_here.gather(1, items) & real).cpu().numpy()
        information[block] = bits[items].masked_fill(~real, torch.nan).cpu().numpy()
        for k, shown in exposure.items():
            shown += torch.bincount(items[:, :k][real[:, :k]], minlength=len(shown))
    return _Lists(hits, information, {k: shown.cpu().numpy() for k, shown in exposure.items()})


def recommend(
    model: Recommender,
    history: ResidentInteractions,
    exclude: ResidentInteractions,
    k: int,
    users: NDArray[np.int64] | None = None,
    allowed: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Item indices (n_users, k), -1 where nothing is left, and their scores; `exclude` is never recommended.

    Args:
        users: whose lists are wanted, in their order; everybody's without it.
        allowed: items that may be recommended; all of them without it.
    """
    users = np.arange(history.n_users) if users is None else users
    items = np.full((len(users), k), -1, np.int32)
    values = np.full((len(users), k), np.nan, np.float32)
    barred = None
    if allowed is not None:
        barred = torch.ones(history.n_items, dtype=torch.bool, device=history.device)
        barred[torch.from_numpy(allowed).to(history.device)] = False
    for start, batch, scores in _scored(model, history, users, exclude):
        if barred is not None:
            scores[:, barred] = -torch.inf
        best, chosen = first_k(scores, k)
        real = torch.isfinite(best).cpu().numpy()
        block = slice(start, start + len(batch)), slice(0, best.shape[1])
        items[block] = np.where(real, chosen.cpu().numpy(), -1)
        values[block] = np.where(real, best.cpu().numpy(), np.nan)
    return items, values


def first_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores and indices of the k best items of each row; of equal scores the lower index comes first.

    Args:
        scores: (rows, n_items) float32, -inf where masked.
        k: list length; fewer items give shorter lists.
    """
    k = min(k, scores.shape[1])
    best, items = torch.topk(scores, min(k + 1, scores.shape[1]), dim=1)
    # topk leaves open which of several equal scores it takes; rows where that matters are ranked on unique keys. One
    # score beyond the list tells whether its last place is contested.
    tied = (best[:, 1:] == best[:, :-1]).any(1)
    best, items = best[:, :k].contiguous(), items[:, :k].contiguous()
    if tied.any():
        rows = torch.nonzero(tied).squeeze(1)
        index = torch.arange(scores.shape[1], device=scores.device)
        chosen = torch.topk(_ordered_integers(scores[rows]) * scores.shape[1] - index, k, dim=1).indices
        items[rows], best[rows] = chosen, scores[rows].gather(1, chosen)
    return best, items


def _ordered_integers(scores: Tensor) -> Tensor:
    """int64 keys in the order of the float32 scores: negative floats count backwards in their bit pattern."""
    bits = scores.float().contiguous().view(torch.int32).to(torch.int64)
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _reported(
    masked: Iterator[_Scored], users: NDArray[np.int64], tested: ResidentInteractions, report: RatingReport
) -> Iterator[_Scored]:
    for start, batch, scores in masked:
        entries = tested.batch(users[start : start + len(batch)])
        report.add(scores, entries.rows, entries.items, entries.values)
        yield start, batch, scores


@torch.no_grad()
def _scored(
    model: Recommender, history: ResidentInteractions, users: NDArray[np.int64], exclude: ResidentInteractions
) -> Iterator[_Scored]:
    was_training = model.training
    model.eval()
    at_once = max(1, min(_USERS_AT_ONCE, _SCORES_AT_ONCE // history.n_items))
    for start in range(0, len(users), at_once):
        chunk = users[start : start + at_once]
        batch = history.batch(chunk)
        scores = model.scores(batch).float()
        masked = batch if exclude is history else exclude.batch(chunk)
        scores[masked.rows, masked.items] = -torch.inf
        yield start, batch, scores
    model.train(was_training)
