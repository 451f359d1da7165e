"""Normalising flows on a latent: inverse autoregressive layers with an exact log-density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rec_models.gaussians import DiagonalGaussian, log_density

# Where the gate of a layer begins: sigmoid(1.5) keeps 82 % of a latent.
_GATE_OPENS_AT = 1.5

DecodeFrom = Literal["end", "start"]


@dataclass(frozen=True)
class ConditionedGaussian(DiagonalGaussian):
    """A Gaussian and the hidden layer it was made from, which a flow reads beside it.

    Attributes:
        context: (batch, width).
    """

    context: Tensor


class InverseAutoregressiveLayer(nn.Module):
    """z -> gate * z + (1 - gate) * shift, gate and shift of a dimension being functions of those before it.

    Source: Kingma et al. 2016, the gated form; masks as in MADE (Germain et al. 2015).
    Deviations: degrees of hidden units are spread evenly instead of drawn, so that a seed decides weights alone.
    """

    inward: Tensor
    outward: Tensor

    def __init__(self, latent_dim: int, context_dim: int, hidden_dim: int, *, backwards: bool) -> None:
        super().__init__()
        self.hidden = nn.Linear(latent_dim, hidden_dim)
        self.context = nn.Linear(context_dim, hidden_dim, bias=False)
        self.out = nn.Linear(hidden_dim, 2 * latent_dim)
        nn.init.normal_(self.out.weight, std=1e-3)
        nn.init.zeros_(self.out.bias)
        order = torch.arange(latent_dim)
        order = order.flip(0) if backwards else order
        degrees = torch.arange(hidden_dim) % max(1, latent_dim - 1)
        # A hidden unit of degree k reads dimensions up to k, and speaks to those after k.
        self.register_buffer("inward", (degrees[:, None] >= order).float(), persistent=False)
        self.register_buffer("outward", (order[:, None] > degrees).float().repeat(2, 1), persistent=False)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, latent) the transformed latent and (batch,) ln |d out / d z|."""
        hidden = torch.tanh(F.linear(z, self.hidden.weight * self.inward, self.hidden.bias) + self.context(context))
        shift, gate = F.linear(hidden, self.out.weight * self.outward, self.out.bias).to(z.dtype).chunk(2, 1)
        gate = gate + _GATE_OPENS_AT
        return shift + torch.sigmoid(gate) * (z - shift), F.logsigmoid(gate).sum(1)


class InverseAutoregressiveFlow(nn.Module):
    """Layers one after another, each with the dimensions in the other order.

    Source: Kingma et al. 2016.
    Deviations: none.
    """

    def __init__(self, layers: int, latent_dim: int, context_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            InverseAutoregressiveLayer(latent_dim, context_dim, hidden_dim, backwards=bool(number % 2))
            for number in range(layers)
        )

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, latent) where the draw ends and (batch,) ln |d end / d z|."""
        volume = z.new_zeros(len(z))
        for layer in self.layers:
            z, own = layer(z, context)
            volume = volume + own
        return z, volume


def divergence_of_flow(start: DiagonalGaussian, z: Tensor, end: Tensor, log_volume: Tensor) -> Tensor:
    """(batch,) one-draw estimate of the KL between a flow's posterior and N(0, I), in nats.

    Source: Rezende & Mohamed 2015.
    Deviations: none.
    """
    return log_density(start, z) - log_volume - log_density(DiagonalGaussian(end * 0, end * 0), end)
