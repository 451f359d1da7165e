"""What a text channel counts: words of items, concepts found in their vectors, or both; and the counts of a user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from rec_models.errors import MissingTextError
from rec_models.interactions import InteractionMatrix, UserBatch
from rec_models.semantic import Language, ModelInputs, SemanticMatrix, items_of

TextMode = Literal["words", "concepts", "hybrid"]

# Concepts that share an item's text, and how fast their shares fall with the cosine.
_CONCEPTS_AN_ITEM = 8
_SHARPNESS = 1 / 0.05
_KMEANS_ITERATIONS = 15
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class TextUnits:
    """The units of a text channel.

    Attributes:
        weights: (n_items, n_units) >= 0; what `InteractionMatrix` calls users and items are items and units here.
        names: (n_units,) for people: a word, or where a concept lies.
        vectors: (n_units, dim) where units have a place in the language space; zero where they have none.
    """

    weights: InteractionMatrix
    names: tuple[str, ...]
    vectors: Tensor | None = None


def text_units(model: str, mode: TextMode, inputs: ModelInputs, language: Language, concepts: int) -> TextUnits:
    """The units of a mode, under a control.

    `words` are those of the bundle. `concepts` are centroids of the items' vectors: see `concept_units`. `hybrid` are
    both, every item's weights divided evenly between its words and its concepts.

    Raises:
        MissingTextError: the mode reads words and the bundle holds none.
        MissingSemanticMatrixError: the mode reads vectors and the bundle holds none.
    """
    if mode == "words":
        return _words(model, mode, inputs, language)
    found = concept_units(items_of(model, inputs, language), concepts, inputs.seed)
    if mode == "concepts":
        return found
    words = _words(model, mode, inputs, language)
    blocks = [_halved(part.weights) for part in (words, found)]
    assert found.vectors is not None
    nowhere = found.vectors.new_zeros(len(words.names), found.vectors.shape[1])
    both = _matrix(scipy.sparse.csr_array(scipy.sparse.hstack(blocks)), len(words.names) + len(found.names))
    return TextUnits(both, words.names + found.names, torch.cat([nowhere, found.vectors]))


def concept_units(items: SemanticMatrix, concepts: int, seed: int) -> TextUnits:
    """Centroids of the vectors of items that have text, and each item's shares of those nearest to it.

    An item shares one among its eight nearest centroids as softmax(cosine / 0.05), times ln((1 + n) / (1 + df)) + 1 of
    the n items and the df that have the concept, in rows of unit length.

    Args:
        concepts: centroids at most; fewer where fewer items have text, and those nobody is near are dropped.
        seed: decides where k-means starts.

    Source: ours; `words` of BANDVAE with another unit.
    """
    present = items.present.numpy(force=True)
    vectors = torch.nn.functional.normalize(items.vectors[items.present].float(), dim=1)
    centroids = _centroids(vectors.numpy(force=True), concepts, seed)
    nearest, shares = [], []
    for start in range(0, max(1, len(vectors)), _ROWS_AT_ONCE):
        cosines = vectors[start : start + _ROWS_AT_ONCE] @ centroids.t()
        best, which = torch.topk(cosines, min(_CONCEPTS_AN_ITEM, len(centroids)), dim=1)
        nearest.append(which)
        shares.append(torch.softmax(best * _SHARPNESS, 1))
    which, share = torch.cat(nearest).numpy(), torch.cat(shares).numpy()
    rows = np.repeat(np.flatnonzero(present), which.shape[1])
    shape = (len(present), len(centroids))
    rarity = np.log((1 + len(vectors)) / (1 + np.bincount(which.ravel(), minlength=len(centroids)))) + 1
    share = share * rarity[which]
    share /= np.linalg.norm(share, axis=1, keepdims=True)
    codes = scipy.sparse.csr_array((share.ravel(), (rows, which.ravel())), shape=shape)
    return TextUnits(_matrix(codes, len(centroids)), tuple(f"concept {at}" for at in range(len(centroids))), centroids)


class UserText(nn.Module):
    """Units of a user's own items: always made from the rows at hand, so that no hidden item speaks."""

    indptr: Tensor
    units: Tensor
    values: Tensor

    def __init__(self, weights: InteractionMatrix, norm: Literal["none", "l1"] = "none") -> None:
        """Args: weights (n_items, n_units) of items; norm `l1` lets a user's weights sum to 1."""
        super().__init__()
        self.n_units, self.norm = weights.n_items, norm
        for name, array, kind in (
            ("indptr", weights.indptr, np.int64),
            ("units", weights.indices, np.int64),
            ("values", weights.values, np.float32),
        ):
            self.register_buffer(name, torch.from_numpy(np.array(array, kind)), persistent=False)

    def forward(self, batch: UserBatch) -> UserBatch:
        """The users' rows of units: means over their items' rows, each item counting by its value."""
        begins = self.indptr[batch.items]
        lengths = self.indptr[batch.items + 1] - begins
        entry = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        place = torch.arange(len(entry), device=lengths.device) + (begins - lengths.cumsum(0) + lengths)[entry]
        rows = batch.rows[entry]
        mass = torch.zeros(len(batch), device=rows.device).index_add_(0, batch.rows, batch.values)
        values = self.values[place] * (batch.values / mass.clamp_min(1e-12)[batch.rows])[entry]
        dense = torch.zeros(len(batch) * self.n_units, device=rows.device)
        dense.index_add_(0, rows * self.n_units + self.units[place], values)
        dense = dense.view(len(batch), self.n_units)
        if self.norm == "l1":
            dense /= dense.sum(1, keepdim=True).clamp_min(1e-12)
        return sparse_rows(dense, batch.users)

    def means_of(self, vectors: Tensor) -> Tensor:
        """(n_units, dim) float32 means of the items' vectors (n_items, dim) over the items that have a unit."""
        item = torch.repeat_interleave(torch.arange(len(self.indptr) - 1, device=vectors.device), self.indptr.diff())
        sums = torch.zeros(self.n_units, vectors.shape[1], device=vectors.device)
        sums.index_add_(0, self.units, vectors[item].float() * self.values[:, None])
        mass = torch.zeros(self.n_units, device=vectors.device).index_add_(0, self.units, self.values)
        return sums / mass.clamp_min(1e-12)[:, None]


def sparse_rows(dense: Tensor, users: Tensor) -> UserBatch:
    """The non-zero entries of (batch, n_units) rows."""
    rows, units = dense.nonzero(as_tuple=True)
    lengths = torch.bincount(rows, minlength=len(dense))
    return UserBatch(users, rows, units, dense[rows, units], lengths.cumsum(0) - lengths, lengths, dense.shape[1])


def _words(model: str, mode: TextMode, inputs: ModelInputs, language: Language) -> TextUnits:
    if inputs.text is None:
        raise MissingTextError(model, f"text = {mode}", "set `model.text` to concepts or none")
    words = inputs.text.words
    rng = np.random.default_rng([inputs.seed, 0x3E])
    if language == "shuffled":
        words = _matrix(scipy.sparse.csr_array(words.csr()[rng.permutation(words.n_users)]), words.n_items)
    elif language == "random":  # as many entries an item, of the same weights, at columns drawn evenly
        words = _elsewhere(words, rng)
    return TextUnits(words, inputs.text.vocabulary)


def _elsewhere(words: InteractionMatrix, rng: np.random.Generator) -> InteractionMatrix:
    """The same weights at other columns; of two that meet in one cell the sum is kept."""
    rows = np.repeat(np.arange(words.n_users), words.lengths())
    columns = rng.integers(0, words.n_items, words.nnz)
    return _matrix(scipy.sparse.csr_array((np.array(words.values), (rows, columns)), words.shape), words.n_items)


def _centroids(vectors: NDArray[np.float32], concepts: int, seed: int) -> Tensor:
    """(at most `concepts`, dim) float32 of unit length; every one has a vector nearest to it."""
    distinct = len(np.unique(vectors, axis=0))
    if distinct <= concepts:
        return torch.from_numpy(np.unique(vectors, axis=0))
    rng = np.random.default_rng(seed)
    found, labels = kmeans2(vectors, concepts, iter=_KMEANS_ITERATIONS, minit="points", missing="warn", rng=rng)
    found = torch.from_numpy(found[np.unique(labels)].astype(np.float32))
    return torch.nn.functional.normalize(found, dim=1)


def _halved(part: InteractionMatrix) -> scipy.sparse.csr_array:
    """Rows that sum to a half."""
    sums = np.bincount(np.repeat(np.arange(part.n_users), part.lengths()), part.values, part.n_users)
    shares = part.values / np.repeat(2 * np.maximum(sums, 1e-12), part.lengths())
    return scipy.sparse.csr_array((shares, np.array(part.indices), np.array(part.indptr)), part.shape)


def _matrix(rows: scipy.sparse.csr_array, n_units: int) -> InteractionMatrix:
    rows.sort_indices()
    indptr, indices = np.asarray(rows.indptr, np.int64), np.asarray(rows.indices, np.int32)
    return InteractionMatrix(indptr, indices, np.asarray(rows.data, np.float32), n_units)
