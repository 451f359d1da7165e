"""What the training loop and the evaluation ask of a model, and of its settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from rec_models.gaussians import DiagonalGaussian, kl_to_standard
from rec_models.interactions import InteractionMatrix, PairBatch, ResidentInteractions, Turn, UserBatch
from rec_models.semantic import ModelInputs


class RecommenderConfig(BaseModel):
    """Settings of one model. Subclasses add `name: Literal[...]` and their options, and know how to build it.

    Attributes:
        reads_language: whether the model reads semantic matrices as its defaults have it.
        reads_words: whether it reads `ModelInputs.text` as its defaults have it.
        reads_ratings: whether the values of its interactions are ratings, as its defaults have it; else they are ones.
        scores_new_users: it scores a user from the row it is handed, so that a user it was not trained on gets the
            scores of a trained user with the same row and text. Not so for whoever needs a vector a user.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    paper: ClassVar[str]
    reads_language: ClassVar[bool] = False
    reads_words: ClassVar[bool] = False
    reads_ratings: ClassVar[bool] = False
    scores_new_users: ClassVar[bool] = True

    @property
    def asks_for_language(self) -> bool:
        """Whether the model reads semantic matrices as it is set here."""
        return self.reads_language

    @property
    def asks_for_words(self) -> bool:
        """Whether the model reads words of items as it is set here."""
        return self.reads_words

    @property
    def asks_for_ratings(self) -> bool:
        """Whether the values of interactions are ratings to the model as it is set here."""
        return self.reads_ratings

    def key(self) -> dict[str, Any]:
        """All settings as plain values, defaults included: what identifies the model beside data and seed."""
        return self.model_dump(mode="json")

    def build(self, inputs: ModelInputs) -> Recommender:
        """The untrained model; the caller has seeded torch."""
        raise NotImplementedError(f"{type(self).__name__}.build")


# The group that alone learns in a turn of its name, and rests in the turn of its counterpart.
_RESTS = {"encoder": "decoder", "decoder": "decoder", "generator": "critic", "critic": "critic"}


class ParameterGroup(NamedTuple):
    """Parameters that step together. One Adam over several groups is as many Adams stepping in turn.

    Attributes:
        name: `decoder` or `critic` for what rests while the other side of a batch's `turn` learns.
        learning_rate: None takes `training.learning_rate`; `training.learning_rate_decay` applies to either.
        weight_decay: None takes `training.weight_decay`.
        betas: Adam's memories of the gradient and of its square.
    """

    name: str
    parameters: list[nn.Parameter]
    learning_rate: float | None = None
    weight_decay: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)

    def learns(self, turn: Turn) -> bool:
        """Whether the group steps on a batch of this turn."""
        rests = _RESTS.get(turn)
        return rests is None or (self.name == rests) == (turn == rests)


class Recommender(nn.Module):
    """A model that scores every item for a batch of users.

    Attributes:
        predicts_ratings: its scores are on the scale of the ratings it was trained on.
    """

    predicts_ratings: bool = False

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) float32, higher is better; history is not masked here. Only called in eval mode."""
        raise NotImplementedError

    def provenance(self) -> dict[str, str]:
        """What the model reads that its settings do not tell, such as which edges are surrogates; for its metrics."""
        return {}

    def served(self) -> Recommender:
        """What is kept of the model once it is trained, with the same scores: without what only training needs."""
        return self


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

    def validated(self, better: bool) -> None:
        """Told after every validation pass whether it was a new best, for what is scheduled on that.

        Whatever it changes must be a buffer, so that a resumed run has it.
        """


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


class Draw(NamedTuple):
    """A latent drawn from a posterior, and what a flow made of it.

    Attributes:
        start: (batch, latent) the draw.
        end: (batch, latent) where a flow takes it; the draw itself without a flow.
        log_volume: (batch,) ln |d end / d start|, None without a flow.
        decoded: (batch, latent) the one of the two that is decoded.
    """

    start: Tensor
    end: Tensor
    log_volume: Tensor | None
    decoded: Tensor

    @classmethod
    def plain(cls, z: Tensor) -> Draw:
        """A draw that no flow changes."""
        return cls(z, z, None, z)


class Learned(NamedTuple):
    """A loss, and the latents it was taken at.

    Attributes:
        terms: named () terms, the fit to the interactions first; their sum is descended.
        posterior: (batch, latent) what was drawn from.
        draw: the draw that was decoded.
    """

    terms: dict[str, Tensor]
    posterior: DiagonalGaussian
    draw: Draw


class LatentRecommender(GradientRecommender):
    """A recommender that decodes a draw from a diagonal posterior, which anchors can pull at."""

    latent_dim: int

    def learned(self, batch: UserBatch, rng: torch.Generator, step: int) -> Learned:
        """The terms of the loss, and the latents they were taken at."""
        raise NotImplementedError

    def loss(self, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """The terms of `learned`."""
        return self.learned(batch, rng, step).terms


class VariationalRecommender(LatentRecommender):
    """A base: a recommender with a diagonal posterior, which matchings, anchors and flows can wrap.

    It learns and scores on its own by `loss` and `scores`; what wraps it uses the parts and replaces those two.
    """

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

    def divergence(self, posterior: DiagonalGaussian, draw: Draw, batch: UserBatch) -> Tensor:
        """(batch,) nats between each posterior and the prior, exact or estimated by the draw."""
        return kl_to_standard(posterior)

    def averaged(self, divergence: Tensor, batch: UserBatch) -> Tensor:
        """() mean of (batch,) divergences, for a base to weigh users by."""
        return divergence.mean()

    def drawn(self, posterior: DiagonalGaussian, rng: torch.Generator) -> Draw:
        """A draw from each posterior, through the base's flow where it has one."""
        return Draw.plain(posterior.sample(rng))

    def point(self, posterior: DiagonalGaussian) -> Tensor:
        """(batch, latent) what is decoded at inference: the mean."""
        return posterior.mean

    def learned(self, batch: UserBatch, rng: torch.Generator, step: int) -> Learned:
        """The likelihood's terms and the weighted divergence from the prior."""
        posterior, _ = self.encode(batch, rng)
        draw = self.drawn(posterior, rng)
        terms = self.likelihood(draw.decoded, batch, rng, step)
        if batch.turn != "decoder":  # nothing of it reaches the decoder
            divergence = self.averaged(self.divergence(posterior, draw, batch), batch)
            terms |= {"kl": self.divergence_weight(step, len(batch)) * divergence}
        return Learned(terms, posterior, draw)

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) logits of the posterior's point."""
        return self.decode(self.point(self.encode(batch, None).posterior))


def annealed(weight: float, step: int, steps: int) -> float:
    """`weight`, reached linearly from 0 over the first `steps` optimiser steps; 0 steps hold it from the start."""
    return weight if steps == 0 else weight * min(1.0, step / steps)
