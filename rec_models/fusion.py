"""Adaptive fusion: IDs and modalities become one vector an item."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from rec_models.blocks import dropped
from rec_models.losses import unit

FusionForm = Literal["free", "softmax", "concat", "sum"]


class ModalityFusion(nn.Module):
    """Weighs or maps IDs and modalities together.

    Args:
        how: the weights of the sum are `free` numbers or go through a `softmax`; or a linear map reads the vectors'
            concatenation (`concat`) or their plain sum (`sum`).
        start: first weight of each modality; IDs have the rest of 1. Read by the two weighted forms.
        dim: of each vector, and of the result.
        dropout: share of features of normalised vectors.
        normalised: the layer is normalised, dropped out of, and scaled to unit length.

    Source: RecGOAT's code, where weights are free numbers and vectors always normalised.
    Deviations: `softmax` is commented out there; `concat` and `sum` are its other modes. Normalising is an option.
    """

    def __init__(self, how: FusionForm, start: list[float], dim: int, dropout: float, *, normalised: bool) -> None:
        super().__init__()
        self.how, self.dropout = how, dropout
        weighted = how in ("free", "softmax")
        self.weights = nn.Parameter(torch.tensor(start)) if weighted and start else None
        inputs = len(start) + 1 if how == "concat" else 1
        self.map = nn.Identity() if weighted else nn.Linear(inputs * dim, dim)
        self.norm = nn.LayerNorm(dim) if normalised else None

    def shares(self) -> Tensor:
        """(1 + modalities,) weights of IDs and of each modality."""
        if self.weights is None:
            return torch.ones(1)
        shares = torch.cat([1 - self.weights.sum(0, keepdim=True), self.weights])
        return torch.softmax(shares, 0) if self.how == "softmax" else shares

    def forward(self, ids: Tensor, modalities: list[Tensor], rng: torch.Generator | None) -> Tensor:
        """(n, dim); with an `rng` with dropout, as in training."""
        parts = [ids, *modalities]
        if self.how == "concat":
            fused = torch.cat(parts, 1)
        elif self.how == "sum":
            fused = torch.stack(parts).sum(0)
        else:
            fused = torch.stack([share * part for share, part in zip(self.shares(), parts, strict=True)]).sum(0)
        fused = self.map(fused).float()
        if self.norm is None:
            return fused
        fused = self.norm(fused)
        return unit(dropped(fused, self.dropout, rng) if rng else fused)
