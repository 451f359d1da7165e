"""A model that reads any modalities and learns nothing: what reaches it is what it scores by."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import pytest
import torch
from pydantic import Field
from torch import Tensor

import rec_models.models
from rec_models.interactions import InteractionMatrix, UserBatch
from rec_models.recommender import ClosedFormRecommender, RecommenderConfig
from rec_models.semantic import ModelInputs


class ManyEyedConfig(RecommenderConfig):
    """The sum over modalities of the products of users' and items' vectors."""

    paper: ClassVar[str] = "none"
    reads_language: ClassVar[bool] = True
    name: Literal["many_eyed"] = "many_eyed"
    modalities: tuple[str, ...] = ("profiles",)

    def build(self, inputs: ModelInputs) -> ManyEyed:
        return ManyEyed(self, inputs)


class ManyEyed(ClosedFormRecommender):
    weights: Tensor

    def __init__(self, config: ManyEyedConfig, inputs: ModelInputs) -> None:
        super().__init__()
        ends = ["" if name == "profiles" else f"_{name}" for name in config.modalities]
        pairs = [[inputs.semantic[f"{kind}{end}"].vectors.float() for kind in ("users", "items")] for end in ends]

        def make() -> dict[str, Tensor]:
            return {"weights": torch.stack([users @ items.t() for users, items in pairs]).sum(dim=0)}

        read = [vectors for pair in pairs for vectors in pair]
        self.register_buffer("weights", inputs.derived.get("products 1", read, {}, make)["weights"])

    def fit(self, train: InteractionMatrix) -> None:
        """Nothing to solve for."""

    def scores(self, batch: UserBatch) -> Tensor:
        return self.weights[batch.users]


def in_the_catalogue(patch: pytest.MonkeyPatch) -> None:
    """`many_eyed` is a catalogue name from now on, in this process."""
    union = Annotated[rec_models.models.ModelConfig | ManyEyedConfig, Field(union_mode="smart")]
    patch.setattr(rec_models.models, "ModelConfig", union)
    patch.setattr(rec_models.models, "CONFIGS", (*rec_models.models.CONFIGS, ManyEyedConfig))
