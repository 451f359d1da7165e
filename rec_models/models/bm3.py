"""BM3: no negatives; users, items and modalities are drawn to what dropout leaves of one another."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rec_models.blocks import dropped, of_distinct
from rec_models.graph import GraphRecommender, adjacency, smoothed
from rec_models.interactions import PairBatch
from rec_models.losses import mean_where, unit
from rec_models.recommender import RecommenderConfig
from rec_models.semantic import Language, ModelInputs, item_modalities


class BM3Config(RecommenderConfig):
    """Settings of BM3.

    Attributes:
        dim: width of the embeddings.
        layers: graph steps; layers are averaged.
        dropout: share of a target's entries that are dropped.
        modalities: item matrices: `profiles`, and any other the bundle names.
        modality_loss_weight: of drawing modalities to their items and to themselves.
        l2_weight: on the mean squared length of users' and of items' vectors.
        batch_pairs: interactions an optimiser step; each step walks the whole graph once.
        language: `profiles`, or a control that carries no meaning: `shuffled` vectors, `random` ones.
    """

    paper: ClassVar[str] = (
        "Zhou et al., Bootstrap Latent Representations for Multi-modal Recommendation (BM3), WWW 2023"
    )
    reads_language: ClassVar[bool] = True
    scores_new_users: ClassVar[bool] = False

    name: Literal["bm3"] = "bm3"
    dim: int = Field(default=64, ge=1)
    layers: int = Field(default=1, ge=0)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    modalities: tuple[str, ...] = Field(default=("profiles",), min_length=1)
    modality_loss_weight: float = Field(default=2.0, ge=0)
    l2_weight: float = Field(default=1e-3, ge=0)
    batch_pairs: int = Field(default=1024, ge=1)
    language: Language = "profiles"

    def build(self, inputs: ModelInputs) -> BM3:
        """The untrained model."""
        return BM3(self, inputs)


class BM3(GraphRecommender):
    """BM3 over any number of modalities.

    Source: Zhou et al. 2023, equations 1-13, and its code.
    Deviations: losses are 1 - cosine, as in the code; the paper leaves out the 1. Dropout is drawn for each interaction
    of the batch, where the code draws once for each node and step. The penalty takes mean squared lengths, the code
    norms of whole tables over the number of items. Items without a modality have no term there.
    """

    def __init__(self, config: BM3Config, inputs: ModelInputs) -> None:
        super().__init__(inputs.train, config.batch_pairs)
        self.config = config
        self.graph = adjacency(inputs.train)
        matrices = item_modalities(config.name, inputs, config.modalities, config.language)
        for name, matrix in matrices.items():
            self.register_buffer(f"{name}_vectors", matrix.vectors.float(), persistent=False)
            self.register_buffer(f"{name}_present", matrix.present, persistent=False)
        self.user_table = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_users, config.dim)))
        self.item_table = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_items, config.dim)))
        self.maps = nn.ModuleDict({name: nn.Linear(matrix.dim, config.dim) for name, matrix in matrices.items()})
        self.predictor = nn.Linear(config.dim, config.dim)

    def smooth(self) -> tuple[Tensor, Tensor]:
        """Vectors before the predictor: mean layers, and for items their embedding once more."""
        nodes = smoothed(self.graph, torch.cat([self.user_table, self.item_table]), self.config.layers, "mean")
        return nodes[: self.n_users], nodes[self.n_users :] + self.item_table

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Final vectors: those of the graph through the predictor."""
        users, items = self.smooth()
        return self.predictor(users), self.predictor(items)

    def loss(self, batch: PairBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """Users and items of the batch drawn to each other, modalities to their items, and the penalty."""
        all_users, all_items = self.smooth()
        users, items = all_users[batch.users], all_items[batch.items]
        user_target, item_target = self.target(users, rng), self.target(items, rng)
        drawn = apart(self.predictor(users), item_target) + apart(self.predictor(items), user_target)
        lengths = all_users.square().sum(-1).mean() + all_items.square().sum(-1).mean()
        return {
            "ranking": drawn.mean(),
            "modalities": self.config.modality_loss_weight * self.modality_loss(batch.items, item_target, rng),
            "penalty": self.config.l2_weight * lengths,
        }

    def modality_loss(self, items: Tensor, item_target: Tensor, rng: torch.Generator) -> Tensor:
        """() sum over modalities of how far mapped vectors are from their items and from themselves after dropout."""
        terms = []
        for name, layer in self.maps.items():
            mapped = of_distinct(layer, self.get_buffer(f"{name}_vectors"), items)
            online = self.predictor(mapped)
            far = apart(online, item_target) + apart(online, self.target(mapped, rng))
            terms.append(mean_where(far, self.get_buffer(f"{name}_present")[items]))
        return torch.stack(terms).sum()

    def target(self, vectors: Tensor, rng: torch.Generator) -> Tensor:
        """What is left after dropout of vectors that nothing is learned through."""
        return dropped(vectors.detach(), self.config.dropout, rng)


def apart(online: Tensor, target: Tensor) -> Tensor:
    """(n,) 1 - cosine of each pair of rows."""
    return 1 - (unit(online) * unit(target)).sum(-1)
