"""A trained model's files, hashed before anything of them is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.errors import CheckpointError


def verified_metrics(directory: Path, model_id: str) -> dict[str, Any]:
    """metrics.json of a trained model, every file of its checkpoint hashed first.

    Raises:
        CheckpointError: a file is missing, has other bytes, belongs to another model, or a metric is not finite.
    """
    checkpoint = directory / "checkpoint"
    verify_files(checkpoint, model_id)
    metrics = json.loads((checkpoint / "metrics.json").read_text(encoding="utf-8"))
    _refuse_foreign(directory, model_id, metrics)
    for part in ("valid", "test"):
        for name, value in metrics[part].items():
            if value is None or not -1e9 < value < 1e9:
                raise CheckpointError(model_id, "checkpoint/metrics.json", f"{part} {name} is {value}")
    return metrics


def _refuse_foreign(directory: Path, model_id: str, metrics: Mapping[str, Any]) -> None:
    """A checkpoint is whole by its own sums wherever it is copied to; only its bundle says whose it is."""
    from warehouse import file_sha256

    recorded = directory / "sha256.json"
    if not recorded.is_file():
        raise CheckpointError(model_id, str(recorded), "it is missing, so nothing says what the model was trained on")
    got, expected = str(metrics.get("bundle", "none")), file_sha256(recorded)
    if got != expected:
        problem = f"it was trained on the bundle {got[:12]}, expected {expected[:12]}, the one beside it"
        raise CheckpointError(model_id, str(directory / "checkpoint" / "metrics.json"), problem)
    about = json.loads((directory / "config.json").read_text(encoding="utf-8")).get("about", {})
    if about.get("model_id") != model_id:
        problem = f"it is the bundle of model {about.get('model_id')}, expected {model_id}"
        raise CheckpointError(model_id, str(directory / "config.json"), problem)


def verify_files(folder: Path, model_id: str) -> int:
    """How many files of a folder have the bytes its sha256.json says.

    Raises:
        CheckpointError: names the first one that has not.
    """
    from warehouse import file_sha256

    recorded = folder / "sha256.json"
    if not recorded.is_file():
        raise CheckpointError(model_id, str(recorded), "it is missing, so the model was never finished")
    sums = json.loads(recorded.read_text(encoding="utf-8"))
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(model_id, str(path), "it is missing")
        got = file_sha256(path)
        if got != expected:
            raise CheckpointError(model_id, str(path), f"its sha256 is {got[:12]}…, expected {expected[:12]}…")
    return len(sums)
