"""VBPR: matrix factorisation with a second taste, for what an item's modalities show."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rec_models.blocks import of_distinct
from rec_models.graph import GraphRecommender, ranking_loss
from rec_models.interactions import PairBatch
from rec_models.recommender import RecommenderConfig
from rec_models.semantic import Language, ModelInputs, item_modalities


class VBPRConfig(RecommenderConfig):
    """Settings of VBPR.

    Attributes:
        dim: width of the latent factors (K).
        taste_dim: width of what modalities are mapped to (D).
        modalities: item matrices: `profiles`, and any other the bundle names.
        l2_weight: on the squares of a batch's rows of users and items, over its pairs.
        map_l2_weight: on the squares of the maps from modalities.
        batch_pairs: interactions an optimiser step.
        language: `profiles`, or a control that carries no meaning: `shuffled` vectors, `random` ones.
    """

    paper: ClassVar[str] = "He & McAuley, VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback, AAAI 2016"
    reads_language: ClassVar[bool] = True
    scores_new_users: ClassVar[bool] = False

    name: Literal["vbpr"] = "vbpr"
    dim: int = Field(default=64, ge=1)
    taste_dim: int = Field(default=64, ge=1)
    modalities: tuple[str, ...] = Field(default=("profiles",), min_length=1)
    l2_weight: float = Field(default=1e-3, ge=0)
    map_l2_weight: float = Field(default=0.0, ge=0)
    batch_pairs: int = Field(default=1024, ge=1)
    language: Language = "profiles"

    def build(self, inputs: ModelInputs) -> VBPR:
        """The untrained model."""
        return VBPR(self, inputs)


class VBPR(GraphRecommender):
    """VBPR over any number of modalities.

    Source: He & McAuley 2016, equations 3-4 and 7: latent factors, tastes, an item's bias and a bias read from its
    features. The global offset and users' biases cancel in the ranking.
    Deviations: several modalities are one long feature, so the tastes of a user are shared by all of them; the paper
    has images alone. Adam over batches of pairs, where the paper steps pair by pair. An item without a modality is zero
    there.
    """

    def __init__(self, config: VBPRConfig, inputs: ModelInputs) -> None:
        super().__init__(inputs.train, config.batch_pairs)
        self.config = config
        matrices = item_modalities(config.name, inputs, config.modalities, config.language)
        for name, matrix in matrices.items():
            self.register_buffer(f"{name}_vectors", matrix.vectors.float(), persistent=False)
        self.user_table = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_users, config.dim)))
        self.item_table = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_items, config.dim)))
        self.tastes = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_users, config.taste_dim)))
        self.item_bias = nn.Parameter(torch.zeros(self.n_items, 1))
        # the last column of a map is the bias that features give
        self.maps = nn.ModuleDict(
            {name: nn.Linear(matrix.dim, config.taste_dim + 1, bias=False) for name, matrix in matrices.items()}
        )

    def shown(self, items: Tensor) -> Tensor:
        """(len(items), taste_dim + 1) what the modalities of some items show, and the bias they give."""
        parts = [of_distinct(layer, self.get_buffer(f"{name}_vectors"), items) for name, layer in self.maps.items()]
        return torch.stack(parts).sum(0)

    def of_users(self, users: Tensor) -> Tensor:
        """(len(users), dim + taste_dim + 1) factors, tastes, and 1 for the bias of an item."""
        own = self.user_table[users]
        return torch.cat([own, self.tastes[users], torch.ones_like(own[:, :1])], 1)

    def of_items(self, items: Tensor) -> Tensor:
        """(len(items), dim + taste_dim + 1) factors, what is shown, and both biases."""
        shown = self.shown(items).to(self.item_table.dtype)
        bias = shown[:, -1:] + self.item_bias[items]
        return torch.cat([self.item_table[items], shown[:, :-1], bias], 1)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users and items, whose products are the scores."""
        device = self.user_table.device
        users, items = (torch.arange(n, device=device) for n in (self.n_users, self.n_items))
        return self.of_users(users), self.of_items(items)

    def loss(self, batch: PairBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """BPR and the penalties."""
        negatives = batch.negatives(rng).squeeze(1)
        both = torch.cat([batch.items, negatives])
        users, items = self.of_users(batch.users), self.of_items(both)
        rows = (self.user_table[batch.users], self.tastes[batch.users], self.item_table[both], self.item_bias[both])
        squares = torch.stack([row.square().sum() for row in rows]).sum()
        of_maps = torch.stack([layer.square().sum() for layer in self.maps.parameters()]).sum()
        return {
            "ranking": ranking_loss(users, items[: len(batch)], items[len(batch) :]),
            "penalty": self.config.l2_weight * squares / len(batch) + self.config.map_l2_weight * of_maps,
        }
