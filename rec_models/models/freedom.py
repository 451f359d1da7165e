"""FREEDOM: a frozen graph of alike items beside the graph of who took what, of which popular edges are pruned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy import sparse
from torch import Tensor, nn

from rec_models.blocks import of_distinct
from rec_models.graph import GraphRecommender, SparseMatrix, adjacency, pair_arrays, ranking_loss, smoothed
from rec_models.interactions import InteractionMatrix, PairBatch, ResidentInteractions, UserBatch
from rec_models.losses import bpr, mean_where
from rec_models.neighbours import (
    Neighbours,
    as_graph,
    kept_neighbours,
    nearest_neighbours,
    neighbour_matrix,
    normalised,
)
from rec_models.recommender import RecommenderConfig
from rec_models.semantic import Language, ModelInputs, item_modalities


class FREEDOMConfig(RecommenderConfig):
    """Settings of FREEDOM, and of LATTICE's learned graph in its place.

    Attributes:
        dim: width of the embeddings.
        layers: steps on the graph of interactions; layers are averaged.
        item_layers: steps on the graph of items; the last layer counts.
        neighbours: alike items an item has in each modality (k).
        weighted: edges between items carry cosines (LATTICE) instead of 1.
        item_graph: `frozen`, from the vectors as they are; or `learned`, mixed anew each epoch with the graph of what
            the vectors are mapped to.
        frozen_share: of the frozen graph in a learned one (λ of LATTICE).
        modalities: item matrices: `profiles`, and any other the bundle names.
        modality_weights: of each modality in the graph of items; null weighs all alike.
        prune_share: interactions left out of the graph in an epoch; those of popular users and items go first (ρ).
        modality_loss_weight: of ranking by mapped vectors alone (λ).
        l2_weight: on the sum of squares of all parameters.
        batch_pairs: interactions an optimiser step; each step walks both graphs once.
        language: `profiles`, or a control that carries no meaning: `shuffled` vectors, `random` ones.
    """

    paper: ClassVar[str] = (
        "Zhou & Shen, A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal Recommendation "
        "(FREEDOM), MM 2023"
    )
    reads_language: ClassVar[bool] = True
    scores_new_users: ClassVar[bool] = False

    name: Literal["freedom"] = "freedom"
    dim: int = Field(default=64, ge=1)
    layers: int = Field(default=2, ge=0)
    item_layers: int = Field(default=1, ge=0)
    neighbours: int = Field(default=10, ge=1)
    weighted: bool = False
    item_graph: Literal["frozen", "learned"] = "frozen"
    frozen_share: float = Field(default=0.9, ge=0, le=1)
    modalities: tuple[str, ...] = Field(default=("profiles",), min_length=1)
    modality_weights: tuple[float, ...] | None = None
    prune_share: float = Field(default=0.8, ge=0, lt=1)
    modality_loss_weight: float = Field(default=1e-3, ge=0)
    l2_weight: float = Field(default=0.0, ge=0)
    batch_pairs: int = Field(default=1024, ge=1)
    language: Language = "profiles"

    @model_validator(mode="after")
    def _one_weight_a_modality(self) -> FREEDOMConfig:
        weights = self.modality_weights
        if weights is not None and (len(weights) != len(self.modalities) or min(weights) < 0 or not sum(weights)):
            raise ValueError(f"modality_weights {weights} must be one weight from 0 up for each of {self.modalities}")
        return self

    def build(self, inputs: ModelInputs) -> FREEDOM:
        """The untrained model, with its graph of items."""
        return FREEDOM(self, inputs)


class FREEDOM(GraphRecommender):
    """FREEDOM over any number of modalities.

    Source: Zhou & Shen 2023, equations 1-12; LATTICE (Zhang et al. 2021) for `item_graph=learned`.
    Deviations: vectors of modalities stay as they are, where the code goes on training them under the modality loss.
    Pairs in which an item lacks a modality have no term there, and maps have no bias, which would cancel. Weights of
    modalities add up to 1. A learned graph is that of the vectors under the maps which the modality loss trains, made
    at the start of an epoch and never differentiated; LATTICE differentiates the first batch of an epoch through it.
    """

    def __init__(self, config: FREEDOMConfig, inputs: ModelInputs) -> None:
        super().__init__(inputs.train, config.batch_pairs)
        self.config, self.interactions = config, inputs.train
        self.graph = adjacency(inputs.train)
        self.pruned = self.graph
        matrices = item_modalities(config.name, inputs, config.modalities, config.language)
        for name, matrix in matrices.items():
            self.register_buffer(f"{name}_vectors", matrix.vectors.float(), persistent=False)
            self.register_buffer(f"{name}_present", matrix.present, persistent=False)
        self.user_table = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_users, config.dim)))
        self.item_table = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_items, config.dim)))
        self.maps = nn.ModuleDict(
            {name: nn.Linear(matrix.dim, config.dim, bias=False) for name, matrix in matrices.items()}
        )
        self.frozen = self.alike(
            kept_neighbours(inputs.derived, matrix.vectors, matrix.present, config.neighbours)
            for matrix in matrices.values()
        )
        self.alike_items = as_graph(self.frozen)

    def alike(self, found: Iterable[Neighbours]) -> sparse.csr_array:
        """(n_items, n_items) weighted sum of normalised graphs, of the neighbours in each modality in their order."""
        weights = self.config.modality_weights or (1.0,) * len(self.maps)
        total = sparse.csr_array((self.n_items, self.n_items))
        for weight, neighbours in zip(weights, found, strict=True):
            graph = normalised(neighbour_matrix(neighbours, symmetric=False, weighted=self.config.weighted))
            total = total + graph * (weight / sum(weights))
        return total.tocsr()

    @torch.no_grad()
    def relearned(self) -> SparseMatrix:
        """The graph of items as the maps now see them, mixed with the frozen one."""
        share = self.config.frozen_share
        learned = self.alike(
            nearest_neighbours(
                layer(self.get_buffer(f"{name}_vectors")), self.get_buffer(f"{name}_present"), self.config.neighbours
            )
            for name, layer in self.maps.items()
        )
        mixed = self.frozen * share + learned * (1 - share)
        return as_graph(mixed.tocsr()).to(self.item_table.device)

    def batches(
        self, history: ResidentInteractions, order: np.random.Generator, size: int
    ) -> Iterator[UserBatch | PairBatch]:
        """Every interaction once; the graphs of the epoch are made first."""
        if self.config.prune_share:
            kept = kept_interactions(self.interactions, 1 - self.config.prune_share, order)
            self.pruned = adjacency(kept).to(self.item_table.device)
        if self.config.item_graph == "learned":
            self.alike_items = self.relearned()
        yield from super().batches(history, order, size)

    def smooth(self, graph: SparseMatrix, alike: SparseMatrix) -> tuple[Tensor, Tensor]:
        """Final vectors: mean layers on a graph of interactions, and for items what alike items add."""
        nodes = smoothed(graph, torch.cat([self.user_table, self.item_table]), self.config.layers, "mean")
        added = self.item_table
        for _ in range(self.config.item_layers):
            added = alike(added)
        return nodes[: self.n_users], nodes[self.n_users :] + added

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Final vectors on the whole graph of interactions; a learned graph of items is that of the present weights."""
        return self.smooth(self.graph, self.relearned() if self.config.item_graph == "learned" else self.alike_items)

    def loss(self, batch: PairBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """BPR on final vectors, BPR on mapped modalities, and the penalty."""
        users, items = self.smooth(self.pruned, self.alike_items)
        negatives = batch.negatives(rng).squeeze(1)
        own = users[batch.users]
        return {
            "ranking": ranking_loss(own, items[batch.items], items[negatives]),
            "modalities": self.config.modality_loss_weight * self.modality_loss(own, batch.items, negatives),
            "penalty": self.config.l2_weight * self.squares(),
        }

    def modality_loss(self, own: Tensor, taken: Tensor, untaken: Tensor) -> Tensor:
        """() sum over modalities of the mean BPR of users' vectors with mapped items, where both items have them."""
        terms = []
        for name, layer in self.maps.items():
            mapped = of_distinct(layer, self.get_buffer(f"{name}_vectors"), torch.cat([taken, untaken]))
            scores = (own.repeat(2, 1) * mapped).sum(-1).view(2, -1)
            present = self.get_buffer(f"{name}_present")
            terms.append(mean_where(bpr(scores[0], scores[1]), present[taken] & present[untaken]))
        return torch.stack(terms).sum()


def kept_interactions(train: InteractionMatrix, keep: float, rng: np.random.Generator) -> InteractionMatrix:
    """A share of the interactions, drawn without replacement by 1 / sqrt(degree of the user x degree of the item).

    Source: FREEDOM (Zhou & Shen 2023), section 3.2.
    Deviations: none. The draw is by the smallest of exponential waiting times, one an interaction.
    """
    users, items = pair_arrays(train)
    waits = rng.standard_exponential(len(users)) * np.sqrt(train.lengths()[users] * train.item_counts()[items])
    kept = np.sort(np.argpartition(waits, max(1, round(keep * len(waits))) - 1)[: max(1, round(keep * len(waits)))])
    return InteractionMatrix.from_pairs(
        users[kept], items[kept], train.values[kept], n_users=train.n_users, n_items=train.n_items
    )
