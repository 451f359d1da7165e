"""Items nobody took in training, scored through their text: as the items whose texts are nearest."""

from __future__ import annotations

import torch
from torch import Tensor

from rec_models.interactions import UserBatch
from rec_models.recommender import Recommender
from rec_models.semantic import ModelInputs, SemanticMatrix

NEIGHBOURS = 3
_ROWS_AT_ONCE = 1024


class ColdItems(Recommender):
    """A model in which a cold item is worth to a user what its nearest warm items are.

    A cold item has a text and no training interaction: a model has only learnt that nobody takes it. Its score becomes
    the mean over the warm items with the nearest texts, without those the user took: their scores are learnt by heart,
    and cold items beside them would fill every list. Warm items keep their scores exactly. How many neighbours are
    asked trades cold items against warm ones (docs/experiments.md).

    Source: ours.
    """

    cold: Tensor
    nearest: Tensor

    def __init__(self, model: Recommender, cold: Tensor, nearest: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("cold", cold, persistent=False)
        self.register_buffer("nearest", nearest, persistent=False)

    def scores(self, batch: UserBatch) -> Tensor:
        """(batch, n_items) float32."""
        scores = self.model.scores(batch).float()
        untaken = torch.ones_like(scores)
        untaken[batch.rows, batch.items] = 0
        total, count = (torch.zeros(len(scores), len(self.cold), device=scores.device) for _ in range(2))
        for place in range(self.nearest.shape[1]):  # one neighbour at a time: nothing of (batch, cold, k) is made
            asked = untaken[:, self.nearest[:, place]]
            total += scores[:, self.nearest[:, place]] * asked
            count += asked
        return scores.index_copy(1, self.cold, torch.where(count > 0, total / count.clamp_min(1), scores[:, self.cold]))


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
    device = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
    return ColdItems(model, cold, nearest_by_text(items, cold, warm, k)).to(device)


def nearest_by_text(items: SemanticMatrix, cold: Tensor, warm: Tensor, k: int) -> Tensor:
    """(cold, k) int64: the k warm items nearest to each cold one by cosine, the nearest first."""
    unit = torch.nn.functional.normalize(items.vectors[warm].float(), dim=1)
    found = []
    for start in range(0, len(cold), _ROWS_AT_ONCE):
        rows = torch.nn.functional.normalize(items.vectors[cold[start : start + _ROWS_AT_ONCE]].float(), dim=1)
        found.append(torch.topk(rows @ unit.t(), min(k, len(warm)), dim=1).indices)
    return warm[torch.cat(found)]
