"""A trained model by ids: what a user would be shown next, and which items are alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rec_models.bundle import Bundle
from rec_models.errors import HistoryError, NoVectorsError, UnknownIdsError
from rec_models.evaluation import first_k, recommend
from rec_models.graph import GraphRecommender
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.measured import all_rows, ranked
from rec_models.settings import parse_config
from rec_models.training import load_trained, resolve_device

Scored = list[tuple[str, float]]


class TrainedModel:
    """A model of the registry, with the ids of its users and items.

    Nothing but torch, numpy, scipy, safetensors and pydantic is needed: the folder may travel alone.
    """

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self.bundle, self.device = bundle, device
        self.user_ids, self.item_ids = (
            json.loads((bundle.directory / f"{kind}_ids.json").read_text("utf-8")) for kind in ("user", "item")
        )
        self._user, self._item = (
            {identifier: index for index, identifier in enumerate(ids)} for ids in (self.user_ids, self.item_ids)
        )
        self._inputs = bundle.inputs()
        self._bare = load_trained(bundle, device)
        self._model = ranked(self._bare, self._inputs, "text")

    @classmethod
    def open(cls, directory: str | Path, device: str = "auto") -> TrainedModel:
        """The model of a folder such as `var/warehouse/models/<id>`, every byte of it verified.

        Raises:
            BundleError, UntrustedBytesError: the folder is no model, or not the one that was written.
        """
        return cls(Bundle.open(Path(directory)), resolve_device(device))

    def recommend(self, user_id: str | None = None, *, history: Sequence[str] | None = None, k: int = 10) -> Scored:
        """The best k items the user does not have, with their scores, best first.

        Args:
            history: items of somebody the model was not trained on, instead of a user's id.

        Raises:
            UnknownIdsError: a user or an item the model was not trained on.
            HistoryError: the model scores nobody by their items alone.
        """
        if (user_id is None) == (history is None):
            raise TypeError("recommend: name a user_id, or a history of items, one of them")
        if history is None:
            users = self._places([str(user_id)], self._user, "user")
            items, scores = recommend(self._model, *self._rows, k, users)
        else:
            one = self._row(history)
            items, scores = recommend(self._model, one, one, k)
        return self._named(items[0], scores[0])

    def similar(self, item_id: str, *, k: int = 10, by: Literal["model", "text"] = "model") -> Scored:
        """The k items most alike an item, best first.

        Args:
            by: `text` is the cosine of the texts' vectors. `model` is the cosine of the items' vectors of a model on
                the graph; of others it is what they would show somebody who took this one item.

        Raises:
            UnknownIdsError, HistoryError.
            NoVectorsError: the model was given no texts.
        """
        [place] = self._places([item_id], self._item, "item")
        if by == "model" and not isinstance(self._bare, GraphRecommender):
            return self.recommend(history=[item_id], k=k)
        if by == "text" and "items" not in self._inputs.semantic:
            raise NoVectorsError(self._name)
        with torch.no_grad():
            vectors = self._bare.vectors()[1] if by == "model" else self._inputs.semantic["items"].vectors  # type: ignore[operator]
            unit = torch.nn.functional.normalize(vectors.float(), dim=1)
            cosines: Tensor = unit @ unit[place]
        if by == "text":
            cosines[~self._inputs.semantic["items"].present] = -torch.inf
        cosines[place] = -torch.inf
        scores, items = first_k(cosines[None], k)
        chosen = np.where(np.isfinite(scores[0].cpu().numpy()), items[0].cpu().numpy(), -1)
        return self._named(chosen, scores[0].cpu().numpy())

    @property
    def _name(self) -> str:
        return str(self.bundle.config["model"]["name"])

    @cached_property
    def _rows(self) -> tuple[ResidentInteractions, ResidentInteractions]:
        """What the model is shown of every user, all that is known of them, and what no list repeats."""
        shown, masked = all_rows(self.bundle, self._inputs)
        return ResidentInteractions(shown, self.device), ResidentInteractions(masked, self.device)

    def _row(self, history: Sequence[str]) -> ResidentInteractions:
        config = parse_config(self.bundle.config["model"])
        # somebody without an index has no vector, and no text either
        if not config.scores_new_users or (config.asks_for_language and "users" in self._inputs.semantic):
            raise HistoryError(self._name)
        items = self._places(list(history), self._item, "item")
        row = InteractionMatrix.from_pairs(np.zeros(len(items)), items, None, n_users=1, n_items=len(self.item_ids))
        return ResidentInteractions(row, self.device)

    def _places(self, ids: Sequence[str], index: dict[str, int], kind: str) -> np.ndarray:
        unknown = [identifier for identifier in ids if identifier not in index]
        if unknown:
            raise UnknownIdsError(kind, unknown, len(index), str(self.bundle.directory))
        return np.array([index[identifier] for identifier in ids], np.int64)

    def _named(self, items: np.ndarray, scores: np.ndarray) -> Scored:
        return [
            (self.item_ids[item], float(score)) for item, score in zip(items.tolist(), scores, strict=True) if item >= 0
        ]
