"""Champion and challenger on the same test users: from what both stored, or by asking the champion again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.errors import CheckpointError
from flows.promotion_errors import ChampionLostError
from flows.promotion_gate import Duel
from flows.steps.champions import Champion
from flows.steps.scores import cutoff
from flows.steps.training_process import place_of_work, run_rec_models
from flows.steps.verified import verified_metrics
from flows.workspace import Workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from warehouse import Warehouse

# Files of a bundle that two models must share for what they stored to be comparable as it is.
_WORLD = ("train.", "valid.", "test.", "fold_in.", "user_ids.json", "item_ids.json")


def refuse_lost(warehouse: Warehouse, champion: Champion) -> None:
    """Nothing, when every file of the champion is what training wrote.

    Raises:
        ChampionLostError: one is missing or has other bytes.
    """
    for model_id in champion.model_ids:
        try:
            verified_metrics(warehouse.inside("models", model_id), model_id)
        except (CheckpointError, OSError, ValueError, KeyError) as error:
            problem = error.problem if isinstance(error, CheckpointError) else str(error)
            raise ChampionLostError(champion.label, model_id, problem) from error


def duel(workspace: Workspace, challenger: Champion, champion: Champion, metric: str) -> Duel:
    """The challenger's gain in a metric, paired over test users that both know; users' values are means over seeds.

    A champion of another split, of other items or of other users is scored again on the challenger's test part.
    """
    ours, theirs = challenger.model_ids, champion.model_ids
    compared = []
    for place in range(max(len(ours), len(theirs))):
        pair = ours[place % len(ours)], theirs[place % len(theirs)]
        compared.append(_stored(workspace.warehouse, *pair, metric) or _asked_again(workspace, *pair, metric))
    both = [np.mean([values[which] for values, _ in compared], axis=0) for which in (0, 1)]
    facts = {name: float(np.mean([said[name] for _, said in compared])) for name in ("coverage", "champion_coverage")}
    counts = {name: int(compared[0][1].get(name, 0)) for name in ("n_unknown", "n_shown")}
    return Duel(metric, *_paired(both[0], both[1]), n_users=len(both[0]), **facts, **counts)


_Compared = tuple[tuple["NDArray[np.float64]", "NDArray[np.float64]"], dict[str, float]]


def _paired(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> tuple[float, float, float, float, float]:
    """Both means, the difference, and its interval; NaN where no two users have a number."""
    from rec_models import RecModelsError, paired_comparison

    means = [float(values.mean()) if len(values) else float("nan") for values in (ours, theirs)]
    try:
        found = paired_comparison(ours, theirs)
    except RecModelsError:
        return (*means, *(float("nan"),) * 3)  # type: ignore[return-value]
    return means[0], means[1], found.difference, found.low, found.high


def _stored(warehouse: Warehouse, challenger: str, champion: str, metric: str) -> _Compared | None:
    """What the two wrote when they were tested, where that was on the same users and items, measured alike."""
    folders = [warehouse.inside("models", model_id) for model_id in (challenger, champion)]
    worlds, measures = zip(*map(_world, folders), strict=True)
    if worlds[0] != worlds[1] or measures[0] != measures[1]:
        return None
    values, covered = [], []
    for folder, model_id in zip(folders, (challenger, champion), strict=True):
        with np.load(folder / "checkpoint" / "per_user.npz", allow_pickle=False) as stored:
            values.append(stored[f"test/{metric}"].astype(np.float64))
        test = verified_metrics(folder, model_id)["test"]
        shares = {name.partition("@")[2]: value for name, value in test.items() if name.startswith("coverage@")}
        covered.append(_at_cutoff(shares, metric))
    return (values[0], values[1]), {"coverage": covered[0], "champion_coverage": covered[1]}


def _world(folder: Path) -> tuple[dict[str, str], Any]:
    sums = json.loads((folder / "sha256.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {name: found for name, found in sums.items() if name.startswith(_WORLD)}, config["evaluation"]


def _asked_again(workspace: Workspace, challenger: str, champion: str, metric: str) -> _Compared:
    from warehouse import make_directory

    warehouse = workspace.warehouse
    workspace.progress.note(f"promote: the champion {champion} is measured on today's test users")
    newer, older = (warehouse.inside("models", model_id) for model_id in (challenger, champion))
    folder = make_directory(warehouse.inside("staging", f"promote-{workspace.run_id}"))
    out = folder / f"{challenger}-{champion}.npz"
    said: dict[str, Any] = {}
    arguments = ["rescore", str(newer), "--older", str(older), "--out", str(out), *place_of_work(workspace)]
    run_rec_models(champion, arguments, newer / "promote.log", said.update)
    with np.load(out, allow_pickle=False) as stored:
        values = tuple(stored[f"{which}/{metric}"].astype(np.float64) for which in ("newer", "older"))
    shares = {which: _at_cutoff(said[f"{which}_coverage"], metric) for which in ("newer", "older")}
    counts = {"n_unknown": said["unknown"], "n_shown": said["shown"]}
    covered = {"coverage": shares["newer"], "champion_coverage": shares["older"]}
    return (values[0], values[1]), {**covered, **counts}


def _at_cutoff(shares: Mapping[str, float], metric: str) -> float:
    """Coverage at the metric's own cut-off, else at the longest list it was measured at."""
    own = str(cutoff(metric))
    longest: Sequence[str] = sorted(shares, key=int)
    return float(shares.get(own, shares[longest[-1]])) if longest else 1.0
