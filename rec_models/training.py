"""The one training loop: seeds, early stopping, a guard against NaN, checkpoints that resume bit for bit."""

from __future__ import annotations

import math
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
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
from rec_models.interactions import PairBatch, UserBatch
from rec_models.measured import histories_of, ranked, write_evaluation
from rec_models.recommender import (
    ClosedFormRecommender,
    GradientRecommender,
    ParameterGroup,
    Recommender,
    RecommenderConfig,
)
from rec_models.settings import parse_config, parse_evaluation, parse_training, refuse_protocol
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


def train(bundle: Bundle, emit: Emit, *, device: str = "auto", saves_every_s: float = 60.0) -> dict[str, Any]:
    """Trains the bundle's model, writes its checkpoint and returns its metrics.

    A run that was cut off goes on from its last saved state and ends with the weights it would have had.

    Args:
        emit: receives one mapping an event; see `python -m rec_models --help`.
        device: `auto` takes a GPU when there is one.
        saves_every_s: seconds between saved states; each holds the optimiser too, three times the model.

    Raises:
        NotFiniteError: the loss became NaN or infinite; an earlier saved state, if there is one, is untouched.
        UnknownDeviceError: this machine does not have the device.
    """
    return _Run(bundle, emit, device, saves_every_s).complete()


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


class TrainingConfig(BaseModel):
    """How a model is trained.

    Attributes:
        epochs: upper bound; early stopping usually ends sooner.
        batch_size: users an optimiser step; models that learn from single interactions have `batch_pairs` instead.
        evaluate_every: epochs between validation passes.
        patience: validation passes without a new best before training stops.
        learning_rate_decay: factor on the learning rate after every `decay_after` validation passes in a row without a
            new best; 1 leaves it constant.
        precision: of matrix products in training and in the validation passes between epochs; losses, divergences and
            the final metrics are float32 always. `auto` is bfloat16 on a GPU or a CPU that multiplies it natively, else
            float32, so it can give other numbers on another machine.
        semantic_dtype: of the semantic matrices as they lie in memory; half the bytes at 16 bits. Sums over them are
            float32.
        device: `auto` takes a GPU when there is one.
        warm_start: begin with the bundle's earlier weights instead of fresh ones (`rec_models.warm_start`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=1024, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    learning_rate_decay: float = Field(default=1.0, gt=0, le=1)
    decay_after: int = Field(default=5, ge=1)
    weight_decay: float = Field(default=0.0, ge=0)
    evaluate_every: int = Field(default=3, ge=1)
    patience: int = Field(default=20, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    semantic_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: str = "auto"
    warm_start: bool = False

    def resolved_precision(self, device: torch.device) -> str:
        """The concrete precision on a device."""
        if self.precision != "auto":
            return self.precision
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
        return "bfloat16" if native else "float32"


class _Run:
    def __init__(self, bundle: Bundle, emit: Emit, device: str, saves_every_s: float) -> None:
        self.bundle, self.emit, self.saves_every_s = bundle, emit, saves_every_s
        self.config: RecommenderConfig = parse_config(bundle.config["model"])
        self.training: TrainingConfig = parse_training(bundle.config["training"])
        self.evaluation: EvaluationConfig = parse_evaluation(bundle.config["evaluation"])
        self.seed: int = bundle.config["seed"]
        self.device = resolve_device(self.training.device if device == "auto" else device)
        self.precision = self.training.resolved_precision(self.device)
        self.belongs_to = _belongs_to(bundle)
        inputs = bundle.inputs()
        refuse_protocol(self.evaluation.protocol, inputs.fold_in is not None, {self.config.key()["name"]: self.config})
        torch.manual_seed(self.seed)  # initial weights; everything later draws from self.rng
        self.model = self.config.build(inputs)
        self.warm = begin_from(self.model.served(), bundle.directory) if self.training.warm_start else {}
        self.model.to(self.device)
        self.ranked = ranked(self.model, inputs, self.evaluation.cold_items)
        self.rng = torch.Generator(self.device).manual_seed(self.seed)
        self.order = np.random.default_rng(self.seed)
        self.histories = histories_of(bundle, inputs, self.device)
        self.history = self.histories.train
        self.train_matrix = inputs.train
        self.valid = bundle.part("valid")
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
        if isinstance(self.model, ClosedFormRecommender):
            self.model.fit(self.train_matrix)
            self.progress.seconds = time.monotonic() - began
        else:
            self._descend(cast(GradientRecommender, self.model))
        return self._finish(parameters)

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
            if evaluated and time.monotonic() - saved_at > self.saves_every_s:
                self._save_state(optimiser)
                saved_at = time.monotonic()
        model.load_state_dict(self.best)

    def _optimiser(self, model: GradientRecommender) -> torch.optim.Adam:
        """One Adam; a group without a learning rate or weight decay of its own takes those of the settings."""
        groups = []
        for _, parameters, rate, decay, betas in model.parameter_groups():
            rate = self.training.learning_rate if rate is None else rate
            decay = self.training.weight_decay if decay is None else decay
            step = {"lr": rate, "initial_lr": rate, "weight_decay": decay, "betas": betas}
            groups.append({"params": parameters} | step)
        return torch.optim.Adam(groups, fused=True)

    def _epoch(self, model: GradientRecommender, optimiser: torch.optim.Optimizer, epoch: int) -> dict[str, Any]:
        model.train()
        began = time.monotonic()
        totals: dict[str, Tensor] = {}
        users: Counter[str] = Counter()
        seen, groups = 0, model.parameter_groups()
        for batch in model.batches(self.history, self.order, self.training.batch_size):
            _let_learn(groups, batch)
            with self._autocast():
                terms = model.loss(batch, self.rng, self.progress.step)
                loss = torch.stack(list(terms.values())).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if self.device.type == "cpu" and not math.isfinite(
                loss.item()
            ):  # on a GPU once an epoch: no waiting a step
                raise NotFiniteError(self.config.name, epoch, self.progress.step, "the loss")  # type: ignore[attr-defined]
            optimiser.step()
            self.progress.step += 1
            seen += len(batch)
            for name, term in terms.items():
                totals[name] = totals.get(name, 0) + term.detach().double() * len(batch)
                users[name] += len(batch)
        means = {name: float(total) / users[name] for name, total in totals.items()}
        mean_loss = sum(means.values()) if seen else math.nan
        if not math.isfinite(mean_loss) or not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
            raise NotFiniteError(self.config.name, epoch, self.progress.step, "the loss or a weight")  # type: ignore[attr-defined]
        seconds = time.monotonic() - began
        self.progress.seconds += seconds
        row = {"epoch": epoch, "loss": mean_loss, "terms": means, "seconds": seconds}
        rates = {"examples_per_s": seen / seconds, "learning_rate": optimiser.param_groups[0]["lr"]}
        self.emit({"event": "epoch"} | rates | row)
        return row

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _validate(self, model: GradientRecommender, epoch: int) -> dict[str, float]:
        began = time.monotonic()
        with self._autocast(), torch.no_grad():
            train, known, masked = self.histories
            told = {"part": "valid", "exclude": masked, "train": train}
            found = evaluate(self.ranked, known, self.valid, self.evaluation, **told)
            means = found.means()
            diagnostics = found.ratings | model.eval().diagnostics(self._diagnosed())
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
        active = self.history.active
        users = active[np.linspace(0, len(active) - 1, min(len(active), _USERS_DIAGNOSED)).astype(np.int64)]
        for start in range(0, len(users), self.training.batch_size):
            yield self.history.batch(users[start : start + self.training.batch_size])

    def _save_state(self, optimiser: torch.optim.Optimizer) -> None:
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"optimiser.{name}": tensor for name, tensor in optimiser_tensors(optimiser).items()}
        tensors["rng"] = self.rng.get_state()
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
            path.unlink()
            return
        taken: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimiser": {}}
        for name, tensor in tensors.items():
            owner, _, rest = name.partition(".")
            if owner in taken:
                taken[owner][rest] = tensor
        self.model.load_state_dict(taken["model"])
        self.best = {name: tensor.to(self.device) for name, tensor in taken["best"].items()}
        restore_optimiser(optimiser, taken["optimiser"])
        self.rng.set_state(tensors["rng"])
        self.order.bit_generator.state = about["order"]
        self.progress = Progress(**about["progress"])
        self.emit({"event": "resume", "epoch": self.progress.epoch})

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
