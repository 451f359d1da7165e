"""Graphs of users and items: sparse products whose gradient is a sparse product, and the recommender built on them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rec_models.blocks import products_with_all
from rec_models.interactions import InteractionMatrix, PairBatch, ResidentInteractions, UserBatch
from rec_models.losses import bpr
from rec_models.recommender import GradientRecommender, RecommenderConfig

LayerSum = Literal["sum", "mean"]
# The entries of a sparse matrix by row and by column: gathering one from the other costs as much as a product.
Entries = tuple[Tensor, Tensor]


class SparseMatrix(nn.Module):
    """A fixed sparse matrix; calling it multiplies a dense one from the left.

    Rows are bags of embeddings: on a CPU that kernel is two to ten times as fast as torch's CSR and COO products, and
    it always adds in the same order. The gradient is the same kernel over the transposed pattern.

    Args:
        rows: (nnz,) row of each entry, ascending.
        columns: (nnz,) column of each entry.
        values: (nnz,) float32.
        shape: rows and columns.
    """

    columns: Tensor
    starts: Tensor
    values: Tensor
    rows: Tensor
    column_starts: Tensor
    transposed: Tensor
    transposed_values: Tensor

    def __init__(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> None:
        super().__init__()
        order = np.argsort(columns, kind="stable")
        arrays = {
            "columns": columns.astype(np.int64),
            "starts": _starts(rows, shape[0]),
            "values": values.astype(np.float32),
            "rows": rows[order].astype(np.int64),
            "column_starts": _starts(columns, shape[1]),
            "transposed": order.astype(np.int64),
            "transposed_values": values[order].astype(np.float32),
        }
        for name, array in arrays.items():  # made from the interactions, so never part of a checkpoint
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)), persistent=False)
        self.shape = shape

    def forward(self, dense: Tensor, entries: Entries | None = None) -> Tensor:
        """(rows, width) the product with dense (columns, width), in the precision of the matrix.

        Args:
            entries: of `with_values`, in place of the matrix's own; no gradient reaches them.
        """
        values, transposed = entries or (self.values, self.transposed_values)
        return _Product.apply(dense.to(values.dtype), values, transposed, self)  # type: ignore[no-any-return]

    def pattern(self) -> scipy.sparse.csr_array:
        """(rows, columns) ones where there are entries, on the host."""
        parts = (np.ones(len(self.columns), np.float32), self.columns.cpu().numpy(), self.starts.cpu().numpy())
        return scipy.sparse.csr_array(parts, self.shape)

    def with_values(self, values: Tensor) -> Entries:
        """The same pattern carrying other (nnz,) values, such as after dropout."""
        return values, values[self.transposed]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, values: Tensor, transposed: Tensor, matrix: SparseMatrix) -> Tensor:  # type: ignore[override]
        ctx.matrix = matrix
        ctx.save_for_backward(transposed)
        return _bags(matrix.columns, dense, matrix.starts, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (transposed,) = ctx.saved_tensors
        return _bags(ctx.matrix.rows, grad.contiguous(), ctx.matrix.column_starts, transposed), None, None, None


def _bags(members: Tensor, table: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(members, table, starts, mode="sum", per_sample_weights=weights, include_last_offset=True)


def _starts(sorted_or_not: np.ndarray, n: int) -> np.ndarray:
    starts = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(sorted_or_not, minlength=n), out=starts[1:])
    return starts


def pair_arrays(train: InteractionMatrix) -> tuple[np.ndarray, np.ndarray]:
    """(nnz,) user and (nnz,) item of every interaction, users ascending."""
    return np.repeat(np.arange(train.n_users), train.lengths()), np.array(train.indices, np.int64)


def scaled(train: InteractionMatrix, *, row_power: float, column_power: float) -> tuple[SparseMatrix, SparseMatrix]:
    """(n_users, n_items) and (n_items, n_users) interactions over degree powers; degree 0 gives an empty row.

    Args:
        row_power: an entry is divided by the degree of its row (a user, then an item) to this power.
        column_power: and by the degree of its column to this one.
    """
    users, items = pair_arrays(train)
    by_item = np.argsort(items, kind="stable")
    of_users, of_items = train.lengths().astype(np.float64), train.item_counts().astype(np.float64)
    to_users = of_users[users] ** -row_power * of_items[items] ** -column_power
    to_items = of_items[items] ** -row_power * of_users[users] ** -column_power
    n_users, n_items = train.shape
    return (
        SparseMatrix(users, items, to_users, (n_users, n_items)),
        SparseMatrix(items[by_item], users[by_item], to_items[by_item], (n_items, n_users)),
    )


def adjacency(train: InteractionMatrix) -> SparseMatrix:
    """Square (n_users + n_items) D^-1/2 A D^-1/2 without self loops; users come first, unconnected rows are empty."""
    users, items = pair_arrays(train)
    by_item = np.argsort(items, kind="stable")
    weights = (train.lengths()[users] * train.item_counts()[items].astype(np.float64)) ** -0.5
    places = items + train.n_users
    nodes = train.n_users + train.n_items
    return SparseMatrix(
        np.concatenate([users, places[by_item]]),
        np.concatenate([places, users[by_item]]),
        np.concatenate([weights, weights[by_item]]),
        (nodes, nodes),
    )


def kept_edges(
    graph: SparseMatrix, keep: float, rng: torch.Generator, *, symmetric: bool, rescale: bool
) -> Entries | None:
    """The entries of an `adjacency` with a share of its edges zeroed; None where all are kept.

    Args:
        keep: probability of an edge to stay.
        symmetric: an edge goes in both directions or in none; otherwise each direction is drawn for itself.
        rescale: divide what stays by `keep`.

    Source: RLMRec's code.
    Deviations: none; symmetric and rescaled dropping are options.
    """
    if keep == 1:
        return None
    stays = torch.rand(graph.values.shape, generator=rng, device=graph.values.device) < keep
    if symmetric:
        half = len(stays) // 2
        stays = torch.cat([stays[:half], stays[graph.transposed[half:]]])
    values = graph.values * stays
    return graph.with_values(values / keep if rescale else values)


def smoothed(graph: SparseMatrix, table: Tensor, layers: int, how: LayerSum, entries: Entries | None = None) -> Tensor:
    """(nodes, width) the sum or mean of layers 0..`layers` of repeated products with the graph.

    Source: LightGCN (He et al. 2020), equations 3-4, summed by Horner's rule: E + A (E + A (E + ...)).
    Deviations: `sum` is the default of RLMRec's code; the paper takes the mean.
    """
    total = table
    for _ in range(layers):
        total = table + graph(total, entries)
    return total if how == "sum" else total / (layers + 1)


class GraphConfig(RecommenderConfig):
    """Settings that models with embeddings on the interaction graph share.

    Attributes:
        dim: width of the embeddings.
        layers: graph steps.
        layer_agg: layers are summed (RLMRec's code) or averaged (the LightGCN paper).
        edge_keep: probability of an edge to stay in a training step.
        edge_drop_symmetric: both directions of an edge go together.
        edge_drop_rescale: what stays is divided by `edge_keep`.
        l2_weight: on the sum of squares of all parameters.
        batch_pairs: interactions an optimiser step; each step walks the whole graph once.
    """

    scores_new_users: ClassVar[bool] = False

    dim: int = Field(default=32, ge=1)
    layers: int = Field(default=3, ge=0)
    layer_agg: LayerSum = "sum"
    edge_keep: float = Field(default=0.8, gt=0, le=1)
    edge_drop_symmetric: bool = False
    edge_drop_rescale: bool = False
    l2_weight: float = Field(default=1e-6, ge=0)
    batch_pairs: int = Field(default=4096, ge=1)


class GraphRecommender(GradientRecommender):
    """A recommender with one final vector a user and an item, learned from single interactions.

    The final vectors are functions of the weights alone, so in eval mode they are made once and kept until weights are
    loaded or moved or the mode is set again, as every evaluation does: a validation pass walks the graph once, however
    many batches of users it has. (A weight's version alone would not do: fused optimisers leave it as it was.)
    """

    def __init__(self, train: InteractionMatrix, batch_pairs: int) -> None:
        super().__init__()
        self.n_users, self.n_items = train.shape
        self.batch_pairs = batch_pairs
        self._kept: tuple[object, tuple[Tensor, Tensor]] | None = None

    @abstractmethod
    def vectors(self) -> tuple[Tensor, Tensor]:
        """(n_users, width) and (n_items, width) final vectors on the whole graph; their products are the scores."""

    def batches(
        self, history: ResidentInteractions, order: np.random.Generator, size: int
    ) -> Iterator[UserBatch | PairBatch]:
        """Every interaction once, `batch_pairs` at a time; `size`, which counts users, has no say."""
        entries = order.permutation(history.paired)
        for start in range(0, len(entries), self.batch_pairs):
            yield history.pairs(entries[start : start + self.batch_pairs])

    @torch.no_grad()
    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) products of final vectors, in float32: bfloat16 would tie hundreds of items."""
        device = batch.users.device.type
        state = torch.is_autocast_enabled(device), [(w.data_ptr(), w._version) for w in self.parameters()]
        if self._kept is None or self._kept[0] != state or self.training:
            users, items = self.vectors()
            self._kept = state, (users.float(), items.float())
        users, items = self._kept[1]
        with torch.autocast(device, enabled=False):
            return products_with_all(users[batch.users], items)

    def train(self, mode: bool = True) -> GraphRecommender:
        """Sets the mode; vectors that were kept are let go."""
        self._kept = None
        super().train(mode)
        return self

    def squares(self) -> Tensor:
        """() sum of squares of all parameters: every row of every table, not just those of a batch."""
        return torch.stack([weight.square().sum() for weight in self.parameters()]).sum()


class EmbeddedGraph(GraphRecommender):
    """Embeddings of users and items smoothed over the interaction graph: what LightGCN is and others build on."""

    def __init__(self, config: GraphConfig, train: InteractionMatrix) -> None:
        super().__init__(train, config.batch_pairs)
        self.config = config
        self.graph = adjacency(train)
        self.user_table = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_users, config.dim)))
        self.item_table = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_items, config.dim)))

    def first_layer(self) -> Tensor:
        """(nodes, dim) what is smoothed; users first."""
        return torch.cat([self.user_table, self.item_table])

    def smooth(self, table: Tensor, rng: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Final vectors of users and items from a first layer; with `rng`, on a graph with edges dropped."""
        config = self.config
        drop = {"symmetric": config.edge_drop_symmetric, "rescale": config.edge_drop_rescale}
        entries = None if rng is None else kept_edges(self.graph, config.edge_keep, rng, **drop)
        nodes = smoothed(self.graph, table, config.layers, config.layer_agg, entries)
        return nodes[: self.n_users], nodes[self.n_users :]

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Final vectors on the whole graph."""
        return self.smooth(self.first_layer())

    def loss(self, batch: PairBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """BPR and the penalty."""
        users, items = self.smooth(self.first_layer(), rng)
        negatives = batch.negatives(rng).squeeze(1)
        return {
            "ranking": ranking_loss(users[batch.users], items[batch.items], items[negatives]),
            "penalty": self.config.l2_weight * self.squares(),
        }


def ranking_loss(users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """() mean BPR over (pairs, width) vectors of users, of items they took and of items they did not."""
    return bpr((users * positives).sum(-1), (users * negatives).sum(-1)).mean()
