"""DiffRec: whole interaction rows noised and denoised, ranked by what the reverse chain makes of a user's own row."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from rec_models.blocks import dense_rows, scores_of_all
from rec_models.diffusion import Denoiser, NoiseSchedule, StepSampler
from rec_models.interactions import UserBatch
from rec_models.recommender import GradientRecommender, RecommenderConfig
from rec_models.semantic import ModelInputs


class DiffRecConfig(RecommenderConfig):
    """Settings of DiffRec; the authors use batches of 400 users (`training.batch_size`).

    Attributes:
        ratings: rows hold ratings over the highest one instead of ones. Items without a rating stay zeros that are
            learnt, so that scores are no ratings either way.
        hidden_dim, time_dim, dropout: of the network that predicts the clean row.
        steps, noise_scale, noise_min, noise_max: 1 - alpha_bar runs from scale * min to scale * max.
        first_beta: noise of the first step alone; None leaves it to the schedule.
        sampling_steps: forward steps before the reverse chain at inference, without noise; 0 starts from the row.
        reweight: weigh a step's error by the signal it loses; false weighs all alike.
        learning_rate: null takes that of `training`.
    """

    paper: ClassVar[str] = "Wang et al., Diffusion Recommender Model, SIGIR 2023"

    name: Literal["diffrec"] = "diffrec"
    ratings: bool = False
    hidden_dim: int = Field(default=1000, ge=1)
    time_dim: int = Field(default=10, ge=2)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    steps: int = Field(default=5, ge=1)
    noise_scale: float = Field(default=0.01, gt=0)
    noise_min: float = Field(default=0.001, gt=0, lt=1)
    noise_max: float = Field(default=0.01, gt=0, lt=1)
    first_beta: float | None = Field(default=1e-5, gt=0, lt=1)
    sampling_steps: int = Field(default=0, ge=0)
    reweight: bool = True
    learning_rate: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _steps_fit(self) -> DiffRecConfig:
        if self.sampling_steps > self.steps:
            raise ValueError(f"`sampling_steps` {self.sampling_steps} is more than `steps` {self.steps}")
        if self.noise_scale * self.noise_max >= 1 or self.noise_min > self.noise_max:
            raise ValueError("`noise_scale` * `noise_max` must be below 1, and `noise_min` at most `noise_max`")
        return self

    @property
    def asks_for_ratings(self) -> bool:
        """As `ratings` says."""
        return self.ratings

    def build(self, inputs: ModelInputs) -> DiffRec:
        """The untrained model."""
        return DiffRec(self, inputs)


class DiffRec(GradientRecommender):
    """DiffRec.

    Source: Wang et al. 2023, sections 3.1 and 3.2; the authors' code (YiyanXu/DiffRec).
    Deviations: follows the code where it says more (the first step's noise is 1e-5; steps are drawn by their losses).
    Adam instead of AdamW, the same without weight decay. Predicts the clean row only, not the noise. Steps' losses are
    recorded as they are weighed.
    """

    def __init__(self, config: DiffRecConfig, inputs: ModelInputs) -> None:
        super().__init__()
        self.config = config
        values = inputs.known.values
        self.top = float(values.max()) if len(values) else 1.0
        self.denoiser = Denoiser(inputs.n_items, config.hidden_dim, config.time_dim, config.dropout)
        noise = (config.noise_scale, config.noise_min, config.noise_max)
        self.schedule = NoiseSchedule(config.steps, *noise, first_beta=config.first_beta)
        self.sampler = StepSampler(config.steps)

    def rows(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) in 0..1."""
        return dense_rows(batch.with_values(batch.values / self.top))

    def loss(self, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """The weighted squared error of the clean row, a mean over items."""
        start = self.rows(batch)
        at, likelier = self.sampler.draw(len(start), rng)
        noise = torch.randn(start.shape, generator=rng, device=start.device, dtype=start.dtype)
        clean = self.denoiser(self.schedule.noised(start, at, noise), at, rng)
        errors = (start - clean).square().mean(1)
        if self.config.reweight:
            errors = errors * self.schedule.snr_drop[at].to(errors.dtype)
        self.sampler.record(at, errors)
        return {"reconstruction": (errors / likelier.to(errors.dtype)).mean()}

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) the end of the reverse chain of means."""
        current = self.rows(batch)
        if self.config.sampling_steps:
            at = torch.full((len(current),), self.config.sampling_steps - 1, device=current.device)
            current = self.schedule.noised(current, at, torch.zeros_like(current))
        for step in reversed(range(len(self.schedule))):
            at = torch.full((len(current),), step, device=current.device)
            clean = scores_of_all(self.denoiser.embedded(current, at, None), self.denoiser.out)
            current = self.schedule.previous_mean(clean, current, step)
        return current
