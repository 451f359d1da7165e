"""Gaussian diffusion in a latent space: noise schedule, reverse means, and which steps are worth training on."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# A step's losses that its share of the draws rests on, and what every step is drawn with however small its losses.
_LOSSES_KEPT = 10
_UNIFORM_SHARE = 0.001


class NoiseSchedule(nn.Module):
    """Forward noise and the reverse means it implies, for steps 0..T-1.

    Source: DiffRec (Wang et al. 2023), equations 1-4 and 9; "linear-var" of its code: 1 - alpha_bar is linear in t.
    Deviations: none. float64 until it meets a batch: differences of signal-to-noise ratios of 1e3 and more are taken.
    """

    alpha_bar: Tensor
    to_start: Tensor
    to_current: Tensor
    snr_drop: Tensor

    def __init__(self, steps: int, scale: float, low: float, high: float) -> None:
        """Args: `1 - alpha_bar` runs from scale * low to scale * high."""
        super().__init__()
        wanted = 1 - torch.linspace(scale * low, scale * high, steps, dtype=torch.float64)
        before = torch.cat([torch.ones(1, dtype=torch.float64), wanted[:-1]])
        beta = (1 - wanted / before).clamp_max(0.999)
        alpha_bar = (1 - beta).cumprod(0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
        snr = alpha_bar / (1 - alpha_bar)
        for name, values in {
            "alpha_bar": alpha_bar,
            "to_start": beta * before.sqrt() / (1 - alpha_bar),
            "to_current": (1 - before) * (1 - beta).sqrt() / (1 - alpha_bar),
            "snr_drop": torch.cat([torch.ones(1, dtype=torch.float64), snr[:-1] - snr[1:]]),
        }.items():
            self.register_buffer(name, values, persistent=False)

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def noised(self, start: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """(batch, latent) what `start` is after the forward steps 0..step (batch,)."""
        kept = self.alpha_bar[step][:, None]
        return kept.sqrt().to(start.dtype) * start + (1 - kept).sqrt().to(start.dtype) * noise

    def previous_mean(self, start: Tensor, current: Tensor, step: int) -> Tensor:
        """(batch, latent) mean of the step before, given what the start is taken to be."""
        to_start, to_current = (table[step].to(current.dtype) for table in (self.to_start, self.to_current))
        return to_start * start + to_current * current


class StepSampler(nn.Module):
    """Draws diffusion steps in proportion to the root mean square of their last losses.

    Source: Nichol & Dhariwal 2021, section 3.3, as used by DiffRec: uniform until every step has ten losses, then
    mixed with 0.001 of uniform.
    Deviations: a batch's losses are recorded at once and in a ring, where the code appends one by one; the last ten of
    each step, and so every draw, are the same. The record is part of the state: a resumed run draws as it would have.
    """

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
