"""What a trained model is measured from and on, written beside it: the same in training and in every later look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from rec_models.bundle import SEEN, Bundle
from rec_models.checkpoints import write_atomically
from rec_models.cold import through_text
from rec_models.evaluation import EvaluationConfig, evaluate
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.recommender import Recommender
from rec_models.semantic import ModelInputs
from rec_models.settings import parse_config


class Histories(NamedTuple):
    """The rows of a bundle on one device, one object where they are alike.

    Attributes:
        train: what is learnt from.
        known: what each user is scored from; the fold-in row of a user who is held out.
        masked: what no list may hold; more than `known` where only liked items are shown to a model.
    """

    train: ResidentInteractions
    known: ResidentInteractions
    masked: ResidentInteractions


def histories_of(bundle: Bundle, inputs: ModelInputs, device: torch.device) -> Histories:
    """The rows that models are trained, scored and masked by."""
    train = ResidentInteractions(inputs.train, device)
    known = train if inputs.known is inputs.train else ResidentInteractions(inputs.known, device)
    seen = bundle.part(SEEN)
    return Histories(train, known, ResidentInteractions(seen, device) if seen.nnz else known)


def all_rows(bundle: Bundle, inputs: ModelInputs) -> tuple[InteractionMatrix, InteractionMatrix]:
    """What a model is shown of every part to recommend from, in the values it was trained on, and what is masked."""
    tested = [bundle.part(part) for part in ("valid", "test")]
    masked = bundle.part(SEEN).union(inputs.known, *tested)
    if not parse_config(bundle.config["model"]).asks_for_ratings:
        liked = bundle.config["evaluation"].get("relevant_rating")
        tested = [(part if liked is None else part.rated_at_least(liked)).as_ones() for part in tested]
    return inputs.known.union(*tested), masked


def ranked(model: Recommender, inputs: ModelInputs, cold_items: str) -> Recommender:
    """The model as it is evaluated or recommends from: cold items scored by the `model` or through their `text`."""
    return through_text(model, inputs) if cold_items == "text" else model


def write_evaluation(
    bundle: Bundle, model: Recommender, histories: Histories, settings: EvaluationConfig
) -> dict[str, Any]:
    """Evaluates on validation and test, writes `per_user.npz`, returns the means."""
    train, known, masked = histories
    found = {}
    for part in ("valid", "test"):
        matrix = bundle.part(part)
        found[part] = evaluate(
            model, known, matrix, settings, part=part, exclude=masked, train=train, distributions=True
        )
    arrays = {f"{part}_user_index": result.users for part, result in found.items()}
    for part, result in found.items():
        arrays |= {f"{part}/{name}": values.astype(np.float32) for name, values in result.values.items()}
    write_atomically(bundle.checkpoint / "per_user.npz", lambda temporary: _save_npz(temporary, arrays))
    return {
        part: result.means() | {f"coverage@{k}": share for k, share in result.coverage.items()}
        for part, result in found.items()
    }


def _save_npz(path: Any, arrays: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as stream:  # an open file: np.savez would append .npz to a name
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
