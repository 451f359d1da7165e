"""One model trained again from the bundle beside it, nothing of the first training at hand."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from typing import Any

from flows.steps.train import PlannedModel, follow
from flows.steps.training_process import place_of_work, run_rec_models
from flows.steps.verified import verified_metrics
from flows.workspace import Workspace


def train_again(workspace: Workspace, model: PlannedModel) -> dict[str, Any]:
    """What a second training gives beside the first; equal bytes are promised for one device and number of threads.

    Raises:
        CheckpointError: the first training's files are not what it wrote.
        TrainingFailedError: the process ended badly.
    """
    from warehouse import make_directory

    first = workspace.warehouse.inside("models", model.model_id)
    before = verified_metrics(first, model.model_id)
    again = make_directory(workspace.warehouse.inside("staging", f"reproduce-{model.model_id}"))
    try:
        for name in [*json.loads((first / "sha256.json").read_text(encoding="utf-8")), "sha256.json"]:
            make_directory((again / name).parent)
            with suppress(FileExistsError):  # a reproduction that was killed left it; its training is gone on with
                os.link(first / name, again / name)
        arguments = ["train", str(again), *place_of_work(workspace)]
        trainer = workspace.trainer or run_rec_models
        trainer(model.title(), arguments, again / "train.log", follow(workspace, model, "reproduce"))
        after = verified_metrics(again, model.model_id)
        weights = [
            json.loads((folder / "checkpoint" / "sha256.json").read_text(encoding="utf-8"))["model.safetensors"]
            for folder in (first, again)
        ]
    finally:
        shutil.rmtree(again, ignore_errors=True)
    difference = max(abs(after["test"][name] - value) for name, value in before["test"].items())
    found = {"label": model.label, "model_id": model.model_id, "same_weights": weights[0] == weights[1]}
    said = "the same weights" if found["same_weights"] else f"other weights; test metrics differ by {difference:.2g}"
    workspace.progress.note(f"reproduce: {model.label} seed {model.seed}: {said}")
    return {**found, "largest_difference": difference}
