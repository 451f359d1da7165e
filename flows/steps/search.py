"""Which combination of a search space is tried next, and how many may be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from flows.model_errors import GridTooLargeError, MissingOptunaError
from flows.search_space import SearchSpace
from flows.settings import canonical

Method = Literal["grid", "random", "tpe"]
METHODS: tuple[Method, ...] = ("grid", "random", "tpe")
# Combinations of a space that are put in random order before the first is tried; above, they are drawn one by one.
_SHUFFLED = 100_000
# Proposals in a row that were tried before, after which a search has nothing new.
_PATIENCE = 200


@dataclass(frozen=True)
class Budget:
    """What every model of one call may spend: trials, or minutes of training with one trial allowed to run over."""

    trials: int | None = None
    minutes: float | None = None

    def allows(self, n_trials: int, seconds: float) -> bool:
        """Whether another trial may begin."""
        if self.trials is not None:
            return n_trials < self.trials
        return seconds < 60 * (self.minutes or 0)

    def words(self) -> str:
        """The budget as tables name it."""
        return f"{self.trials} trials" if self.trials is not None else f"{self.minutes:g} min of training"


class Search(Protocol):
    """What decides which combination comes next. The same answers bring the same questions, so a search resumes."""

    def propose(self) -> dict[str, object] | None:
        """The next combination; None where there is nothing new to try."""
        ...

    def learn(self, valid: float | None) -> None:
        """What the last proposal was worth; None where it failed."""
        ...


class ListedSearch:
    """Combinations in an order that does not depend on what they were worth."""

    def __init__(self, combinations: Iterator[dict[str, object]]) -> None:
        self._combinations = combinations

    def propose(self) -> dict[str, object] | None:
        """The next one of the list."""
        return next(self._combinations, None)

    def learn(self, valid: float | None) -> None:
        """Nothing: the order is fixed."""


class StartingSearch:
    """A search whose first trial is the model as it stands, so that what is chosen is never worse than it."""

    def __init__(self, search: Search) -> None:
        self._search, self._n_asked = search, 0

    def propose(self) -> dict[str, object] | None:
        """No changes at first, then what the search proposes."""
        self._n_asked += 1
        return {} if self._n_asked == 1 else self._search.propose()

    def learn(self, valid: float | None) -> None:
        """Hands on what the search asked for; the start lies outside its space."""
        if self._n_asked > 1:
            self._search.learn(valid)


class TreeParzenSearch:
    """Optuna's tree-structured Parzen estimator, asked and told.

    Raises:
        MissingOptunaError: the extra `hpo` is not installed.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        try:
            import optuna
        except ImportError:
            raise MissingOptunaError from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._failed = optuna.trial.TrialState.FAIL
        self._space, self._tried = space, dict[str, float | None]()
        self._study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        # by its place in the list, since optuna knows neither lists nor tables as values
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {
            axis.option: optuna.distributions.CategoricalDistribution(range(len(axis.values)))
            if axis.values
            else optuna.distributions.IntDistribution(math.ceil(axis.low), math.floor(axis.high), log=axis.log)
            if axis.whole
            else optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)
            for axis in space.axes
        }

    def propose(self) -> dict[str, object] | None:
        """A combination that was not proposed before; what is proposed again is answered from memory."""
        for _ in range(_PATIENCE):
            self._asked = self._study.ask(self._distributions)
            drawn = self._asked.params
            values = {
                axis.option: axis.values[drawn[axis.option]] if axis.values else axis.rounded(drawn[axis.option])
                for axis in self._space.axes
            }
            self._key = canonical(values)
            if self._key not in self._tried:
                return values
            self.learn(self._tried[self._key])
        return None

    def learn(self, valid: float | None) -> None:
        """Tells the estimator."""
        self._tried[self._key] = valid
        if valid is None:
            self._study.tell(self._asked, state=self._failed)
        else:
            self._study.tell(self._asked, valid)


def open_search(method: Method, space: SearchSpace, budget: Budget, seed: int) -> Search:
    """A search of a space; a random or estimated one tries the model as it stands first.

    Raises:
        GridTooLargeError: a grid has ranges, or more combinations than the budget has trials.
        MissingOptunaError: `tpe` without optuna.
    """
    if method == "tpe":
        return StartingSearch(TreeParzenSearch(space, seed))
    if method == "random":
        return StartingSearch(ListedSearch(drawn(space, seed)))
    size = space.size()
    if size is None or (budget.trials is not None and size > budget.trials):
        raise GridTooLargeError(size, budget.words())
    return ListedSearch(space.combinations())


def drawn(space: SearchSpace, seed: int) -> Iterator[dict[str, object]]:
    """Different combinations in seeded random order; all of them where there is no range."""
    rng = np.random.default_rng(seed)
    size = space.size()
    if size is not None and size <= _SHUFFLED:
        every = list(space.combinations())
        yield from (every[place] for place in rng.permutation(size))
        return
    seen: set[str] = set()
    stale = 0
    while stale < _PATIENCE:
        places = rng.random(len(space.axes))
        values = {
            axis.option: axis.values[int(place * len(axis.values))] if axis.values else axis.at(float(place))
            for axis, place in zip(space.axes, places, strict=True)
        }
        key = canonical(values)
        stale = stale + 1 if key in seen else 0
        if key not in seen:
            seen.add(key)
            yield values
