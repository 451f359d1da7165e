"""AlphaRec: no embeddings of its own; texts through a small network, smoothed over the graph, ranked by cosine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from rec_models.blocks import leaky_mlp
from rec_models.graph import GraphRecommender, adjacency, scaled, smoothed
from rec_models.interactions import InteractionMatrix, PairBatch, ResidentInteractions, UserBatch
from rec_models.losses import chosen_products, sampled_softmax, unit
from rec_models.recommender import RecommenderConfig
from rec_models.semantic import Language, ModelInputs, SemanticMatrix, language_of

UserInit = Literal["mean", "profile", "sum"]
# Hidden widths of the code, which give every width of text about the same number of weights.
_HIDDEN_DIMS = {768: 6144, 1536: 3072, 3072: 1536, 4096: 1152}


class _AlphaRecOptions(RecommenderConfig):
    """Settings of AlphaRec and AlphaRec*.

    Attributes:
        dim: width of the final vectors.
        layers: graph steps; layers are averaged.
        mapping: `mlp`, or `linear` without bias, the code's study of what is linear in texts.
        hidden_dim: of the network; null is the code's for texts of 768, 1536, 3072 or 4096, else twice their width.
        temperature: of the softmax (τ).
        negatives: items drawn an interaction.
        user_init: a user is the mean of their items' texts, their own profile, or the sum of both.
        batch_pairs: interactions an optimiser step.
        language: `profiles`, or a control that carries no meaning: `shuffled` texts, `random` vectors.
    """

    reads_language: ClassVar[bool] = True
    scores_new_users: ClassVar[bool] = False

    dim: int = Field(default=64, ge=1)
    layers: int = Field(default=2, ge=0)
    mapping: Literal["mlp", "linear"] = "mlp"
    hidden_dim: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=0.15, gt=0)
    negatives: int = Field(default=256, ge=1)
    user_init: UserInit = "mean"
    batch_pairs: int = Field(default=4096, ge=1)
    language: Language = "profiles"

    def build(self, inputs: ModelInputs) -> AlphaRec:
        """The untrained model."""
        return AlphaRec(self, inputs.train, *language_of(self.model_dump()["name"], inputs, self.language))


class AlphaRecConfig(_AlphaRecOptions):
    """Settings of AlphaRec."""

    paper: ClassVar[str] = "Sheng et al., Language Representations Can be What Recommenders Need (AlphaRec), ICLR 2025"

    name: Literal["alpharec"] = "alpharec"


class AlphaRecStarConfig(_AlphaRecOptions):
    """Settings of AlphaRec*: AlphaRec whose users begin as their own profiles."""

    paper: ClassVar[str] = "Zhang et al. (DMRec), 2025, who add users' texts to AlphaRec (Sheng et al., ICLR 2025)"

    name: Literal["alpharec_star"] = "alpharec_star"
    user_init: UserInit = "profile"


class AlphaRec(GraphRecommender):
    """AlphaRec, and AlphaRec* with another beginning for users.

    Source: AlphaRec (Sheng et al. 2025) and its code; for AlphaRec* one sentence of DMRec.
    Deviations: texts are profiles, as in DMRec's comparison, not titles. Rows without text are zero after the network
    too, so that they live on their neighbours alone. Hidden widths for texts the code does not know are ours. An epoch
    keeps its last batch when it is the only one; the code would train on nothing. AlphaRec* starts users as their
    profiles, which is our reading (`user_init`). A linear map commutes with the graph, so it is applied after it.
    """

    text: Tensor
    present: Tensor

    def __init__(
        self, config: _AlphaRecOptions, train: InteractionMatrix, items: SemanticMatrix, users: SemanticMatrix
    ) -> None:
        super().__init__(train, config.batch_pairs)
        self.config = config
        self.graph = adjacency(train)
        own = first_users(config.user_init, train, items, users)
        text = torch.cat([own.vectors, items.vectors]).float()
        present = torch.cat([own.present, items.present]).float()[:, None]
        if config.mapping == "linear":
            text = smoothed(self.graph, text, config.layers, "mean")
        # Named as a matrix of nodes: frozen, and never part of a checkpoint.
        self.register_buffer("text", text, persistent=False)
        self.register_buffer("present", present, persistent=False)
        hidden = config.hidden_dim or _HIDDEN_DIMS.get(items.dim, 2 * items.dim)
        self.mapping = (
            nn.Linear(items.dim, config.dim, bias=False)
            if config.mapping == "linear"
            else leaky_mlp(items.dim, hidden, config.dim, xavier=False)
        )

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Unit final vectors of users and items: their products are cosines."""
        nodes = self.mapping(self.text)
        if self.config.mapping == "mlp":
            nodes = smoothed(self.graph, nodes * self.present, self.config.layers, "mean")
        nodes = unit(nodes)
        return nodes[: self.n_users], nodes[self.n_users :]

    def batches(
        self, history: ResidentInteractions, order: np.random.Generator, size: int
    ) -> Iterator[UserBatch | PairBatch]:
        """As many pairs as there are interactions: users in turn, and any item of theirs; whole batches only."""
        entries = history.paired
        users = np.unique(history.user_of(entries))
        visits = users[order.permutation(len(entries)) % len(users)] if len(users) else users
        whole = max(len(visits) // self.batch_pairs * self.batch_pairs, min(len(visits), self.batch_pairs))
        for start in range(0, whole, self.batch_pairs):
            yield history.pairs(history.any_entry(visits[start : start + self.batch_pairs], order))

    def loss(self, batch: PairBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """Softmax of the taken item among drawn ones."""
        users, items = self.vectors()
        chosen = torch.cat([batch.items[:, None], batch.negatives(rng, self.config.negatives)], 1)
        with torch.autocast(users.device.type, enabled=False):
            picked = chosen_products(users, batch.users, items, chosen) / self.config.temperature
        return {"ranking": sampled_softmax(picked[:, 0], picked[:, 1:]).mean()}


@torch.no_grad()
def first_users(
    how: UserInit, train: InteractionMatrix, items: SemanticMatrix, users: SemanticMatrix
) -> SemanticMatrix:
    """What users are before the network: the mean text of their items that have one, their profile, or both summed."""
    if how == "profile":
        return users
    to_users = scaled(train, row_power=0, column_power=0)[0]
    with_text = to_users(items.present.float()[:, None])
    mean = SemanticMatrix(
        to_users(items.vectors.float()) / with_text.clamp_min(1), with_text.squeeze(1) > 0, pooled=True
    )
    if how == "mean":
        return mean
    return SemanticMatrix(mean.vectors + users.vectors.float(), mean.present | users.present)
