"""Item clusters from the item vectors of a model that was trained before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flows.errors import SettingValueError
from flows.steps.training_process import place_of_work, run_rec_models
from flows.steps.verified import verified_metrics, verify_files
from flows.workspace import Workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray


def item_clusters_of(workspace: Workspace, model_id: str, clusters: int, seed: int, label: str) -> NDArray[np.int64]:
    """(n_items,) cluster of each item by the vectors of the trained model `model_id`.

    Args:
        label: of the model that wants the clusters, for errors.

    Raises:
        SettingValueError: the vectors fall into fewer clusters.
        CheckpointError, TrainingFailedError: of the model the vectors come from.
    """
    from rec_models import item_clusters

    vectors = item_vectors(workspace, model_id)
    try:
        return item_clusters(vectors, clusters, seed=seed)
    except ValueError as error:
        raise SettingValueError(
            f"clusters of {label}", clusters, f"of the item vectors of {model_id}: {error}"
        ) from None


def item_vectors(workspace: Workspace, model_id: str) -> NDArray[np.float32]:
    """(n_items, width) final vectors of a trained model; written beside it once, hashed whenever they are read."""
    directory = workspace.warehouse.inside("models", model_id)
    folder = directory / "vectors"
    if not (folder / "sha256.json").is_file():
        verified_metrics(directory, model_id)
        arguments = ["vectors", str(directory), "--out", str(folder), *place_of_work(workspace)]
        run_rec_models(f"lightgcn ({model_id})", arguments, directory / "vectors.log", lambda event: None)
    verify_files(folder, model_id)
    return np.load(folder / "items.npy", allow_pickle=False)
