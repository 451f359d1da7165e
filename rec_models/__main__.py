"""Training as a process of its own: `python -m rec_models train BUNDLE` prints one JSON object a line.

Events: start, resume, discarded, epoch, valid, test, done, error. Needs torch, numpy, scipy, safetensors and pydantic
alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rec_models.errors import RecModelsError


def emit(event: Mapping[str, Any]) -> None:
    """One JSON line on stdout, at once."""
    print(json.dumps(dict(event)), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Exit code of one command."""
    parser = argparse.ArgumentParser(prog="python -m rec_models", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("train", "train the bundle's model, write its checkpoint"),
        ("evaluate", "measure the checkpoint again"),
        ("recommend", "the best unseen items of every user"),
        ("latent", "the posterior means of every user"),
        ("vectors", "the final vectors of items, as items.npy with its hash"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("bundle", type=Path)
        command.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
        command.add_argument("--threads", type=int, default=0, help="compute threads; 0 leaves it to torch")
        command.add_argument("--cache", type=Path, help="where graphs and the like are kept for the next process")
        if name == "recommend":
            command.add_argument("--k", type=int, default=20, help="list length (default: 20)")
            how = "what scores items nobody took in training: their text, or the model (default: text)"
            command.add_argument("--cold-items", choices=("text", "model"), default="text", help=how)
        if name in ("recommend", "latent"):
            command.add_argument("--out", type=Path, required=True, help="where the .npz goes")
        elif name == "vectors":
            command.add_argument("--out", type=Path, required=True, help="the folder")
    given = parser.parse_args(arguments)
    try:
        return _run(given)
    except RecModelsError as error:
        emit({"event": "error", "error": type(error).__name__, "message": str(error), "exit_code": error.exit_code})
        return error.exit_code


def _run(given: argparse.Namespace) -> int:
    import torch

    from rec_models.bundle import Bundle
    from rec_models.memory import keep_freed_memory
    from rec_models.training import train

    keep_freed_memory()
    if given.threads:
        torch.set_num_threads(given.threads)
    bundle = Bundle.open(given.bundle, given.cache)
    if given.command == "train":
        train(bundle, emit, device=given.device)
    elif given.command == "evaluate":
        _evaluate(bundle, given.device)
    elif given.command == "latent":
        _latent(bundle, given)
    elif given.command == "vectors":
        _vectors(bundle, given)
    else:
        _recommend(bundle, given)
    return 0


def _evaluate(bundle: Any, device: str) -> None:
    from rec_models.checkpoints import seal, write_json
    from rec_models.measured import histories_of, ranked, write_evaluation
    from rec_models.settings import parse_evaluation
    from rec_models.training import load_trained, resolve_device

    on, settings = resolve_device(device), parse_evaluation(bundle.config["evaluation"])
    inputs = bundle.inputs()
    model = ranked(load_trained(bundle, on), inputs, settings.cold_items)
    measured = write_evaluation(bundle, model, histories_of(bundle, inputs, on), settings)
    path = bundle.checkpoint / "metrics.json"
    write_json(path, json.loads(path.read_text("utf-8")) | measured)
    seal(bundle.checkpoint)
    emit({"event": "test", "metrics": measured["test"]})


def _latent(bundle: Any, given: argparse.Namespace) -> None:
    from rec_models.analysis import posterior_means
    from rec_models.interactions import ResidentInteractions
    from rec_models.training import load_trained, resolve_device

    on = resolve_device(given.device)
    history = ResidentInteractions(bundle.inputs().known, on)
    means = posterior_means(load_trained(bundle, on), history, bundle.config["model"]["name"])
    _save(given.out, means)
    emit({"event": "done", "users": history.n_users, "latent_dim": means["decoded"].shape[1], "parts": list(means)})


def _recommend(bundle: Any, given: argparse.Namespace) -> None:
    from rec_models.evaluation import recommend
    from rec_models.interactions import ResidentInteractions
    from rec_models.measured import all_rows, ranked
    from rec_models.training import load_trained, resolve_device

    on = resolve_device(given.device)
    # A published list is made from all that is known of a user, and never repeats any of it.
    inputs = bundle.inputs()
    shown, masked = (ResidentInteractions(rows, on) for rows in all_rows(bundle, inputs))
    model = ranked(load_trained(bundle, on), inputs, given.cold_items)
    items, scores = recommend(model, shown, masked, given.k)
    _save(given.out, {"item_index": items, "score": scores})
    emit({"event": "done", "users": len(items), "k": given.k})


def _vectors(bundle: Any, given: argparse.Namespace) -> None:
    import numpy as np
    import torch

    from rec_models.checkpoints import seal, write_atomically
    from rec_models.errors import NoVectorsError
    from rec_models.graph import GraphRecommender
    from rec_models.training import load_trained, resolve_device

    model = load_trained(bundle, resolve_device(given.device))
    if not isinstance(model, GraphRecommender):
        raise NoVectorsError(bundle.config["model"]["name"])
    with torch.no_grad():
        items = model.vectors()[1].float().cpu().numpy()

    def save(path: Path) -> None:
        with path.open("wb") as stream:
            np.save(stream, items)

    given.out.mkdir(exist_ok=True)
    write_atomically(given.out / "items.npy", save)
    seal(given.out)
    emit({"event": "done", "items": len(items), "dim": items.shape[1]})


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    from rec_models.checkpoints import write_atomically

    def save(partial: Path) -> None:
        with partial.open("wb") as stream:
            np.savez(stream, **arrays)

    write_atomically(path, save)


if __name__ == "__main__":
    sys.exit(main())
