"""What the training loop and the evaluation ask of a model, and of its settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from rec_models.gaussians import DiagonalGaussian
from rec_models.interactions import InteractionMatrix, PairBatch, ResidentInteractions, UserBatch
from rec_models.semantic import ModelInputs


class RecommenderConfig(BaseModel):
    """Settings of one model. Subclasses add `name: Literal[...]` and their options, and know how to build it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paper: ClassVar[str]
    reads_language: ClassVar[bool] = False

    def key(self) -> dict[str, Any]:
        """All settings as plain values, defaults included: what identifies the model beside data and seed."""
        return self.model_dump(mode="json")

    def build(self, inputs: ModelInputs) -> Recommender:
        """The untrained model; the caller has seeded torch."""
        raise NotImplementedError(f"{type(self).__name__}.build")


class Recommender(nn.Module):
    """A model that scores every item for a batch of users."""

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) float32, higher is better; history is not masked here. Only called in eval mode."""
        raise NotImplementedError

    def provenance(self) -> dict[str, str]:
        """What the model reads that its settings do not tell, such as which edges are surrogates; for its metrics."""
        return {}


class GradientRecommender(Recommender):
    """A recommender that learns by descending a loss over batches: of users, unless it says otherwise."""

    def batches(
        self, history: ResidentInteractions, order: np.random.Generator, size: int
    ) -> Iterator[UserBatch | PairBatch]:
        """One epoch: every user once, `size` at a time. All its chance comes from `order`."""
        users = order.permutation(history.n_users)
        for start in range(0, len(users), size):
            yield history.batch(users[start : start + size])

    def loss(self, batch: Any, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """Named () terms, the fit to the interactions first; their sum is descended.

        Args:
            batch: one of `batches`.
            step: optimiser steps so far.
        """
        raise NotImplementedError


class ClosedFormRecommender(Recommender):
    """A recommender that is solved once, without an optimiser."""

    def fit(self, train: InteractionMatrix) -> None:
        """Solves for the model's buffers."""
        raise NotImplementedError


@runtime_checkable
class VariationalEncoderDecoder(Protocol):
    """The part that language matching, anchors and flows can wrap: any recommender with a diagonal posterior."""

    latent_dim: int

    def corrupt(self, batch: UserBatch, rng: torch.Generator) -> UserBatch:
        """The input rows as the encoder sees them in training."""
        ...

    def clean(self, batch: UserBatch) -> UserBatch:
        """The input rows as the encoder sees them at inference."""
        ...

    def encode(self, batch: UserBatch) -> DiagonalGaussian:
        """(batch, latent) posterior of each user given the rows."""
        ...

    def reconstruction(self, z: Tensor, batch: UserBatch) -> Tensor:
        """() mean negative log-likelihood of the true rows."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """(batch, n_items) logits."""
        ...

    def kl_scale(self, step: int) -> float:
        """Weight of the divergence terms at an optimiser step."""
        ...
