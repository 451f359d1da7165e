"""Training as a process of its own: `python -m rec_models train BUNDLE` prints one JSON object a line.

Events: start, resume, discarded, epoch, valid, test, rescored, done, error. Needs torch, numpy, scipy, safetensors and
pydantic alone.
"""

from __future__ import annotations

import argparse
import json
import os
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
    given = _parser().parse_args(arguments)
    given.written = sys.argv[1:] if arguments is None else arguments
    try:
        return _run(given)
    except RecModelsError as error:
        if os.environ.get("RANK", "0") != "0":
            return error.exit_code  # the leader says it
        emit({"event": "error", "error": type(error).__name__, "message": str(error), "exit_code": error.exit_code})
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rec_models", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("train", "train the bundle's model, write its checkpoint"),
        ("evaluate", "measure the checkpoint again"),
        ("recommend", "the best unseen items of every user"),
        ("latent", "the posterior means of every user"),
        ("sharing", "distances of users in rows and in latent, radii of sharing, drift of neighbours under masks"),
        ("masks", "how far masks move the posterior mean of a user"),
        ("spread", "how far posteriors lie apart and what that costs"),
        ("cohorts", "users of a few activities in the latent"),
        ("vectors", "the final vectors of items, as items.npy with its hash"),
        ("rescore", "an older model beside this one, on this one's test users"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("bundle", type=Path)
        command.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
        command.add_argument("--threads", type=int, default=0, help="compute threads; 0 leaves it to torch")
        command.add_argument("--cache", type=Path, help="where graphs and the like are kept for the next process")
        if name == "train":
            how = "processes that train it together, started by torchrun; they share a batch's `training.batch_parts`"
            command.add_argument("--processes", type=int, default=1, help=f"{how} (default: 1)")
        if name == "recommend":
            command.add_argument("--k", type=int, default=20, help="list length (default: 20)")
            how = "what scores items nobody took in training: their text, or the model (default: text)"
            command.add_argument("--cold-items", choices=("text", "model"), default="text", help=how)
            only = ".npz of int64 indices: `users` whose lists are made, `items` that may be in them (default: all)"
            command.add_argument("--only", type=Path, help=only)
        if name in ("sharing", "masks"):
            command.add_argument("--keep", type=float, default=0.5, help="share of a row a mask keeps (default: 0.5)")
        if name == "masks":
            command.add_argument("--masks", type=int, default=50, help="masks of every user (default: 50)")
        if name == "cohorts":
            command.add_argument("--counts", default="5,50,350", help="items in a row of each (default: 5,50,350)")
        if name == "rescore":
            command.add_argument("--older", type=Path, required=True, help="the bundle of the other trained model")
        if name == "vectors":
            command.add_argument("--out", type=Path, required=True, help="the folder")
        elif name not in ("train", "evaluate"):
            command.add_argument("--out", type=Path, required=True, help="where the .npz goes")
    return parser


def _run(given: argparse.Namespace) -> int:
    import torch

    from rec_models.bundle import Bundle
    from rec_models.memory import keep_freed_memory

    keep_freed_memory()
    if given.threads:
        torch.set_num_threads(given.threads)
    bundle = Bundle.open(given.bundle, given.cache)
    if given.command == "train":
        _train(bundle, given)
    elif given.command == "evaluate":
        _evaluate(bundle, given.device)
    elif given.command == "latent":
        _latent(bundle, given)
    elif given.command == "vectors":
        _vectors(bundle, given)
    elif given.command == "rescore":
        _rescore(bundle, given)
    elif given.command == "recommend":
        _recommend(bundle, given)
    else:
        _look(bundle, given)
    return 0


def _train(bundle: Any, given: argparse.Namespace) -> None:
    from rec_models.parts import Team, joined
    from rec_models.settings import parse_training
    from rec_models.training import train

    if given.processes > 1 and "WORLD_SIZE" not in os.environ:
        Team(0, given.processes).share(
            parse_training(bundle.config["training"]).batch_parts
        )  # refused before any starts
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={given.processes}"]
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *torchrun, "-m", "rec_models", *given.written])
    with joined() as team:
        train(bundle, emit, device=given.device, team=team)


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


def _look(bundle: Any, given: argparse.Namespace) -> None:
    from rec_models import collaboration
    from rec_models.interactions import ResidentInteractions
    from rec_models.training import load_trained, resolve_device

    on = resolve_device(given.device)
    looked_at = (
        load_trained(bundle, on),
        ResidentInteractions(bundle.inputs().known, on),
        bundle.config["model"]["name"],
    )
    if given.command == "sharing":
        found = collaboration.distances_and_radii(*looked_at, keep=given.keep)
    elif given.command == "masks":
        found = collaboration.drift_under_masks(*looked_at, masks=given.masks, keep=given.keep)
    elif given.command == "spread":
        found = collaboration.spread(*looked_at)
    else:
        found = collaboration.cohorts(*looked_at, counts=[int(count) for count in given.counts.split(",")])
    _save(given.out, found)
    emit({"event": "done", "arrays": {name: list(values.shape) for name, values in found.items()}})


def _recommend(bundle: Any, given: argparse.Namespace) -> None:
    from rec_models.evaluation import recommend
    from rec_models.explanation import Explainable
    from rec_models.interactions import ResidentInteractions
    from rec_models.measured import all_rows, ranked
    from rec_models.training import load_trained, resolve_device

    on = resolve_device(given.device)
    # A published list is made from all that is known of a user, and never repeats any of it.
    inputs = bundle.inputs()
    shown, masked = (ResidentInteractions(rows, on) for rows in all_rows(bundle, inputs))
    trained = load_trained(bundle, on)
    model = ranked(trained, inputs, given.cold_items)
    items, scores = recommend(model, shown, masked, given.k, **_only(given.only))
    _save(given.out, {"item_index": items, "score": scores})
    emit({"event": "done", "users": len(items), "k": given.k, "has_factors": isinstance(trained, Explainable)})


def _rescore(bundle: Any, given: argparse.Namespace) -> None:
    from rec_models.bundle import Bundle
    from rec_models.rescoring import rescored
    from rec_models.training import resolve_device

    found = rescored(bundle, Bundle.open(given.older, given.cache), resolve_device(given.device))
    both = {"newer": found.newer, "older": found.older}
    values = {f"{which}/{name}": of for which, one in both.items() for name, of in one.values.items()}
    _save(given.out, {"user_index": found.newer.users, **values})
    covered = {f"{which}_coverage": {str(k): v for k, v in one.coverage.items()} for which, one in both.items()}
    counts = {"users": len(found.newer.users), "unknown": found.n_unknown, "shown": found.n_shown}
    emit({"event": "rescored", **counts, **covered})


def _only(path: Path | None) -> dict[str, Any]:
    """Which users and which items `recommend` is restricted to; nothing without a file."""
    import numpy as np

    if path is None:
        return {}
    with np.load(path, allow_pickle=False) as stored:
        named = {"users": "users", "items": "allowed"}
        return {argument: stored[name] for name, argument in named.items() if name in stored}


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
