"""What a model of ratings may be told of a user beside the row itself: the items attended to, the profiles in words."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rec_models.blocks import rows_times
from rec_models.interactions import UserBatch
from rec_models.semantic import SemanticMatrix, keep_texts


class Attended(nn.Module):
    """(batch, dim) the user's items, weighed by attention and by rating.

    Source: none; DGRM names a condition that ignores what a user cares for as its limit.
    Deviations: one query for everybody; a rating moves both the weight and the length of an item's vector.
    """

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__()
        self.items = nn.Parameter(torch.randn(n_items, dim) / dim**0.5)
        self.query = nn.Parameter(torch.randn(dim) / dim**0.5)
        self.of_rating = nn.Parameter(torch.zeros(()))

    def forward(self, batch: UserBatch) -> Tensor:
        """A user without items gets zeros."""
        logits = (self.items @ self.query)[batch.items] + self.of_rating * batch.values
        return rows_times(batch.with_values(segment_softmax(logits, batch) * batch.values), self.items)


class InWords(nn.Module):
    """(batch, dim) a projection of the user's profile and of the profiles of what the user rated, by their ratings.

    Source: none; ours.
    Deviations: ratings are taken from their mean, so that what was disliked counts against.
    """

    user_vectors: Tensor
    item_vectors: Tensor

    def __init__(self, items: SemanticMatrix, users: SemanticMatrix, dim: int) -> None:
        super().__init__()
        keep_texts(self, {"user": users, "item": items})
        self.project = nn.Linear(users.dim + items.dim, dim)

    def forward(self, batch: UserBatch) -> Tensor:
        """Of the profiles as they are; they learn nothing."""
        sums = torch.zeros(len(batch), dtype=batch.values.dtype, device=batch.values.device)
        sums.index_add_(0, batch.rows, batch.values)
        means = sums / batch.lengths.clamp_min(1)
        # Half of a rating stays: a user who rates everything alike has still chosen what to rate.
        weights = (batch.values - 0.5 * means[batch.rows]) / batch.lengths.clamp_min(1)[batch.rows]
        taken = rows_times(batch.with_values(weights), self.item_vectors)
        return self.project(torch.cat([self.user_vectors[batch.users], taken], 1))


class Condition(nn.Module):
    """(batch, width) all that a generator and its critic are told beside noised rows; width 0 tells nothing."""

    def __init__(self, *parts: nn.Module, width: int) -> None:
        super().__init__()
        self.parts, self.width = nn.ModuleList(parts), width

    @classmethod
    def of(
        cls, n_items: int, attention_dim: int, texts: tuple[SemanticMatrix, SemanticMatrix] | None, dim: int
    ) -> Condition:
        """Attention where its width is not 0, and `dim` numbers in words where there are texts of items and users."""
        attended = [Attended(n_items, attention_dim)] if attention_dim else []
        told = [] if texts is None else [InWords(*texts, dim)]
        return cls(*attended, *told, width=attention_dim + (dim if told else 0))

    def forward(self, batch: UserBatch) -> Tensor:
        """The parts beside each other."""
        nothing = batch.values.new_zeros(len(batch), 0)
        return torch.cat([nothing, *(part(batch) for part in self.parts)], 1)


def segment_softmax(logits: Tensor, batch: UserBatch) -> Tensor:
    """(nnz,) shares that add up to 1 over each user's entries."""
    peaks = torch.full((len(batch),), -torch.inf, dtype=logits.dtype, device=logits.device)
    peaks = peaks.scatter_reduce(0, batch.rows, logits.detach(), "amax")
    size = torch.exp(logits - peaks[batch.rows])
    total = torch.zeros(len(batch), dtype=size.dtype, device=size.device).index_add(0, batch.rows, size)
    return size / total[batch.rows]
