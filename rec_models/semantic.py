"""Semantic matrices as models see them: one vector a user or item in index order, and which of them are real."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rec_models.derived import DerivedArrays
from rec_models.errors import MissingSemanticMatrixError
from rec_models.interactions import InteractionMatrix
from rec_models.text_features import TextFeatures

# What a language-aligned model is allowed to read: its own profiles, or one of two controls that carry no meaning.
Language = Literal["profiles", "shuffled", "random"]


@dataclass(frozen=True)
class SemanticMatrix:
    """Frozen vectors of all users or all items.

    Attributes:
        vectors: (n, dim) float32, float16 or bfloat16; zero where there is no text.
        present: (n,) bool, whether the entity has text.
        pooled: users only: the vectors are means over the users' training items rather than texts of their own.
    """

    vectors: Tensor
    present: Tensor
    pooled: bool = False

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]


@dataclass(frozen=True)
class ModelInputs:
    """All that a model may see when it is built: sizes, training interactions, semantic matrices, the seed.

    Attributes:
        item_clusters: (n_items,) int64 cluster of each item, where somebody made clusters.
        edges: name -> (n_users, 2) int64, an item a language model chose for each user and one it refused; -1 is none.
        text: words of the items, where somebody counted them.
        fold_in: what is known of users who are held out of `train`; nothing may be learnt from it.
        derived: where graphs and the like are kept for the next model that wants the same of the same vectors.
    """

    train: InteractionMatrix
    semantic: dict[str, SemanticMatrix]
    seed: int
    item_clusters: Tensor | None = None
    edges: Mapping[str, Tensor] = field(default_factory=dict)
    text: TextFeatures | None = None
    fold_in: InteractionMatrix | None = None
    derived: DerivedArrays = field(default_factory=DerivedArrays)

    @property
    def n_users(self) -> int:
        return self.train.n_users

    @property
    def n_items(self) -> int:
        return self.train.n_items

    @cached_property
    def known(self) -> InteractionMatrix:
        """The row each user is scored from: of training, or the fold-in row of a user who is held out."""
        return self.train if self.fold_in is None else self.train.union(self.fold_in)


def language_of(
    model: str, inputs: ModelInputs, language: Language, *, items: str = "items", users: str = "users"
) -> tuple[SemanticMatrix, SemanticMatrix]:
    """Item and user matrices under these names, as `under_control` leaves them.

    Raises:
        MissingSemanticMatrixError: the bundle lacks one of them.
    """
    for name in (items, users):
        if name not in inputs.semantic:
            raise MissingSemanticMatrixError(model, name, sorted(inputs.semantic))
    return under_control(inputs.semantic[items], inputs.semantic[users], language, inputs)


def own_names(inputs: ModelInputs, own: Mapping[str, str]) -> dict[str, str]:
    """`user` and `item` -> name of the matrix to read: a model's own where the bundle has it, else the profiles.

    Args:
        own: `user` and `item` -> name of the texts that the model asks a language model for.
    """
    return {side: name if name in inputs.semantic else f"{side}s" for side, name in own.items()}


def whose_texts(names: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Name of each of a model's own texts -> whether `own_names` found it, in the words of its provenance."""
    return {name: "its own" if names[side] == name else "profiles" for side, name in own.items()}


def keep_texts(module: nn.Module, texts: Mapping[str, SemanticMatrix]) -> None:
    """Buffers `<side>_vectors` (n, dim) float32 and `<side>_present` (n,) bool of each; no part of a checkpoint."""
    for side, matrix in texts.items():
        module.register_buffer(f"{side}_vectors", matrix.vectors.float(), persistent=False)
        module.register_buffer(f"{side}_present", matrix.present, persistent=False)


def under_control(
    items: SemanticMatrix, users: SemanticMatrix, language: Language, inputs: ModelInputs
) -> tuple[SemanticMatrix, SemanticMatrix]:
    """Item and user matrices for one of the controls; `profiles` returns them untouched.

    `shuffled` permutes texts between items; pooled user vectors are pooled again from the permuted items, and texts
    of users are permuted between users. `random` draws unit vectors. Both are fixed by the seed.
    """
    if language == "profiles":
        return items, users
    rng = np.random.default_rng([inputs.seed, 0x5E])
    items = _controlled(items, language, rng)
    if users.pooled:
        return items, pooled_users(items, inputs.known)
    return items, _controlled(users, language, rng)


def items_of(
    model: str, inputs: ModelInputs, language: Language, *, name: str = "items", place: int = 0
) -> SemanticMatrix:
    """The item matrix of a name under a control, for a model that reads no users.

    Args:
        place: among several matrices of a model; random vectors of each are drawn for it alone.

    Raises:
        MissingSemanticMatrixError: the bundle lacks it.
    """
    if name not in inputs.semantic:
        raise MissingSemanticMatrixError(model, name, sorted(inputs.semantic))
    seed = [inputs.seed, 0x5E, place] if language == "random" and place else [inputs.seed, 0x5E]
    return _controlled(inputs.semantic[name], language, np.random.default_rng(seed))


def matrix_of(side: Literal["items", "users"], modality: str) -> str:
    """The name in `ModelInputs.semantic` of a modality's matrix."""
    return side if modality == "profiles" else f"{side}_{modality}"


def item_modalities(
    model: str, inputs: ModelInputs, modalities: tuple[str, ...], language: Language
) -> dict[str, SemanticMatrix]:
    """Item matrices by modality: `profiles` is the bundle's `items`, any other name m its `items_m`.

    Under a control the same permutation moves every modality of an item; random vectors are drawn for each alone.

    Raises:
        MissingSemanticMatrixError: the bundle lacks one of them.
    """
    return {
        modality: items_of(model, inputs, language, name=matrix_of("items", modality), place=place)
        for place, modality in enumerate(modalities)
    }


class Texts(NamedTuple):
    """One modality: vectors of items, and of users where there are any."""

    items: SemanticMatrix
    users: SemanticMatrix | None


def texts_of(model: str, inputs: ModelInputs, modalities: tuple[str, ...], language: Language) -> dict[str, Texts]:
    """As `item_modalities`, with the users of each modality that has any.

    Raises:
        MissingSemanticMatrixError: the bundle lacks the matrix of items of one.
    """
    found = {}
    for place, modality in enumerate(modalities):
        items, users = matrix_of("items", modality), matrix_of("users", modality)
        seen = replace(inputs, seed=inputs.seed + place) if language == "random" else inputs
        if users in inputs.semantic:
            found[modality] = Texts(*language_of(model, seen, language, items=items, users=users))
        else:
            found[modality] = Texts(items_of(model, seen, language, name=items), None)
    return found


def pooled_users(items: SemanticMatrix, known: InteractionMatrix) -> SemanticMatrix:
    """(n_users, dim) the unit-length mean of the vectors of each user's known items that have text."""
    weights = items.present[torch.from_numpy(np.array(known.indices, np.int64))].to(items.vectors.dtype)
    summed = torch.nn.functional.embedding_bag(
        torch.from_numpy(np.array(known.indices, np.int64)),
        items.vectors,
        torch.from_numpy(np.array(known.indptr[:-1], np.int64)),
        mode="sum",
        per_sample_weights=weights,
    ).float()
    norms = summed.norm(dim=1, keepdim=True)
    unit = (summed / norms.clamp_min(1e-12)).to(items.vectors.dtype)
    return SemanticMatrix(unit, norms.squeeze(1) > 0, pooled=True)


def _controlled(matrix: SemanticMatrix, language: Language, rng: np.random.Generator) -> SemanticMatrix:
    if language == "profiles":
        return matrix
    if language == "random":
        return replace(matrix, vectors=_unit_rows(rng, matrix))
    order = torch.from_numpy(rng.permutation(len(matrix.vectors)))
    return replace(matrix, vectors=matrix.vectors[order], present=matrix.present[order])


def _unit_rows(rng: np.random.Generator, like: SemanticMatrix) -> Tensor:
    drawn = torch.from_numpy(rng.standard_normal(tuple(like.vectors.shape), dtype=np.float32))
    return (drawn / drawn.norm(dim=1, keepdim=True) * like.present[:, None]).to(like.vectors.dtype)
