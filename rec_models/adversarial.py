"""A generator against a critic: what either descends, and what keeps a critic's slope near one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rec_models.diffusion import sinusoidal
from rec_models.interactions import InteractionMatrix, UserBatch

Activation = Literal["leaky_relu", "relu", "sigmoid", "tanh"]
Game = Literal["wasserstein", "kl"]

# Width of what tells a critic of entries one item from another.
_ITEM_DIM = 16

# Ratings at the mean of all that an item's mean begins with.
_DAMPING = 10.0
# What the output's first weights are multiplied by where it begins at the means: 0 would let no gradient through.
_HUSHED = 0.1

Judge = Callable[[Tensor], Tensor]


def layers_of(dims: Sequence[int], activation: Activation) -> nn.Sequential:
    """Linear layers of these widths with an activation between them; the last one ends linear."""
    kinds = {"leaky_relu": lambda: nn.LeakyReLU(0.2), "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
    parts: list[nn.Module] = []
    for n_in, n_out in pairwise(dims):
        parts += [*([kinds[activation]()] if parts else []), nn.Linear(n_in, n_out)]
    return nn.Sequential(*parts)


class AtStep(nn.Module):
    """A network of rows, of a step, and of what else it is told."""

    def __init__(self, n_in: int, time_dim: int, hidden: tuple[int, ...], n_out: int, activation: Activation) -> None:
        super().__init__()
        self.time_dim = time_dim
        self.time = nn.Linear(time_dim, time_dim)
        self.layers = layers_of((n_in + time_dim, *hidden, n_out), activation)

    def forward(self, told: list[Tensor], step: Tensor) -> Tensor:
        """(batch, n_out) of the parts told, beside each other, and of the step (batch,)."""
        return self.layers(torch.cat([*told, self.time(sinusoidal(step + 1, self.time_dim))], 1))


class OfEntries(nn.Module):
    """A critic that reads a row rating by rating: one small network for all entries, told which item each is of."""

    def __init__(
        self, n_items: int, n_rows: int, n_told: int, time_dim: int, hidden: tuple[int, ...], activation: Activation
    ) -> None:
        super().__init__()
        self.time_dim = time_dim
        self.items = nn.Parameter(0.1 * torch.randn(n_items, _ITEM_DIM))
        self.layers = layers_of((n_rows + _ITEM_DIM + n_told + time_dim, *hidden, 1), activation)

    def forward(self, rows: list[Tensor], told: Tensor, step: Tensor, batch: UserBatch) -> Tensor:
        """(batch,) of rows (batch, n_items) at the batch's entries; the sum of n values over the root of n."""
        at = (batch.rows, batch.items)
        around = torch.cat([told, sinusoidal(step + 1, self.time_dim)], 1)
        values = torch.cat([*(row[at][:, None] for row in rows), self.items[batch.items], around[batch.rows]], 1)
        found = self.layers(values).squeeze(1) / batch.lengths.clamp_min(1).sqrt()[batch.rows]
        return found.new_zeros(len(batch)).index_add(0, batch.rows, found)


@torch.no_grad()
def start_at_means(last: nn.Linear, train: InteractionMatrix, top: float, *, sigmoid_of: float | None = None) -> None:
    """A generator's last layer (hidden -> n_items) at the items' damped means: a user's differences are left to learn.

    Args:
        top: what ratings are divided by.
        sigmoid_of: the highest scaled rating, where the layer's output goes through a sigmoid and is multiplied by it.
    """
    means = torch.from_numpy(train.damped_item_means(_DAMPING)) / top
    last.bias.copy_(means if sigmoid_of is None else (means / sigmoid_of).clamp(0.01, 0.99).logit())
    last.weight.mul_(_HUSHED)


def critic_loss(real: Tensor, made: Tensor, game: Game) -> Tensor:
    """() what the critic descends, from its (batch,) values of true and of made samples.

    Source: Arjovsky et al. 2017, equation 2, negated; for `kl` Goodfellow et al. 2014, equation 1, on logits.
    Deviations: DGRM writes both sides of the Wasserstein game with the other sign, which is the same game.
    """
    if game == "wasserstein":
        return made.mean() - real.mean()
    return F.softplus(-real).mean() + F.softplus(made).mean()


def generator_loss(made: Tensor, game: Game) -> Tensor:
    """() what the generator descends; of the `kl` game the form whose gradient does not vanish where the critic wins.

    Source: as `critic_loss`.
    Deviations: none.
    """
    return -made.mean() if game == "wasserstein" else F.softplus(-made).mean()


def slopes(judge: Judge, at: Tensor) -> Tensor:
    """(batch,) Euclidean norm of the judge's gradient at each sample, itself to be differentiated."""
    with torch.enable_grad():
        at = at.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(judge(at).sum(), at, create_graph=True)
    return gradient.square().sum(1).clamp_min(1e-12).sqrt()


def between_samples(real: Tensor, made: Tensor, rng: torch.Generator | None) -> Tensor:
    """(batch, width) a point on the line between the two samples of each row, drawn uniformly."""
    share = torch.rand(len(real), 1, generator=rng, device=real.device, dtype=real.dtype)
    return share * real + (1 - share) * made


def gradient_penalty(judge: Judge, real: Tensor, made: Tensor, rng: torch.Generator | None) -> Tensor:
    """() mean squared distance of the slope from 1 between true and made samples.

    Source: Gulrajani et al. 2017, equation 3.
    Deviations: none. Only the sample is differentiated by, never what the judge is told beside it.
    """
    return (slopes(judge, between_samples(real, made, rng)) - 1).square().mean()


def flat_penalty(judge: Judge, real: Tensor) -> Tensor:
    """() half the mean squared slope at true samples.

    Source: Mescheder et al. 2018, R1.
    Deviations: none.
    """
    return 0.5 * slopes(judge, real).square().mean()


@torch.no_grad()
def clip_weights(module: nn.Module, limit: float) -> None:
    """Cuts every weight to -limit..limit.

    Source: Arjovsky et al. 2017, algorithm 1.
    Deviations: none.
    """
    for weight in module.parameters():
        weight.clamp_(-limit, limit)
