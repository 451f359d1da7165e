"""Graph attention without a graph library, and the neighbourhoods it runs over."""

from __future__ import annotations

import math
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rec_models.blocks import dropped
from rec_models.derived import DerivedArrays
from rec_models.graph import SparseMatrix, pair_arrays
from rec_models.interactions import InteractionMatrix
from rec_models.neighbours import Neighbours, first_highest, neighbour_matrix
from rec_models.semantic import SemanticMatrix

_EDGES_AT_ONCE = 1 << 14  # whose rows stay in a CPU's second-level cache while they are multiplied
_BUFFER_BYTES = 1 << 26
_SLOPE = 0.2  # of LeakyReLU below 0


class Neighbourhood(SparseMatrix):
    """A fixed graph that attention runs over: every node hears itself and its neighbours.

    Args:
        matrix: (n, n) with an entry at (i, j) where i hears j; what the entries are plays no part.
    """

    targets: Tensor

    def __init__(self, matrix: sparse.csr_array) -> None:
        n = len(matrix.indptr) - 1
        heard = sparse.csr_array(abs(matrix) + sparse.eye_array(n, format="csr"))
        heard.sort_indices()
        targets = np.repeat(np.arange(n), np.diff(heard.indptr))
        super().__init__(targets, heard.indices.astype(np.int64), np.ones(heard.nnz, np.float32), (n, n))
        self.register_buffer("targets", torch.from_numpy(targets), persistent=False)


def neighbourhood(found: list[Neighbours]) -> Neighbourhood | None:
    """Who is a neighbour by any of these, in either direction; None of none."""
    if not found:
        return None
    return Neighbourhood(reduce(add, (neighbour_matrix(each, symmetric=True) for each in found)))


class GraphAttention(nn.Module):
    """One layer: a node becomes a weighted mean of its mapped neighbours, with weights of its own in each head.

    Args:
        dim: width of what comes in and of what comes out; `heads` must divide it.
        dropout: share of features dropped on entry, and of weights.

    Source: Velickovic et al. 2018, equations 1-5, as DGL's GATConv starts and computes it.
    Deviations: the weights of a head sum to 1 before dropout, as there; nothing of size (edges, dim) is ever held.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.map = nn.Linear(dim, dim, bias=False)
        self.says = nn.Parameter(torch.empty(1, heads, dim // heads))
        self.hears = nn.Parameter(torch.empty(1, heads, dim // heads))
        self.bias = nn.Parameter(torch.zeros(dim))
        for weight in (self.map.weight, self.says, self.hears):
            nn.init.xavier_normal_(weight, gain=math.sqrt(2))

    def forward(self, nodes: Tensor, graph: Neighbourhood, rng: torch.Generator | None) -> Tensor:
        """(n, dim); with an `rng` with dropout, as in training."""
        mapped = self.map(dropped(nodes, self.dropout, rng) if rng else nodes).float()
        weights = self.weights(mapped, graph)
        return _Attended.apply(mapped, dropped(weights, self.dropout, rng) if rng else weights, graph) + self.bias

    def weights(self, mapped: Tensor, graph: Neighbourhood) -> Tensor:
        """(edges, heads) how much each entry of the graph counts for its row."""
        by_head = mapped.unflatten(1, (self.heads, -1))  # (n, heads, width)
        said, heard = ((by_head * part).sum(-1) for part in (self.says, self.hears))
        return _Weights.apply(said, heard, graph)  # type: ignore[no-any-return]


class AttentionStack(nn.Module):
    """Layers of graph attention, each followed by LeakyReLU(0.2) and dropout; none leave nodes as they are.

    Source: RecGOAT's code.
    Deviations: none.
    """

    def __init__(self, dim: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(GraphAttention(dim, heads, dropout) for _ in range(layers))

    def forward(self, nodes: Tensor, graph: Neighbourhood, rng: torch.Generator | None) -> Tensor:
        """(n, dim); with an `rng` with dropout, as in training."""
        for layer in self.layers:
            nodes = F.leaky_relu(layer(nodes, graph, rng), _SLOPE)
            nodes = dropped(nodes, self.dropout, rng) if rng else nodes
        return nodes


class TextAttention(nn.Module):
    """One modality of all items: texts mapped to the width of IDs, then heard by neighbours of similar text.

    Args:
        alike: the neighbours; without any nobody hears anybody.
        layers, heads, dropout: of the attention.
        residual: an item keeps its own mapped text beside what it hears.

    Source: RecGOAT's code.
    Deviations: `residual`, which the code has not. An item never neighbours itself beyond its self loop, where the
    code's zeroed diagonal lets an item whose similarities are all negative choose itself.
    """

    def __init__(
        self,
        items: SemanticMatrix,
        alike: Neighbours | None,
        dim: int,
        layers: int,
        heads: int,
        dropout: float,
        residual: bool,
    ) -> None:
        super().__init__()
        self.register_buffer("vectors", items.vectors.float(), persistent=False)
        self.register_buffer("present", items.present, persistent=False)
        self.residual = residual
        self.map = nn.Linear(items.dim, dim)
        self.attention = AttentionStack(dim, layers, heads, dropout)
        self.graph = None if alike is None else neighbourhood([alike])

    def forward(self, rng: torch.Generator | None) -> Tensor:
        """(n_items, dim); what stands in rows without text means nothing."""
        mapped = self.map(self.get_buffer("vectors"))
        if self.graph is None:
            return mapped
        heard = self.attention(mapped, self.graph, rng)
        return mapped + heard if self.residual else heard


class _Weights(torch.autograd.Function):
    """(edges, heads) softmax over a row's entries of LeakyReLU(said + heard), for (n, heads) of each.

    Gradients are sums over the entries of a row or a column, which are bags: adding them to their places one by one, as
    autograd does, takes most of a step.
    """

    @staticmethod
    def forward(ctx: Any, said: Tensor, heard: Tensor, graph: Neighbourhood) -> Tensor:  # type: ignore[override]
        logits = F.leaky_relu(said.index_select(0, graph.columns) + heard.index_select(0, graph.targets), _SLOPE)
        highest = torch.segment_reduce(logits, "max", offsets=graph.starts, axis=0)
        mass = logits.sub(highest.index_select(0, graph.targets)).exp_()
        weights = mass.div_(_row_sums(mass, graph).index_select(0, graph.targets))
        ctx.graph = graph
        ctx.save_for_backward(weights, logits >= 0)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        weights, rising = ctx.saved_tensors
        graph: Neighbourhood = ctx.graph
        pulled = weights * grad
        pulled -= weights * _row_sums(pulled, graph).index_select(0, graph.targets)
        pulled *= torch.where(rising, 1.0, _SLOPE)
        by_column = F.embedding_bag(graph.transposed, pulled, graph.column_starts, mode="sum", include_last_offset=True)
        return by_column, _row_sums(pulled, graph), None


def _row_sums(entries: Tensor, graph: Neighbourhood) -> Tensor:
    """(n, heads) of (edges, heads)."""
    every = torch.arange(len(entries), device=entries.device)
    return F.embedding_bag(every, entries, graph.starts, mode="sum", include_last_offset=True)


class _Attended(torch.autograd.Function):
    """(n, heads * width) rows of the graph weighing rows of a table, each head its own columns with its own weights."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, weights: Tensor, graph: Neighbourhood) -> Tensor:  # type: ignore[override]
        ctx.graph = graph
        ctx.save_for_backward(table, weights)
        return _by_head(graph.columns, table, graph.starts, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        table, weights = ctx.saved_tensors
        graph: Neighbourhood = ctx.graph
        grad_weights = torch.empty_like(weights)
        for start in range(0, len(weights), _EDGES_AT_ONCE):
            edges = slice(start, start + _EDGES_AT_ONCE)
            # rows as a whole: `index_select` copies them, indexing goes number by number
            products = grad.index_select(0, graph.targets[edges]).mul_(table.index_select(0, graph.columns[edges]))
            torch.sum(products.unflatten(1, (weights.shape[1], -1)), -1, out=grad_weights[edges])
        return _by_head(graph.rows, grad, graph.column_starts, weights[graph.transposed]), grad_weights, None


def _by_head(members: Tensor, table: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    parts = table.unflatten(1, (weights.shape[1], -1)).transpose(0, 1).contiguous()  # (heads, n, width)
    of_heads = weights.t().contiguous()
    bags = [
        F.embedding_bag(members, part, starts, mode="sum", per_sample_weights=weight, include_last_offset=True)
        for part, weight in zip(parts, of_heads, strict=True)
    ]
    return torch.cat(bags, 1)


def kept_co_interaction_neighbours(derived: DerivedArrays, train: InteractionMatrix, k: int) -> Neighbours:
    """`co_interaction_neighbours`, found once for the same interactions, whichever model or seed asks next."""

    def make() -> dict[str, Tensor]:
        return co_interaction_neighbours(train, k)._asdict()

    read = [torch.from_numpy(np.array(array, np.int64)) for array in (train.indptr, train.indices)]
    options = {"k": k, "shape": list(train.shape)}
    return Neighbours(**derived.get("co_interaction_neighbours 1", read, options, make))


def co_interaction_neighbours(train: InteractionMatrix, k: int) -> Neighbours:
    """The k users of highest cosine between their sets of items, nearest first; who shares no item is no neighbour.

    Of equal ones the lower index comes first. Made in chunks of 64 MB, whatever the number of users.
    """
    users, items = pair_arrays(train)
    weights = (train.lengths()[users] ** -0.5).astype(np.float32)
    rows = sparse.csr_array((weights, (users, items)), shape=train.shape)
    n, found = train.n_users, min(k, train.n_users)
    indices, cosines = torch.full((n, k), -1), torch.zeros(n, k)
    chunk = max(1, _BUFFER_BYTES // (4 * max(n, 1)))
    for start in range(0, n, chunk):
        products = torch.from_numpy((rows[start : start + chunk] @ rows.T).toarray())
        products[torch.arange(len(products)), torch.arange(start, start + len(products))] = 0
        nearest = first_highest(products, found)
        values = products.gather(1, nearest)
        indices[start : start + chunk, :found] = torch.where(values > 0, nearest, -1)
        cosines[start : start + chunk, :found] = values
    return Neighbours(indices, cosines)
