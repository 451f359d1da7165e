"""Items nobody took in training, scored through their text: as the items whose texts are nearest to theirs."""

from __future__ import annotations

import torch
from torch import Tensor

from rec_models.interactions import UserBatch
from rec_models.recommender import Recommender
from rec_models.semantic import ModelInputs, SemanticMatrix

NEIGHBOURS = 10
_ROWS_AT_ONCE = 1024


class ColdItems(Recommender):
    """A model whose scores of cold items are means of its scores of their nearest warm items.

    A cold item has a text and no training interaction: a model has only learnt that nobody takes it. Its score becomes
    the mean over the warm items with the nearest texts, weighted by cosine; warm items keep theirs exactly.

    Source: ours.
    """

    cold: Tensor
    nearest: Tensor
    weights: Tensor

    def __init__(self, model: Recommender, cold: Tensor, nearest: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.model = model
        for name, values in (("cold", cold), ("nearest", nearest), ("weights", weights)):
            self.register_buffer(name, values, persistent=False)

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) float32."""
        scores = self.model.scores(batch).float()
        own = torch.zeros(len(scores), len(self.cold), device=scores.device)
        for place in range(self.nearest.shape[1]):  # one neighbour at a time: nothing of (batch, cold, k) is made
            own += scores[:, self.nearest[:, place]] * self.weights[:, place]
        return scores.index_copy(1, self.cold, own)


def through_text(model: Recommender, inputs: ModelInputs, k: int = NEIGHBOURS) -> Recommender:
    """The model with its cold items scored through their text; the model itself where there are none, or no texts."""
    items = inputs.semantic.get("items")
    if items is None:
        return model
    taken = torch.zeros(inputs.n_items, dtype=torch.bool)
    taken[torch.from_numpy(inputs.train.indices.astype("int64"))] = True
    cold, warm = (torch.nonzero(which & items.present).squeeze(1) for which in (~taken, taken))
    if not len(cold) or not len(warm):
        return model
    nearest, weights = nearest_by_text(items, cold, warm, k)
    device = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
    return ColdItems(model, cold, nearest, weights).to(device)


def nearest_by_text(items: SemanticMatrix, cold: Tensor, warm: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k warm items nearest to each cold one, (cold, k) int64, and their weights, which add up to 1 a row.

    Weights are cosines, those below zero being none; a cold item that is near to nobody weighs all k alike.
    """
    unit = torch.nn.functional.normalize(items.vectors[warm].float(), dim=1)
    k = min(k, len(warm))
    found = []
    for start in range(0, len(cold), _ROWS_AT_ONCE):
        rows = torch.nn.functional.normalize(items.vectors[cold[start : start + _ROWS_AT_ONCE]].float(), dim=1)
        found.append(torch.topk(rows @ unit.t(), k, dim=1))
    cosines = torch.cat([each.values for each in found]).clamp_min(0)
    total = cosines.sum(1, keepdim=True)
    weights = torch.where(total > 0, cosines / total.clamp_min(1e-12), torch.full_like(cosines, 1 / k))
    return warm[torch.cat([each.indices for each in found])], weights
