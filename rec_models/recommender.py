"""What the training loop and the evaluation ask of a model, and of its settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from rec_models.gaussians import DiagonalGaussian, kl_to_standard
from rec_models.interactions import InteractionMatrix, PairBatch, ResidentInteractions, UserBatch
from rec_models.semantic import ModelInputs


class RecommenderConfig(BaseModel):
    """Settings of one model. Subclasses add `name: Literal[...]` and their options, and know how to build it.

    Attributes:
        reads_language: it needs semantic matrices.
        reads_words: it reads `ModelInputs.text`.
        scores_new_users: it scores a user from the row it is handed, so that a user it was not trained on gets the
            scores of a trained user with the same row and text. Not so for whoever keeps a vector a user.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    paper: ClassVar[str]
    reads_language: ClassVar[bool] = False
    reads_words: ClassVar[bool] = False
    scores_new_users: ClassVar[bool] = True

    def key(self) -> dict[str, Any]:
        """All settings as plain values, defaults included: what identifies the model beside data and seed."""
        return self.model_dump(mode="json")

    def build(self, inputs: ModelInputs) -> Recommender:
        """The untrained model; the caller has seeded torch."""
        raise NotImplementedError(f"{type(self).__name__}.build")


class ParameterGroup(NamedTuple):
    """Parameters that step together. One Adam over several groups is as many Adams stepping in turn.

    Attributes:
        learning_rate: None takes `training.learning_rate`; `training.learning_rate_decay` applies to either.
        weight_decay: None takes `training.weight_decay`.
    """

    name: str
    parameters: list[nn.Parameter]
    learning_rate: float | None = None
    weight_decay: float | None = None


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
        """One epoch: every user with a row once, `size` at a time. All its chance comes from `order`.

        A user without a row has nothing to teach, and a user who is held out must not teach.
        """
        users = history.active[order.permutation(len(history.active))]
        for start in range(0, len(users), size):
            yield history.batch(users[start : start + size])

    def loss(self, batch: Any, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """Named () terms, the fit to the interactions first; their sum is descended.

        Args:
            batch: one of `batches`.
            step: optimiser steps so far.
        """
        raise NotImplementedError

    def parameter_groups(self) -> list[ParameterGroup]:
        """Every parameter once; groups may have a learning rate or weight decay of their own."""
        return [ParameterGroup("all", list(self.parameters()))]

    def diagnostics(self, batches: Iterable[UserBatch]) -> dict[str, float]:
        """What a validation pass should report beside the metrics, over the given users; called in eval mode."""
        return {}


class ClosedFormRecommender(Recommender):
    """A recommender that is solved once, without an optimiser."""

    def fit(self, train: InteractionMatrix) -> None:
        """Solves for the model's buffers."""
        raise NotImplementedError


class Encoding(NamedTuple):
    """What a base makes of a batch.

    Attributes:
        posterior: (batch, latent) of each user.
        rows: the interactions as whatever reads beside the base must see them: in training with the same entries
            dropped, since a second mask would show what the first one hides.
    """

    posterior: DiagonalGaussian
    rows: UserBatch


class VariationalRecommender(GradientRecommender):
    """A base: a recommender with a diagonal posterior, which matchings, anchors and flows can wrap.

    It learns and scores on its own by `loss` and `scores`; what wraps it uses the parts and replaces those two.
    """

    latent_dim: int
    clamp_log_variance: float | None

    def encode(self, batch: UserBatch, rng: torch.Generator | None) -> Encoding:
        """The posterior of each user; with an `rng` noise and dropout as in training, without one as at inference."""
        raise NotImplementedError

    def likelihood(self, z: Tensor, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """Named () terms that make z (batch, latent) tell of the true rows; `reconstruction` is nats a user."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """(batch, n_items) float32 logits, for ranking: made without a graph."""
        raise NotImplementedError

    def divergence_weight(self, step: int, batch_size: int) -> float:
        """What the divergence is multiplied by at an optimiser step."""
        raise NotImplementedError

    def point(self, posterior: DiagonalGaussian) -> Tensor:
        """(batch, latent) what is decoded at inference: the mean."""
        return posterior.mean

    def loss(self, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """The likelihood's terms and the weighted KL to the standard normal."""
        posterior, _ = self.encode(batch, rng)
        terms = self.likelihood(posterior.sample(rng), batch, rng, step)
        return terms | {"kl": self.divergence_weight(step, len(batch)) * kl_to_standard(posterior).mean()}

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) logits of the posterior's point."""
        return self.decode(self.point(self.encode(batch, None).posterior))


def annealed(weight: float, step: int, steps: int) -> float:
    """`weight`, reached linearly from 0 over the first `steps` optimiser steps; 0 steps hold it from the start."""
    return weight if steps == 0 else weight * min(1.0, step / steps)
