"""DGRM: a generator conditioned on noised ratings, and a critic that compares what lies one step before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from rec_models.adversarial import (
    Activation,
    AtStep,
    Game,
    Judge,
    OfEntries,
    between_samples,
    clip_weights,
    critic_loss,
    flat_penalty,
    generator_loss,
    gradient_penalty,
    slopes,
    start_at_means,
)
from rec_models.blocks import dense_rows
from rec_models.diffusion import NoiseSchedule
from rec_models.errors import DivergedError
from rec_models.interactions import PairBatch, ResidentInteractions, UserBatch
from rec_models.rating_condition import Condition
from rec_models.recommender import GradientRecommender, ParameterGroup, RecommenderConfig
from rec_models.row_pairs import RowPair, normal
from rec_models.semantic import Language, ModelInputs, language_of

# What the authors' code does where the paper is silent or says otherwise. Its six noise levels begin at 1e-5, which is
# the clean row, so five steps are left.
_OFFICIAL: dict[str, Any] = {
    "rating_scale": "raw",
    "noise_scale": 1.0,
    "noise_min": 0.2,
    "noise_max": 1.0,
    "pair": "same_noise",
    "noise_dim": None,
    "hidden_dims": (256, 256, 256),
    "critic_hidden_dims": (256,),
    "activation": "relu",
    "output": "linear",
    "output_start": "random",
    "critic": "frozen",
    "lipschitz": "flat",
    "penalty_weight": 0.01,
    "critic_steps": 4,
    "turns": "epochs",
    "learning_rate": 1e-4,
    "critic_learning_rate": 2e-4,
    "betas": (0.9, 0.999),
    "weight_decay": 1e-2,
}
# Users predicted for at once, and users' batches whose game a validation pass looks into.
_USERS_AT_ONCE = 256
_BATCHES_DIAGNOSED = 4


class DGRMConfig(RecommenderConfig):
    """Settings of DGRM; the paper's batches are small (`training.batch_size` 64).

    Attributes:
        profile: whose defaults hold for what is not said: `paper`, or `official_code`, whose critic never learns.
        rating_scale: `unit` divides ratings by the highest one.
        steps, noise_scale, noise_min, noise_max: added variance runs from scale * min to scale * max; 0 adds none.
        pair: `joint` noises both rows of a pair along one path; `same_noise` is the authors' code.
        noise_by_activity: the added variance of a user is that times (ratings / most ratings) to this power.
        train_step: the only step trained on, 1..steps; None draws every step.
        hidden_share: share of a user's ratings, drawn anew in every step, that the generator must give without being
            told. Without it a row at rated items can be what was told; with it predictions spread as ratings do sooner.
        unrated_share: share of a row's other items, drawn anew, that stand for a rating of 0. The rows then say what is
            taken and liked, which the full catalogue asks for, and are no ratings.
        noise_dim: width of the generator's own noise; None is one number an item.
        hidden_dims, critic_hidden_dims, activation, output, time_dim: of the two networks.
        output_start: the generator's rows begin near every item's mean rating, or anywhere.
        critic: `learned`, `frozen` as it began, or `off`: the reconstruction alone.
        game: `wasserstein`, or `kl` for DGRM-KL, an ordinary adversary.
        critic_condition: show the critic the noised row beside the one it judges.
        critic_reads: whole `rows`, or `entries`: one small network for every rating, told the item.
        lipschitz, penalty_weight, clip: what bounds the critic's slope; `flat` is R1. DGRM-KL needs none.
        generator_steps, critic_steps, turns: how many steps of each a batch, or passes of each an epoch.
        reconstruction_weight, reconstruction: squared error of ratings, summed or averaged over what a user rated.
        prediction_steps: denoising steps that a prediction takes, 0..steps; 0 is the generator's row from the noised.
        x0_per_step: whether each of them asks the generator anew, or the first one only.
        pred_mode: `x0` is the generator's last row, `posterior` what the steps end in, of which an unseen item keeps a
            fraction only, `posterior_rescaled` is divided by that fraction.
        spread: what the distance of a prediction from the mean of all ratings is multiplied by: above 1 the order of
            items stays, while the distribution, too narrow as means are, widens at the cost of larger errors.
        samples: predictions from different noise that are averaged; `sampling_noise` adds noise in every step.
        attention_dim: width of a condition made by attention over the user's items; 0 is none.
        language, language_dim: a condition made of profiles of users and items, and its width.
        learning_rate, critic_learning_rate, betas, weight_decay: null takes those of `training`.
        divergence_limit: size of the critic's gap at which training stops with an error.
    """

    paper: ClassVar[str] = "DGRM: Diffusion-Generative Recommender Model (diffusion-conditioned Wasserstein GAN)"
    reads_ratings: ClassVar[bool] = True

    name: Literal["dgrm"] = "dgrm"
    profile: Literal["paper", "official_code"] = "paper"
    rating_scale: Literal["unit", "raw"] = "unit"
    steps: int = Field(default=5, ge=1)
    noise_scale: float = Field(default=0.01, ge=0, le=1)
    noise_min: float = Field(default=1e-3, gt=0, le=1)
    noise_max: float = Field(default=0.1, gt=0, le=1)
    pair: Literal["joint", "same_noise"] = "joint"
    noise_by_activity: float = Field(default=0.0, ge=0)
    train_step: int | None = Field(default=None, ge=1)
    hidden_share: float = Field(default=0.0, ge=0, lt=1)
    unrated_share: float = Field(default=0.0, ge=0, le=1)
    noise_dim: int | None = Field(default=64, ge=1)
    hidden_dims: tuple[int, ...] = Field(default=(400, 400), min_length=1)
    critic_hidden_dims: tuple[int, ...] = Field(default=(256, 128), min_length=1)
    activation: Activation = "leaky_relu"
    output: Literal["sigmoid", "linear"] = "sigmoid"
    output_start: Literal["item_means", "random"] = "item_means"
    time_dim: int = Field(default=10, ge=2)
    critic: Literal["learned", "frozen", "off"] = "learned"
    game: Game = "wasserstein"
    critic_condition: bool = True
    critic_reads: Literal["rows", "entries"] = "rows"
    lipschitz: Literal["gradient_penalty", "clipping", "flat", "none"] = "gradient_penalty"
    penalty_weight: float = Field(default=10.0, ge=0)
    clip: float = Field(default=0.01, gt=0)
    generator_steps: int = Field(default=2, ge=1)
    critic_steps: int = Field(default=1, ge=1)
    turns: Literal["batches", "epochs"] = "batches"
    reconstruction_weight: float = Field(default=0.1, ge=0)
    reconstruction: Literal["sum", "mean_rated"] = "sum"
    prediction_steps: int = Field(default=1, ge=0)
    x0_per_step: Literal["once", "each"] = "each"
    pred_mode: Literal["x0", "posterior", "posterior_rescaled"] = "x0"
    spread: float = Field(default=1.0, gt=0)
    samples: int = Field(default=8, ge=1)
    sampling_noise: bool = True
    attention_dim: int = Field(default=0, ge=0)
    language: Literal["none"] | Language = "none"
    language_dim: int = Field(default=32, ge=1)
    learning_rate: float | None = Field(default=3e-4, gt=0)
    critic_learning_rate: float | None = Field(default=3e-4, gt=0)
    betas: tuple[float, float] = (0.5, 0.9)
    weight_decay: float | None = Field(default=0.0, ge=0)
    divergence_limit: float = Field(default=1e4, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _as_the_profile_has_it(cls, said: Any) -> Any:
        if isinstance(said, dict) and said.get("profile") == "official_code":
            return _OFFICIAL | said
        return said

    @model_validator(mode="after")
    def _fits(self) -> DGRMConfig:
        if self.steps > 1 and self.noise_min >= self.noise_max:
            raise ValueError(f"`noise_min` {self.noise_min} must be below `noise_max` {self.noise_max}")
        for option in ("prediction_steps", "train_step"):
            if (getattr(self, option) or 0) > self.steps:
                raise ValueError(f"`{option}` {getattr(self, option)} is more than `steps` {self.steps}")
        return self

    @property
    def asks_for_language(self) -> bool:
        """Only with a condition in words."""
        return self.language != "none"

    def build(self, inputs: ModelInputs) -> DGRM:
        """The untrained model."""
        return DGRM(self, inputs)


class DGRM(GradientRecommender):
    """DGRM.

    Source: the paper's sections 3.1-3.4 and equations 16-25; the authors' code for the profile `official_code`.
    Deviations: the posterior's mean and deviation are the exact ones; the paper's print differs. Both rows of a pair
    lie on one path of noise. The paper does not say what bounds the critic: a gradient penalty by default. It does
    not say what the networks are: multilayer perceptrons, their output begun at the items' means, without batch
    normalisation. Predictions are the generator's rows by default, since after T' steps an unseen item keeps about
    T'/T of its rating and no threshold on ratings can be met; they are the mean of 8 draws whose noise is the same
    for every user and every call. A generator's turn comes before the critic's. Of the authors' code, `official_code`
    leaves out the random step that a prediction begins from, the mask in its first step and the selection on test;
    with `critic` learned it is what that code means to be.
    """

    def __init__(self, config: DGRMConfig, inputs: ModelInputs) -> None:
        super().__init__()
        self.config, n_items = config, inputs.n_items
        self.predicts_ratings = not config.unrated_share
        values, lengths = inputs.known.values, inputs.known.lengths()
        highest = float(values.max()) if len(values) else 1.0
        self.top = highest if config.rating_scale == "unit" else 1.0
        self.highest = highest / self.top
        self.middle = float(values.mean()) if len(values) else 0.0
        self.most = max(1, int(lengths.max(initial=0)))
        low = config.noise_min if config.steps > 1 else config.noise_max
        self.schedule = NoiseSchedule(config.steps, config.noise_scale, low, config.noise_max)
        self.noise_dim = n_items if config.noise_dim is None else config.noise_dim
        texts = None if config.language == "none" else language_of(config.name, inputs, config.language)
        self.condition = Condition.of(n_items, config.attention_dim, texts, config.language_dim)
        told = self.condition.width
        n_in = n_items + self.noise_dim + told
        self.generator = AtStep(n_in, config.time_dim, config.hidden_dims, n_items, config.activation)
        if config.output_start == "item_means":
            highest = self.highest if config.output == "sigmoid" else None
            start_at_means(cast(nn.Linear, self.generator.layers[-1]), inputs.train, self.top, sigmoid_of=highest)
        self.critic = None if config.critic == "off" else self._new_critic(n_items)

    def _new_critic(self, n_items: int) -> AtStep | OfEntries:
        config, told, rows = self.config, self.condition.width, 2 if self.config.critic_condition else 1
        shape = (config.time_dim, config.critic_hidden_dims)
        if config.critic_reads == "entries":
            return OfEntries(n_items, rows, told, *shape, config.activation)
        return AtStep(rows * n_items + told, *shape, 1, config.activation)

    def batches(
        self, history: ResidentInteractions, order: np.random.Generator, size: int
    ) -> Iterator[UserBatch | PairBatch]:
        """An epoch in turns: of every batch, or of whole passes."""
        config = self.config
        n_critic = config.critic_steps if config.critic == "learned" else 0
        turns = ["generator"] * config.generator_steps + ["critic"] * n_critic
        if config.turns == "batches":
            for batch in super().batches(history, order, size):
                yield from (replace(cast(UserBatch, batch), turn=turn) for turn in turns)
            return
        for turn in turns:
            for batch in super().batches(history, order, size):
                yield replace(cast(UserBatch, batch), turn=turn)

    def loss(self, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """In a critic's turn its gap and penalty, else the error at rated items and the critic's verdict."""
        if batch.turn == "critic":
            return self._critic_terms(batch, rng)
        made, told, pair = self._made(batch, rng)
        # In ratings, whatever the rows are scaled to.
        errors = self.top**2 * ((made - pair.start) * pair.held).square().sum(1)
        if self.config.reconstruction == "mean_rated":
            errors = errors / batch.lengths.clamp_min(1)
        terms = {"reconstruction": self.config.reconstruction_weight * errors.mean()}
        if self.critic is None:
            return terms
        verdict = self._judged(pair.before(made * pair.held, rng), pair, told)
        return terms | {"adversarial": generator_loss(verdict, self.config.game)}

    def _critic_terms(self, batch: UserBatch, rng: torch.Generator) -> dict[str, Tensor]:
        assert self.critic is not None
        config = self.config
        if config.lipschitz == "clipping":  # what the last step grew beyond the limit
            clip_weights(self.critic, config.clip)
        real, fake, judge = self._compared(batch, rng)
        gap = critic_loss(judge(real), judge(fake), config.game)
        if config.game == "kl" and config.lipschitz == "gradient_penalty":  # an ordinary adversary has none
            return {"critic": gap}
        if config.lipschitz == "gradient_penalty":
            penalty = gradient_penalty(judge, real, fake, rng)
        elif config.lipschitz == "flat":
            penalty = flat_penalty(judge, real)
        else:
            return {"critic": gap}
        return {"critic": gap, "penalty": config.penalty_weight * penalty}

    @torch.no_grad()
    def _compared(self, batch: UserBatch, rng: torch.Generator) -> tuple[Tensor, Tensor, Judge]:
        """The true rows of the step before, those the generator leads to, and what the critic makes of such rows."""
        made, told, pair = self._made(batch, rng)
        return pair.previous, pair.before(made * pair.held, rng), lambda rows: self._judged(rows, pair, told)

    def _made(self, batch: UserBatch, rng: torch.Generator) -> tuple[Tensor, Tensor, RowPair]:
        """The generator's rows, not masked, from rows noised up to a drawn step, what was told, and the true rows."""
        config, n = self.config, len(batch)
        at = torch.randint(config.steps, (n,), generator=rng, device=batch.values.device)
        if config.train_step is not None:
            at = torch.full_like(at, config.train_step - 1)
        pair = RowPair(
            batch,
            self.top,
            at,
            self.schedule.between(at, self._shares(batch), batch.values.dtype),
            rng,
            same_noise=config.pair == "same_noise",
            hidden_share=config.hidden_share,
            unrated_share=config.unrated_share,
        )
        told = self.condition(pair.told)
        return self._generated(pair.shown, normal((n, self.noise_dim), rng, pair.shown), at, told), told, pair

    def _shares(self, batch: UserBatch) -> Tensor:
        """(batch,) float64 of the schedule's variance that a user's row is given."""
        active = (batch.lengths.double() / self.most).clamp_max(1.0)
        return active**self.config.noise_by_activity

    def _generated(self, current: Tensor, noise: Tensor, at: Tensor, told: Tensor) -> Tensor:
        rows = self.generator([current, noise, told], at)
        return torch.sigmoid(rows) * self.highest if self.config.output == "sigmoid" else rows

    def _judged(self, rows: Tensor, pair: RowPair, told: Tensor) -> Tensor:
        """(batch,) the critic's values."""
        assert self.critic is not None
        judged = [rows, pair.shown] if self.config.critic_condition else [rows]
        if isinstance(self.critic, OfEntries):
            return self.critic(judged, told, pair.at, pair.batch)
        return self.critic([*judged, told], pair.at).squeeze(1)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The generator with its condition, and the critic, which learn in turns."""
        config, betas, decay = self.config, self.config.betas, self.config.weight_decay
        own = [*self.generator.parameters(), *self.condition.parameters()]
        groups = [ParameterGroup("generator", own, config.learning_rate, decay, betas)]
        if self.critic is not None:
            judge = list(self.critic.parameters())
            groups.append(ParameterGroup("critic", judge, config.critic_learning_rate, decay, betas))
        return groups

    def diagnostics(self, batches: Iterable[UserBatch]) -> dict[str, float]:
        """How far apart the critic holds true and made rows, and its mean slope between them.

        Raises:
            DivergedError: the gap is beyond `divergence_limit`.
        """
        if self.critic is None:
            return {}
        found = []
        for batch in islice(batches, _BATCHES_DIAGNOSED):
            rng = torch.Generator(batch.values.device).manual_seed(0)
            real, fake, judge = self._compared(batch, rng)
            gap = (judge(real) - judge(fake)).mean()
            slope = slopes(judge, between_samples(real, fake, rng)).mean()
            found.append((float(gap.detach()), float(slope.detach())))
        gap, slope = np.mean(found, axis=0).tolist()
        if not abs(gap) <= self.config.divergence_limit:
            raise DivergedError(self.config.name, "the critic's gap", gap, self.config.divergence_limit)
        return {"critic_gap": gap, "critic_slope": slope}

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) predicted ratings, the mean over the draws; memory is that of 256 users' rows."""
        config, n_items = self.config, batch.n_items
        rng = torch.Generator().manual_seed(0x66)  # on the host: the same noise on every device
        shape = (config.samples, config.steps + 1, n_items)  # the same noise whatever T' is
        noises = torch.randn(shape, generator=rng).to(batch.values)
        own = torch.randn((*shape[:2], self.noise_dim), generator=rng).to(batch.values)
        out = batch.values.new_empty(len(batch), n_items)
        told, shares = self.condition(batch), self._shares(batch)
        start = dense_rows(batch.with_values(batch.values / self.top))
        for first in range(0, len(batch), _USERS_AT_ONCE):
            some = slice(first, first + _USERS_AT_ONCE)
            drawn = [
                self._predicted(start[some], told[some], shares[some], *pair) for pair in zip(noises, own, strict=True)
            ]
            out[some] = torch.stack(drawn).mean(0).to(out) * self.top
        return out if config.spread == 1 else self.middle + config.spread * (out - self.middle)

    def _predicted(self, start: Tensor, told: Tensor, shares: Tensor, noises: Tensor, own: Tensor) -> Tensor:
        """(batch, n_items) by one draw: noises (T' + 1, n_items) and own (T' + 1, noise_dim), shared by all rows."""
        config, last = self.config, self.config.steps - 1
        at = torch.full((len(start),), last, device=start.device)
        now = self.schedule.between(at, shares, start.dtype).now
        current = (1 - now).sqrt() * start + now.sqrt() * noises[0]
        clean = self._generated(current, own[0].expand(len(start), -1), at, told)
        arrived = torch.zeros_like(now)
        for place in range(config.prediction_steps):
            step = torch.full_like(at, last - place)
            if place and config.x0_per_step == "each":
                clean = self._generated(current, own[place].expand(len(start), -1), step, told)
            between = self.schedule.between(step, shares, start.dtype)
            noise = noises[place + 1] if config.sampling_noise else None
            current = between.previous(clean, current, noise)
            arrived = between.to_start + between.to_current * arrived
        if config.pred_mode == "x0" or config.prediction_steps == 0:
            return clean
        return current if config.pred_mode == "posterior" else current / arrived
