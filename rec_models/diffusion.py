"""Gaussian diffusion of vectors: noise schedule, what lies between two steps, and which are worth training on."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from rec_models.blocks import dropped, xavier_normal_

# A step's losses that its share of the draws rests on, and what every step is drawn with however small its losses.
_LOSSES_KEPT = 10
_UNIFORM_SHARE = 0.001


class Between(NamedTuple):
    """Coefficients that join step t-1, step t and the start, (batch, 1) each.

    x_t = sqrt(alpha) x_{t-1} + sqrt(beta) noise, and x_{t-1} given x_t and the start is normal around
    to_start * start + to_current * x_t with the variance `spread`.

    Attributes:
        before, now: 1 - alpha_bar at t-1 and at t: the variance that noise has added by then.
    """

    before: Tensor
    now: Tensor
    alpha: Tensor
    beta: Tensor
    to_start: Tensor
    to_current: Tensor
    spread: Tensor

    @classmethod
    def of(cls, before: Tensor, now: Tensor, dtype: torch.dtype) -> Between:
        """From the two variances; where no noise was added the start is what lies before.

        Source: Ho et al. 2020, equations 6 and 7.
        Deviations: none. DGRM prints the root of the mean over the whole product and sqrt(beta) for the deviation.
        """
        alpha = (1 - now) / (1 - before)
        beta, noisy = 1 - alpha, now > 0
        divisor = torch.where(noisy, now, 1)
        to_start = torch.where(noisy, (1 - before).sqrt() * beta / divisor, 1)
        to_current = torch.where(noisy, alpha.sqrt() * before / divisor, 0)
        found = before, now, alpha, beta, to_start, to_current, beta * before / divisor
        return cls(*(column[:, None].to(dtype) for column in found))

    def pair(self, start: Tensor, noises: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """x_{t-1} and x_t of one path of noise."""
        previous = (1 - self.before).sqrt() * start + self.before.sqrt() * noises[0]
        return previous, self.alpha.sqrt() * previous + self.beta.sqrt() * noises[1]

    def same_noise(self, start: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """x_{t-1}, and what DGRM's code makes of it with the same noise: on no path of the forward process."""
        previous = (1 - self.before).sqrt() * start + self.before.sqrt() * noise
        return previous, (1 - self.now).sqrt() * previous + self.now.sqrt() * noise

    def previous(self, start: Tensor, current: Tensor, noise: Tensor | None) -> Tensor:
        """A draw of x_{t-1} given x_t and the start; its mean without noise."""
        mean = self.to_start * start + self.to_current * current
        return mean if noise is None else mean + self.spread.sqrt() * noise


class NoiseSchedule(nn.Module):
    """Forward noise and the reverse means it implies, for steps 0..T-1.

    Source: DiffRec (Wang et al. 2023), equations 1-4 and 9; "linear-var" of its code: 1 - alpha_bar is linear in t.
    DGRM's schedule is the same, its steps 1..T being 0..T-1 here.
    Deviations: none. Before it is cut to steps of 0.999, alpha_bar is at least 1e-4. float64 until it meets a batch:
    differences of signal-to-noise ratios of 1e3 and more are taken.
    """

    alpha_bar: Tensor
    to_start: Tensor
    to_current: Tensor
    snr_drop: Tensor

    def __init__(self, steps: int, scale: float, low: float, high: float, first_beta: float | None = None) -> None:
        """Args: `1 - alpha_bar` runs from scale * low to scale * high; `first_beta` is the first step's own noise."""
        super().__init__()
        wanted = 1 - torch.linspace(scale * low, scale * high, steps, dtype=torch.float64)
        wanted = wanted.clamp_min(1e-4)
        before = torch.cat([torch.ones(1, dtype=torch.float64), wanted[:-1]])
        beta = (1 - wanted / before).clamp_max(0.999)
        if first_beta is not None:
            beta[0] = first_beta
        alpha_bar = (1 - beta).cumprod(0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
        snr = alpha_bar / (1 - alpha_bar).clamp_min(1e-300)
        for name, values in {
            "alpha_bar": alpha_bar,
            "to_start": _over(beta * before.sqrt(), 1 - alpha_bar, 1.0),
            "to_current": _over((1 - before) * (1 - beta).sqrt(), 1 - alpha_bar, 0.0),
            "snr_drop": torch.cat([torch.ones(1, dtype=torch.float64), snr[:-1] - snr[1:]]),
        }.items():
            self.register_buffer(name, values, persistent=False)

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def between(self, step: Tensor, share: Tensor, dtype: torch.dtype) -> Between:
        """Coefficients of the steps (batch,), counted from 0, the added variance times (batch,) shares in 0..1."""
        alpha_bar = torch.cat([torch.ones_like(self.alpha_bar[:1]), self.alpha_bar])
        before, now = (share * (1 - alpha_bar[at]) for at in (step, step + 1))
        return Between.of(before, now, dtype)

    def noised(self, start: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """(batch, latent) what `start` is after the forward steps 0..step (batch,)."""
        kept = self.alpha_bar[step][:, None]
        return kept.sqrt().to(start.dtype) * start + (1 - kept).sqrt().to(start.dtype) * noise

    def previous_mean(self, start: Tensor, current: Tensor, step: int) -> Tensor:
        """(batch, latent) mean of the step before, given what the start is taken to be."""
        to_start, to_current = (table[step].to(current.dtype) for table in (self.to_start, self.to_current))
        return to_start * start + to_current * current


def _over(above: Tensor, below: Tensor, otherwise: float) -> Tensor:
    """above / below; where nothing was added, and below is 0, something else."""
    return torch.where(below > 0, above / below, otherwise)


class Denoiser(nn.Module):
    """(batch, width) the clean vector that a noised one comes from.

    Source: DiffRec, section 3.1.4 and the code's DNN.
    Deviations: Xavier-normal weights and zero biases, as L-DiffRec's autoencoder has them.
    """

    def __init__(self, width: int, hidden_dim: int, time_dim: int, dropout: float) -> None:
        super().__init__()
        self.time_dim, self.dropout = time_dim, dropout
        self.time = nn.Linear(time_dim, time_dim)
        self.hidden = nn.Linear(width + time_dim, hidden_dim)
        self.out = nn.Linear(hidden_dim, width)
        for layer in (self.time, self.hidden, self.out):
            xavier_normal_(layer.weight, layer.bias)

    def embedded(self, noised: Tensor, step: Tensor, rng: torch.Generator | None) -> Tensor:
        """(batch, hidden) what `out` makes the vector of; drops inputs when there is an `rng`."""
        if rng is not None:
            noised = dropped(noised, self.dropout, rng)
        time = self.time(sinusoidal(step, self.time_dim))
        return torch.tanh(self.hidden(torch.cat([noised, time], 1)))

    def forward(self, noised: Tensor, step: Tensor, rng: torch.Generator | None) -> Tensor:
        """Drops inputs when there is an `rng`."""
        clean = self.out(self.embedded(noised, step, rng))
        return clean if noised.dtype == clean.dtype else clean.to(noised.dtype)


class StepSampler(nn.Module):
    """Draws diffusion steps in proportion to the root mean square of their last losses.

    Source: Nichol & Dhariwal 2021, section 3.3, as used by DiffRec: uniform until every step has ten losses, then
    mixed with 0.001 of uniform.
    Deviations: a batch's losses are recorded at once and in a ring, where the code appends one by one; the last ten of
    each step, and so every draw, are the same. The record is part of the state: a resumed run draws as it would have.
    """

    remembers_batches: ClassVar[bool] = True
    losses: Tensor
    recorded: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.register_buffer("losses", torch.zeros(steps, _LOSSES_KEPT, dtype=torch.float64))
        self.register_buffer("recorded", torch.zeros(steps, dtype=torch.int64))

    def shares(self) -> Tensor:
        """(steps,) float64, the probability of each step."""
        steps = len(self.recorded)
        uniform = torch.full_like(self.losses[:, 0], 1 / steps)
        size = self.losses.square().mean(1).sqrt()
        # All losses 0: nothing to prefer.
        weighted = torch.where(size.sum() > 0, size / size.sum().clamp_min(1e-300), uniform)
        informed = (1 - _UNIFORM_SHARE) * weighted + _UNIFORM_SHARE * uniform
        return torch.where((self.recorded >= _LOSSES_KEPT).all(), informed, uniform)

    def draw(self, n: int, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """(n,) int64 steps, and (n,) how much likelier each was than under uniform draws."""
        shares = self.shares()
        drawn = torch.multinomial(shares, n, replacement=True, generator=rng)
        return drawn, shares[drawn] * len(shares)

    @torch.no_grad()
    def record(self, step: Tensor, losses: Tensor) -> None:
        """Keeps the last losses (batch,) of every step; nothing here waits for a GPU."""
        steps = len(self.recorded)
        chosen = torch.nn.functional.one_hot(step, steps)
        count = chosen.sum(0)
        rank = (chosen.cumsum(0) - 1).gather(1, step[:, None]).squeeze(1)  # how many of its step came before it
        lasting = rank >= count[step] - _LOSSES_KEPT
        slot = torch.where(lasting, (self.recorded[step] + rank) % _LOSSES_KEPT, _LOSSES_KEPT)
        # What the same batch would overwrite goes into a column of its own: no kept slot is written twice.
        ring = torch.cat([self.losses, torch.zeros_like(self.losses[:, :1])], 1)
        ring[step, slot] = losses.to(ring.dtype)
        self.losses.copy_(ring[:, :_LOSSES_KEPT])
        self.recorded += count


def sinusoidal(step: Tensor, width: int) -> Tensor:
    """(batch, width) float32 cosines and sines of the step at geometrically falling frequencies.

    Source: Vaswani et al. 2017, section 3.5; cosines first, as in DiffRec's code.
    Deviations: none; an odd width ends in a 0.
    """
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=step.device) * (-math.log(10_000) / max(half, 1)))
    angles = step[:, None].float() * frequencies
    return nn.functional.pad(torch.cat([angles.cos(), angles.sin()], 1), (0, width - 2 * half))
