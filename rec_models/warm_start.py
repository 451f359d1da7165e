"""A model that begins where an earlier one ended: rows of items and users are carried over by their ids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rec_models.errors import BundleError
from rec_models.recommender import ClosedFormRecommender, Recommender

WEIGHTS, IDS = "warm.safetensors", "warm.json"


def begin_from(model: Recommender, directory: Path) -> dict[str, str]:
    """Puts the earlier weights of a bundle into the model; what was carried over, in words, or nothing without any.

    A parameter of which every axis is as long as before, or is one of items or of users, takes over the rows of all ids
    that are still there. New ids, and parameters of another shape, keep their fresh values; the optimiser starts anew.

    Source: ours.

    Raises:
        BundleError: an axis cannot be told to be one of items, of users, or neither.
    """
    if not (directory / WEIGHTS).is_file():
        return {}
    if isinstance(model, ClosedFormRecommender):
        return {"warm start": "none: the model is solved, not trained"}
    from safetensors.torch import load_file

    earlier = json.loads((directory / IDS).read_text("utf-8"))
    moves, kept = {}, {}
    for kind in ("item", "user"):
        before, now = earlier[f"{kind}_ids"], json.loads((directory / f"{kind}_ids.json").read_text("utf-8"))
        moves[len(before), len(now)], kept[kind] = _common(before, now)
    settings = json.loads((directory / "config.json").read_text("utf-8"))
    _refuse_doubt(directory, settings, moves)
    weights, taken = load_file(directory / WEIGHTS), 0
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if name in weights:
            taken += _carry(parameter, weights[name], moves)
    said = f"{kept['item']:,} of {settings['n_items']:,} items, {kept['user']:,} of {settings['n_users']:,} users"
    return {"warm start": f"model {earlier['model_id']}: {said}, {taken} of {len(parameters)} parameters"}


def _common(before: Sequence[str], now: Sequence[str]) -> tuple[tuple[Tensor, Tensor], int]:
    """Places of the ids that are in both, earlier and now, and how many there are."""
    place = {identifier: index for index, identifier in enumerate(before)}
    pairs = [(place[identifier], index) for index, identifier in enumerate(now) if identifier in place]
    earlier, later = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return (earlier, later), len(pairs)


@torch.no_grad()
def _carry(parameter: Tensor, weight: Tensor, moves: Mapping[tuple[int, int], tuple[Tensor, Tensor]]) -> bool:
    """Whether the parameter took anything over."""
    if parameter.ndim != weight.ndim:
        return False
    rows = []
    for before, now in zip(weight.shape, parameter.shape, strict=True):
        if (before, now) in moves:
            rows.append(moves[before, now])
        elif before == now:
            rows.append((torch.arange(now), torch.arange(now)))
        else:
            return False
    if not rows:
        parameter.copy_(weight)
        return True
    parameter[_grid([now for _, now in rows])] = weight[_grid([before for before, _ in rows])].to(parameter)
    return True


def _grid(places: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The places as indices of a block: one axis each."""
    return tuple(
        one.reshape([-1 if axis == own else 1 for axis in range(len(places))]) for own, one in enumerate(places)
    )


def _refuse_doubt(directory: Path, settings: Mapping[str, Any], moves: Mapping[tuple[int, int], Any]) -> None:
    """Nothing, when the length of an axis tells what it is an axis of."""
    if len(moves) < 2:
        problem = "there are as many items as users, before and now, so their rows cannot be told apart"
        raise BundleError(str(directory), f"no warm start: {problem}; set training.warm_start = false")
    widths = {before for before, now in moves if before == now} & set(_numbers(settings["model"]))
    if widths:
        problem = f"a layer of the model is as wide as there are items or users ({min(widths):,})"
        raise BundleError(str(directory), f"no warm start: {problem}; set training.warm_start = false")


def _numbers(tree: Any) -> list[int]:
    if isinstance(tree, Mapping):
        return [number for value in tree.values() for number in _numbers(value)]
    if isinstance(tree, list | tuple):
        return [number for value in tree for number in _numbers(value)]
    return [tree] if isinstance(tree, int) else []
