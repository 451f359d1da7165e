"""How a model is trained, as [training] says it."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field


class TrainingConfig(BaseModel):
    """How a model is trained.

    Attributes:
        epochs: upper bound; early stopping usually ends sooner.
        batch_size: users an optimiser step; models that learn from single interactions have `batch_pairs` instead.
        evaluate_every: epochs between validation passes.
        patience: validation passes without a new best before training stops.
        learning_rate_decay: factor on the learning rate after every `decay_after` validation passes in a row without a
            new best; 1 leaves it constant.
        precision: of matrix products in training and in the validation passes between epochs; losses, divergences and
            the final metrics are float32 always. `auto` is bfloat16 on a GPU or a CPU that multiplies it natively, else
            float32, so it can give other numbers on another machine.
        semantic_dtype: of the semantic matrices as they lie in memory; half the bytes at 16 bits. Sums over them are
            float32.
        device: `auto` takes a GPU when there is one.
        batch_parts: parts that every batch is cut into. Each is learnt from apart, with its own chance, and the
            gradients are averaged, so that as many processes as divide the number can share them. Whatever a loss
            does between users of a batch, it does inside a part.
        validated_users: users that a validation pass ranks for, spread evenly over those with something to find;
            null takes all of them. The test takes all, always.
        warm_start: begin with the bundle's earlier weights instead of fresh ones (`rec_models.warm_start`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=1024, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    learning_rate_decay: float = Field(default=1.0, gt=0, le=1)
    decay_after: int = Field(default=5, ge=1)
    weight_decay: float = Field(default=0.0, ge=0)
    evaluate_every: int = Field(default=3, ge=1)
    patience: int = Field(default=20, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    semantic_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: str = "auto"
    batch_parts: int = Field(default=1, ge=1)
    validated_users: int | None = Field(default=None, ge=1)
    warm_start: bool = False

    def resolved_precision(self, device: torch.device) -> str:
        """The concrete precision on a device."""
        if self.precision != "auto":
            return self.precision
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
        return "bfloat16" if native else "float32"
