"""The one training loop: seeds, early stopping, a guard against NaN, checkpoints that resume bit for bit."""

from __future__ import annotations

import math
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from rec_models.bundle import Bundle, sha256_of
from rec_models.checkpoints import (
    load_tensors,
    optimiser_tensors,
    restore_optimiser,
    save_tensors,
    seal,
    verify,
    write_json,
)
from rec_models.errors import BundleError, ForeignCheckpointError, NotFiniteError, UnknownDeviceError
from rec_models.evaluation import EvaluationConfig, evaluate
from rec_models.interactions import PairBatch, UserBatch, spread
from rec_models.measured import histories_of, ranked, write_evaluation
from rec_models.parts import Team, generator_name, generators, mean_terms, part_of, refuse_what_cannot_be_shared
from rec_models.recommender import (
    ClosedFormRecommender,
    GradientRecommender,
    ParameterGroup,
    Recommender,
    RecommenderConfig,
)
from rec_models.sampled import RowAdam
from rec_models.settings import parse_config, parse_evaluation, parse_training, refuse_protocol
from rec_models.training_config import TrainingConfig
from rec_models.warm_start import begin_from

Emit = Callable[[Mapping[str, Any]], None]

# Users that a model diagnoses itself on, spread evenly: what it keeps of them must fit in memory.
_USERS_DIAGNOSED = 16_384


@dataclass
class Progress:
    """Where a run stands; all that a resumed run has to know beside tensors."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = -1
    best_value: float = -math.inf
    stale: int = 0
    decays: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


def train(
    bundle: Bundle, emit: Emit, *, device: str = "auto", saves_every_s: float = 60.0, team: Team | None = None
) -> dict[str, Any]:
    """Trains the bundle's model, writes its checkpoint and returns its metrics.

    A run that was cut off goes on from its last saved state and ends with the weights it would have had.

    Args:
        emit: receives one mapping an event; see `python -m rec_models --help`.
        device: `auto` takes a GPU when there is one.
        saves_every_s: seconds between saved states; each holds the optimiser too, three times the model.
        team: the processes that train it together, of which the leader alone speaks, writes and gets the metrics.

    Raises:
        NotFiniteError: the loss became NaN or infinite; an earlier saved state, if there is one, is untouched.
        UnknownDeviceError: this machine does not have the device.
        PartsError: batches are cut into parts that the processes cannot share evenly, or that the model cannot learn
            from.
    """
    return _Run(bundle, emit, device, saves_every_s, team or Team()).complete()


def resolve_device(asked: str) -> torch.device:
    """`auto` is a GPU when there is one, else the CPU.

    Raises:
        UnknownDeviceError: torch does not know the device, or this machine does not have it.
    """
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise UnknownDeviceError(asked, str(error).splitlines()[0]) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UnknownDeviceError(asked, f"this machine has {torch.cuda.device_count()} GPUs that torch can use")
    return device


def load_trained(bundle: Bundle, device: torch.device) -> Recommender:
    """The bundle's model with the weights of its verified checkpoint."""
    verify(bundle.checkpoint)
    torch.manual_seed(bundle.config["seed"])
    model = parse_config(bundle.config["model"]).build(bundle.inputs()).served()
    tensors, _ = load_tensors(bundle.checkpoint / "model.safetensors", _belongs_to(bundle))
    model.load_state_dict(tensors)
    return model.to(device).eval()


def _belongs_to(bundle: Bundle) -> dict[str, str]:
    """What ties a checkpoint to its bundle: one hash over data, settings and seed."""
    return {"bundle": sha256_of(bundle.directory / "sha256.json")}


def _let_learn(groups: Iterable[ParameterGroup], batch: UserBatch | PairBatch) -> None:
    """Only groups whose turn it is ask for gradients: Adam passes over parameters that have none."""
    turn = batch.turn if isinstance(batch, UserBatch) else "all"
    for group in groups:
        for parameter in group.parameters:
            parameter.requires_grad_(group.learns(turn))


class _Run:
    def __init__(self, bundle: Bundle, emit: Emit, device: str, saves_every_s: float, team: Team) -> None:
        self.bundle, self.saves_every_s, self.team = bundle, saves_every_s, team
        self.emit: Emit = emit if team.leads else lambda event: None
        self.config: RecommenderConfig = parse_config(bundle.config["model"])
        self.training: TrainingConfig = parse_training(bundle.config["training"])
        self.evaluation: EvaluationConfig = parse_evaluation(bundle.config["evaluation"])
        self.seed: int = bundle.config["seed"]
        self.device = team.place(resolve_device(self.training.device if device == "auto" else device))
        self.n_parts = self.training.batch_parts
        self.own_parts = team.share(self.n_parts)
        self.precision = self.training.resolved_precision(self.device)
        self.belongs_to = _belongs_to(bundle)
        inputs = bundle.inputs()
        refuse_protocol(self.evaluation.protocol, inputs.fold_in is not None, {self.config.key()["name"]: self.config})
        torch.manual_seed(self.seed)  # initial weights; everything later draws from self.rngs
        self.model = self.config.build(inputs)
        refuse_what_cannot_be_shared(self.model, self.config.key()["name"], self.n_parts, team)
        self.warm = begin_from(self.model.served(), bundle.directory) if self.training.warm_start else {}
        self.model.to(self.device)
        self.ranked = ranked(self.model, inputs, self.evaluation.cold_items)
        self.rngs = generators(self.seed, self.n_parts, self.device)
        self.order = np.random.default_rng(self.seed)
        self.histories = histories_of(bundle, inputs, self.device)
        self.history = self.histories.train
        self.train_matrix = inputs.train
        self.valid = bundle.part("valid").of_some(self.training.validated_users)
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}

    def provenance(self) -> dict[str, str]:
        return {**self.bundle.provenance(), **self.model.provenance(), **self.warm}

    def complete(self) -> dict[str, Any]:
        self.bundle.checkpoint.mkdir(exist_ok=True)
        parameters = sum(weight.numel() for weight in self.model.parameters())
        start = {"event": "start", "model": self.config.name, "seed": self.seed, "device": str(self.device)}  # type: ignore[attr-defined]
        start |= {"provenance": self.provenance()}
        self.emit(start | {"parameters": parameters, "precision": self.precision, "epochs": self.training.epochs})
        began = time.monotonic()
        if not isinstance(self.model, ClosedFormRecommender):
            self._descend(cast(GradientRecommender, self.model))
        elif self.team.leads:
            self.model.fit(self.train_matrix)
            self.progress.seconds = time.monotonic() - began
        return self._finish(parameters) if self.team.leads else {}

    def _descend(self, model: GradientRecommender) -> None:
        optimiser = self._optimiser(model)
        self._resume(optimiser)
        saved_at = time.monotonic()
        while self.progress.epoch < self.training.epochs and self.progress.stale < self.training.patience:
            epoch = self.progress.epoch
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * self.training.learning_rate_decay**self.progress.decays
            row = self._epoch(model, optimiser, epoch)
            evaluated = epoch % self.training.evaluate_every == 0
            if evaluated:
                row |= self._validate(model, epoch)
            self.progress.history.append(row)
            self.progress.epoch += 1
            if evaluated and self.team.told(time.monotonic() - saved_at > self.saves_every_s):
                self._save_state(optimiser)
                saved_at = time.monotonic()
        model.load_state_dict(self.best)

    def _optimiser(self, model: GradientRecommender) -> RowAdam:
        """One Adam; a group without a learning rate or weight decay of its own takes those of the settings."""
        groups = []
        for _, parameters, rate, decay, betas in model.parameter_groups():
            rate = self.training.learning_rate if rate is None else rate
            decay = self.training.weight_decay if decay is None else decay
            step = {"lr": rate, "initial_lr": rate, "weight_decay": decay, "betas": betas}
            groups.append({"params": parameters} | step)
        return RowAdam(groups, fused=True)

    def _epoch(self, model: GradientRecommender, optimiser: torch.optim.Optimizer, epoch: int) -> dict[str, Any]:
        model.train()
        began = time.monotonic()
        totals: dict[str, Tensor] = {}
        users: Counter[str] = Counter()
        seen, groups = 0, model.parameter_groups()
        for batch in model.batches(self.history, self.order, self.training.batch_size):
            _let_learn(groups, batch)
            optimiser.zero_grad(set_to_none=True)
            loss = self.team.sum_gradients(list(model.parameters()), self._gradients(model, batch, totals, users))
            if loss.device.type == "cpu" and not math.isfinite(
                loss.item()
            ):  # on a GPU once an epoch: no waiting a step
                raise NotFiniteError(self.config.name, epoch, self.progress.step, "the loss")  # type: ignore[attr-defined]
            optimiser.step()
            self.progress.step += 1
            seen += len(batch)
        means = mean_terms(self.team.said_by_all([[name, float(totals[name]), users[name]] for name in totals]))
        mean_loss = sum(means.values()) if seen else math.nan
        if not math.isfinite(mean_loss) or not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
            raise NotFiniteError(self.config.name, epoch, self.progress.step, "the loss or a weight")  # type: ignore[attr-defined]
        seconds = time.monotonic() - began
        self.progress.seconds += seconds
        row = {"epoch": epoch, "loss": mean_loss, "terms": means, "seconds": seconds}
        rates = {"examples_per_s": seen / seconds, "learning_rate": optimiser.param_groups[0]["lr"]}
        self.emit({"event": "epoch"} | rates | row)
        return row

    def _gradients(
        self, model: GradientRecommender, batch: UserBatch | PairBatch, totals: dict[str, Tensor], users: Counter[str]
    ) -> Tensor:
        """() loss of this process's parts of a batch; each weighs by its size in the gradients that are left behind."""
        summed = torch.zeros((), device=self.device)
        for place in self.own_parts:
            if (part := part_of(batch, place, self.n_parts)) is None:
                continue
            with self._autocast():
                terms = model.loss(part, self.rngs[place], self.progress.step)
                loss = torch.stack(list(terms.values())).sum() * (len(part) / len(batch))
            loss.backward()
            summed += loss.detach()
            for name, term in terms.items():
                totals[name] = totals.get(name, 0) + term.detach().double() * len(part)
                users[name] += len(part)
        return summed

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _measured(self, model: GradientRecommender) -> tuple[dict[str, float], dict[str, float]]:
        """The metrics on validation, and what the model says of itself."""
        with self._autocast(), torch.no_grad():
            train, known, masked = self.histories
            told = {"part": "valid", "exclude": masked, "train": train}
            found = evaluate(self.ranked, known, self.valid, self.evaluation, **told)
            return found.means(), found.ratings | model.eval().diagnostics(self._diagnosed())

    def _validate(self, model: GradientRecommender, epoch: int) -> dict[str, float]:
        began = time.monotonic()
        means, diagnostics = self.team.told(self._measured(model) if self.team.leads else None)
        value = means[self.evaluation.select_by]
        better = value > self.progress.best_value
        if better:
            self.progress.best_value, self.progress.best_epoch, self.progress.stale = value, epoch, 0
            self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        else:
            self.progress.stale += 1
            self.progress.decays += self.progress.stale % self.training.decay_after == 0
        model.validated(better)
        seconds = time.monotonic() - began
        self.emit({"event": "valid", "epoch": epoch, "best": better, "seconds": seconds} | means | diagnostics)
        return {self.evaluation.select_by: value} | diagnostics

    def _diagnosed(self) -> Iterator[UserBatch]:
        users = spread(self.history.active, _USERS_DIAGNOSED)
        for start in range(0, len(users), self.training.batch_size):
            yield self.history.batch(users[start : start + self.training.batch_size])

    def _save_state(self, optimiser: torch.optim.Optimizer) -> None:
        chance = self.team.said_by_all({str(place): self.rngs[place].get_state().tolist() for place in self.own_parts})
        if not self.team.leads:
            return
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"optimiser.{name}": tensor for name, tensor in optimiser_tensors(optimiser).items()}
        for place, state in (pair for own in chance for pair in own.items()):
            tensors[generator_name(int(place))] = torch.tensor(state, dtype=torch.uint8)
        about = self._continues() | {"progress": vars(self.progress), "order": self.order.bit_generator.state}
        save_tensors(self.bundle.checkpoint / "state.safetensors", tensors, about)

    def _resume(self, optimiser: torch.optim.Optimizer) -> None:
        path = self.bundle.checkpoint / "state.safetensors"
        if not path.exists():
            return
        try:
            tensors, about = load_tensors(path, self._continues())
        except (BundleError, ForeignCheckpointError) as error:
            # Only this run's own earlier part can be gone on with; anything else costs time, never the result.
            self.emit({"event": "discarded", "message": f"{error}. Training begins anew"})
            path.unlink(missing_ok=True)
            return
        taken: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimiser": {}}
        for name, tensor in tensors.items():
            owner, _, rest = name.partition(".")
            if owner in taken:
                taken[owner][rest] = tensor
        self.model.load_state_dict(taken["model"])
        self.best = {name: tensor.to(self.device) for name, tensor in taken["best"].items()}
        restore_optimiser(optimiser, taken["optimiser"])
        for place, rng in enumerate(self.rngs):
            rng.set_state(tensors[generator_name(place)])
        self.order.bit_generator.state = about["order"]
        self.progress = Progress(**about["progress"])
        found = {"best_epoch": self.progress.best_epoch, "best_value": self.progress.best_value} if self.best else {}
        self.emit({"event": "resume", "epoch": self.progress.epoch} | found)

    def _continues(self) -> dict[str, str]:
        """What a saved state must share with a run that goes on from it bit for bit."""
        return self.belongs_to | {"device": self.device.type, "precision": self.precision}

    def _finish(self, parameters: int) -> dict[str, Any]:
        checkpoint, progress = self.bundle.checkpoint, self.progress
        save_tensors(checkpoint / "model.safetensors", self.model.served().state_dict(), self.belongs_to)
        measured = write_evaluation(self.bundle, self.ranked, self.histories, self.evaluation)
        epochs = len(progress.history)
        metrics = (
            self.belongs_to
            | {
                "model": self.config.name,  # type: ignore[attr-defined]
                "seed": self.seed,
                "protocol": self.evaluation.protocol,
                "best_epoch": progress.best_epoch,
                "epochs": epochs,
                "seconds": progress.seconds,
                "seconds_per_epoch": progress.seconds / epochs if epochs else None,
                "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "parameters": parameters,
                "device": str(self.device),
                "precision": self.precision,
                "provenance": self.provenance(),
                "history": progress.history,
            }
            | measured
        )
        write_json(checkpoint / "metrics.json", metrics)
        write_json(checkpoint / "config.json", self.config.model_dump(mode="json"))
        (checkpoint / "state.safetensors").unlink(missing_ok=True)
        seal(checkpoint)
        self.emit({"event": "test", "metrics": measured["test"]})
        self.emit({"event": "done", "best_epoch": progress.best_epoch, "epochs": epochs, "seconds": progress.seconds})
        return metrics
