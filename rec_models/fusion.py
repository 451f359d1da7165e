"""Adaptive fusion: IDs and modalities become one unit vector an item."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from rec_models.blocks import dropped
from rec_models.losses import unit

FusionForm = Literal["free", "softmax", "concat", "sum"]


class ModalityFusion(nn.Module):
    """Weighs or maps IDs and modalities together, then normalises the layer, drops out, and scales to unit length.

    Args:
        how: the weights of the sum are `free` numbers or go through a `softmax`; or a linear map reads the vectors'
            concatenation (`concat`) or their plain sum (`sum`).
        start: first weight of each modality; IDs have the rest of 1. Read by the two weighted forms.
        dim: of each vector, and of the result.
        dropout: share of features.

    Source: RecGOAT's code, where weights are free numbers.
    Deviations: `softmax` is commented out there; `concat` and `sum` are its other modes.
    """

    def __init__(self, how: FusionForm, start: list[float], dim: int, dropout: float) -> None:
        super().__init__()
        self.how, self.dropout = how, dropout
        weighted = how in ("free", "softmax")
        self.weights = nn.Parameter(torch.tensor(start)) if weighted and start else None
        inputs = len(start) + 1 if how == "concat" else 1
        self.map = nn.Identity() if weighted else nn.Linear(inputs * dim, dim)
        self.norm = nn.LayerNorm(dim)

    def shares(self) -> Tensor:
        """(1 + modalities,) weights of IDs and of each modality."""
        weights = self.norm.weight.new_zeros(0) if self.weights is None else self.weights
        shares = torch.cat([1 - weights.sum(0, keepdim=True), weights])
        return torch.softmax(shares, 0) if self.how == "softmax" else shares

    def forward(self, ids: Tensor, modalities: list[Tensor], rng: torch.Generator | None) -> Tensor:
        """(n, dim) of unit length; with an `rng` with dropout, as in training."""
        parts = [ids, *modalities]
        if self.how == "concat":
            fused = torch.cat(parts, 1)
        elif self.how == "sum":
            fused = torch.stack(parts).sum(0)
        else:
            fused = torch.stack([share * part for share, part in zip(self.shares(), parts, strict=True)]).sum(0)
        fused = self.norm(self.map(fused).float())
        return unit(dropped(fused, self.dropout, rng) if rng else fused)
