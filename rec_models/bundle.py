"""A bundle: everything one training run reads, as a directory that can travel to a machine with a GPU."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rec_models.errors import BundleError, UntrustedBytesError
from rec_models.interactions import InteractionMatrix

if TYPE_CHECKING:
    from torch import Tensor

    from rec_models.semantic import ModelInputs, SemanticMatrix
    from rec_models.text_features import TextFeatures

PARTS = ("train", "valid", "test")
# Rows of users who are held out of training; there only where somebody is.
FOLD_IN = "fold_in"
# Everything a user rated outside validation and test; there only where models are shown no more than what was liked.
SEEN = "seen"

_TEXT_FILES = ("text.indptr.npy", "text.indices.npy", "text.values.npy", "text.json")
# how each type of number lies in a .npy; NumPy has no bfloat16
_STORED = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}


@dataclass(frozen=True)
class WordSource:
    """Where the words of items lie on disk.

    Attributes:
        directory: folder of `text.{indptr,indices,values}.npy`, rows of items in index order, and `text.json`, the
            vocabulary in column order.
        about: what the words were counted in, and how.
    """

    directory: Path
    about: Mapping[str, Any]


@dataclass(frozen=True)
class SemanticSource:
    """Where one semantic matrix lies on disk.

    Attributes:
        values: .npy of (n, dim) float32 or float16, or bfloat16 as its 16 bits; None for users that are to be pooled.
        mask: .npy of (n,) bool, true where the entity has text; None with `values`.
        about: source of the profiles, encoder and whatever else a table must be able to name; `dtype` of the values;
            `pooled_from` names the item matrix that users without a file are pooled from whenever the bundle is read.
        patch: .npz of `rows` and the `values` that replace those rows, or None.
    """

    values: Path | None
    mask: Path | None
    about: Mapping[str, Any]
    patch: Path | None = None


def write_bundle(
    directory: Path,
    *,
    parts: Mapping[str, InteractionMatrix],
    semantic: Mapping[str, SemanticSource],
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    seed: int,
    about: Mapping[str, Any],
    item_clusters: NDArray[np.int64] | None = None,
    edges: Mapping[str, NDArray[np.int64]] | None = None,
    text: WordSource | None = None,
    warm: Path | None = None,
) -> Bundle:
    """The bundle at `directory`, which must not exist yet; semantic matrices become hard links where possible.

    Args:
        parts: train, valid and test, `fold_in` where the tested users are held out of training, and `seen` where less
            was trained on than is masked. Values are ratings or ones.
        edges: name -> (n_users, 2) chosen and refused item of each user, -1 for none; see `ModelInputs`.
        warm: a trained bundle whose weights the training begins with.
    """
    directory.mkdir(parents=True)
    kept = [*PARTS, *(name for name in (FOLD_IN, SEEN) if name in parts)]
    written = [path for part in kept for path in parts[part].save(directory, part)]
    if item_clusters is not None:
        written.append(directory / "item_clusters.npy")
        np.save(written[-1], np.asarray(item_clusters, np.int64))
    (directory / "semantic").mkdir()
    for name, source in semantic.items():
        for origin, ending in ((source.values, "npy"), (source.mask, "mask.npy"), (source.patch, "patch.npz")):
            if origin is None:
                continue
            written.append(directory / "semantic" / f"{name}.{ending}")
            _link_or_copy(origin, written[-1])
    for name, pairs in (edges or {}).items():
        written.append(directory / f"edges_{name}.npy")
        np.save(written[-1], np.asarray(pairs, np.int64))
    if text is not None:
        for name in _TEXT_FILES:
            written.append(directory / name)
            _link_or_copy(text.directory / name, written[-1])
    written += _earlier_weights(directory, warm) if warm is not None else []
    settings = {
        "n_users": len(user_ids),
        "n_items": len(item_ids),
        "model": dict(model),
        "training": dict(training),
        "evaluation": dict(evaluation),
        "seed": seed,
        "semantic": {name: dict(source.about) for name, source in semantic.items()},
        "edges": sorted(edges or {}),
        "about": dict(about),
        **({"text": dict(text.about)} if text else {}),
    }
    for name, content in (("user_ids", list(user_ids)), ("item_ids", list(item_ids)), ("config", settings)):
        written.append(directory / f"{name}.json")
        written[-1].write_text(json.dumps(content, ensure_ascii=False, sort_keys=True), "utf-8")
    sums = {str(path.relative_to(directory)): sha256_of(path) for path in written}
    (directory / "sha256.json").write_text(json.dumps(sums, indent=1, sort_keys=True), "utf-8")
    return Bundle(directory, settings)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its settings, and readers for the rest.

    Attributes:
        cache: where arrays are kept that follow from the bundle's content; None keeps none.
    """

    directory: Path
    config: dict[str, Any]
    cache: Path | None = None

    @classmethod
    def open(cls, directory: Path, cache: Path | None = None) -> Bundle:
        """The bundle, every file of which was hashed against `sha256.json`.

        Raises:
            BundleError: a file is missing.
            UntrustedBytesError: a file has other bytes than were written.
        """
        recorded = directory / "sha256.json"
        if not recorded.is_file():
            raise BundleError(str(directory), "sha256.json is missing, so this is no finished bundle")
        for name, expected in json.loads(recorded.read_text("utf-8")).items():
            path = directory / name
            if not path.is_file():
                raise BundleError(str(directory), f"{name} is missing")
            got = sha256_of(path)
            if got != expected:
                raise UntrustedBytesError(str(path), got, expected)
        return cls(directory, json.loads((directory / "config.json").read_text("utf-8")), cache)

    @property
    def checkpoint(self) -> Path:
        return self.directory / "checkpoint"

    def part(self, name: str) -> InteractionMatrix:
        """The interactions of `train`, `valid`, `test`, `fold_in` or `seen`; of the last two those there are."""
        if name in (FOLD_IN, SEEN) and not (self.directory / f"{name}.indptr.npy").is_file():
            empty = np.zeros(0, np.int64)
            return InteractionMatrix.from_pairs(
                empty, empty, None, n_users=self.config["n_users"], n_items=self.config["n_items"]
            )
        return InteractionMatrix.load(self.directory, name, self.config["n_items"])

    def inputs(self) -> ModelInputs:
        """What the model may see. Semantic matrices are memory mapped: nothing is copied until a device asks for it."""
        from rec_models.derived import DerivedArrays
        from rec_models.semantic import ModelInputs, pooled_users

        train, fold_in = self.part("train"), self.part(FOLD_IN)
        known = train.union(fold_in) if fold_in.nnz else train
        expected = {"items": train.n_items, "users": train.n_users}
        described = self.config["semantic"]
        stored = {name: about for name, about in described.items() if "pooled_from" not in about}
        semantic = {name: self._semantic(name, about, expected) for name, about in stored.items()}
        for name in described.keys() - stored.keys():
            semantic[name] = pooled_users(semantic[described[name]["pooled_from"]], known)
        edges = {name: self._edges(name, train) for name in self.config.get("edges", ())}
        clusters, text = self._item_clusters(train.n_items), self._text(train.n_items)
        held_out, derived = fold_in if fold_in.nnz else None, DerivedArrays(self.cache)
        return ModelInputs(train, semantic, self.config["seed"], clusters, edges, text, held_out, derived)

    def _text(self, n_items: int) -> TextFeatures | None:
        from rec_models.text_features import TextFeatures

        if "text" not in self.config:
            return None
        vocabulary = tuple(json.loads((self.directory / "text.json").read_text("utf-8")))
        words = InteractionMatrix.load(self.directory, "text", len(vocabulary))
        if words.n_users != n_items:
            raise BundleError(str(self.directory), f"text has {words.n_users} rows, expected {n_items}")
        return TextFeatures(words, vocabulary)

    def provenance(self) -> dict[str, str]:
        """`vectors <modality>` -> who made them and how many items have none; of the modalities beside the profiles."""
        told = {}
        for name, about in self.config["semantic"].items():
            if "modality" in about and name.startswith("items_"):
                missing = f", {about['missing']:,} of {self.config['n_items']:,} items without" * bool(about["missing"])
                told[f"vectors {about['modality']}"] = f"{about['source']}{missing}"
        return told

    def _item_clusters(self, n_items: int) -> Tensor | None:
        import torch

        path = self.directory / "item_clusters.npy"
        if not path.is_file():
            return None
        clusters = np.load(path)
        if clusters.dtype != np.int64 or clusters.shape != (n_items,):
            problem = f"item_clusters.npy is {clusters.dtype}{clusters.shape}, expected int64 ({n_items},)"
            raise BundleError(str(self.directory), problem)
        return torch.from_numpy(clusters)

    def _edges(self, name: str, train: InteractionMatrix) -> Tensor:
        import torch

        pairs = np.load(self.directory / f"edges_{name}.npy")
        fits = pairs.dtype == np.int64 and pairs.shape == (train.n_users, 2)
        if not fits or pairs.min() < -1 or pairs.max() >= train.n_items:
            got = f"{pairs.dtype}{pairs.shape} from {pairs.min()} to {pairs.max()}" if pairs.size else f"{pairs.shape}"
            expected = f"int64 ({train.n_users}, 2) from -1 to {train.n_items - 1}"
            raise BundleError(str(self.directory), f"edges_{name}.npy is {got}, expected {expected}")
        return torch.from_numpy(pairs)

    def _semantic(self, name: str, about: Mapping[str, Any], expected: Mapping[str, int]) -> SemanticMatrix:
        import torch

        from rec_models.semantic import SemanticMatrix

        folder, dtype = self.directory / "semantic", about.get("dtype", "float32")
        # Copy-on-write pages: changed rows replace the file's in this process alone, the others stay shared.
        vectors = np.load(folder / f"{name}.npy", mmap_mode="c")
        present = np.load(folder / f"{name}.mask.npy")
        rows = expected.get(name.partition("_")[0], len(vectors))
        if vectors.dtype != _STORED.get(dtype) or vectors.ndim != 2 or not len(vectors) == len(present) == rows:
            got = f"{vectors.dtype}{vectors.shape} with a mask of {len(present)}"
            problem = f"semantic/{name}.npy is {got}, expected {dtype} ({rows}, dim)"
            raise BundleError(str(self.directory), problem)
        if (patch := folder / f"{name}.patch.npz").exists():
            with np.load(patch, allow_pickle=False) as changed:
                vectors[changed["rows"]] = changed["values"]
        tensor = torch.from_numpy(vectors)
        if dtype == "bfloat16":
            tensor = tensor.view(torch.bfloat16)
        return SemanticMatrix(tensor, torch.from_numpy(present), pooled=about.get("source") == "pooled")


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _earlier_weights(directory: Path, trained: Path) -> list[Path]:
    """The weights of a trained bundle, and whose rows they are."""
    weights, ids = directory / "warm.safetensors", directory / "warm.json"
    _link_or_copy(trained / "checkpoint" / "model.safetensors", weights)
    known = {f"{kind}_ids": json.loads((trained / f"{kind}_ids.json").read_text("utf-8")) for kind in ("user", "item")}
    ids.write_text(json.dumps({"model_id": trained.name, **known}, ensure_ascii=False), "utf-8")
    return [weights, ids]


def _link_or_copy(origin: Path, target: Path) -> None:
    try:
        os.link(origin, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(origin, target)
