"""Small bundles of random interactions and vectors, ready to be trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from rec_models import Bundle, InteractionMatrix, SemanticSource, write_bundle
from rec_models.checkpoints import load_tensors

N_USERS, N_ITEMS = 40, 30
BASE = {"name": "mult_vae", "hidden_dim": 8, "latent_dim": 4}
CVGA = {"name": "cvga", "latent_dim": 4}
REC_VAE = {"name": "rec_vae", "hidden_dim": 6, "hidden_layers": 2, "latent_dim": 4}
L_DIFFREC = {"name": "l_diffrec", "clusters": 2, "latent_dim": 5, "denoiser_hidden_dim": 6}
QUICK = {"epochs": 6, "batch_size": 16, "evaluate_every": 2}
CLUSTERS = np.arange(N_ITEMS) % 2
IDS = {"user_ids": [f"u{n}" for n in range(N_USERS)], "item_ids": [f"i{n}" for n in range(N_ITEMS)]}
EVALUATION = {"ks": [5], "select_by": "recall@5"}


def drawn_parts(rng: np.random.Generator) -> dict[str, InteractionMatrix]:
    """240 cells to train on, 80 to validate and 80 to test."""
    cells = rng.permutation(N_USERS * N_ITEMS)[:400]
    return {
        name: InteractionMatrix.from_pairs(own // N_ITEMS, own % N_ITEMS, None, n_users=N_USERS, n_items=N_ITEMS)
        for name, own in zip(("train", "valid", "test"), np.split(cells, [240, 320]), strict=True)
    }


def write(
    directory: Path,
    *,
    model: Any = BASE,
    training: Any = QUICK,
    seed: int = 3,
    dtype: str = "float32",
    patch: Path | None = None,
    item_clusters: Any = CLUSTERS,
    edges: Any = None,
) -> Bundle:
    """A bundle with vectors of all items and users, whose files lie beside its folder."""
    rng = np.random.default_rng(0)
    parts, semantic = drawn_parts(rng), {}
    for name, rows in (("items", N_ITEMS), ("users", N_USERS)):
        values, mask = directory.parent / f"{name}.npy", directory.parent / f"{name}.mask.npy"
        vectors = rng.standard_normal((rows, 5)).astype(np.float32)
        np.save(values, _stored(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype))
        np.save(mask, np.ones(rows, bool))
        about = {"source": "attributes", "dtype": dtype}
        semantic[name] = SemanticSource(values, mask, about, patch if name == "items" else None)
    settings = {"model": model, "training": training, "evaluation": EVALUATION, "seed": seed}
    return write_bundle(
        directory, parts=parts, semantic=semantic, about={}, item_clusters=item_clusters, edges=edges, **IDS, **settings
    )


def with_held_out_users(directory: Path, model: Any, protocol: str = "strong", mirrored: bool = False) -> Bundle:
    """The bundle of `write` with its last eight users held out: what was theirs in training is only shown.

    Args:
        mirrored: they show other items instead, counted from the end of the catalogue.
    """
    directory.parent.mkdir()
    whole = write(directory.parent / "whole", model=model)
    shape, parts = {"n_users": N_USERS, "n_items": N_ITEMS}, {}
    for name in ("train", "valid", "test"):
        rows = whole.part(name)
        users = np.repeat(np.arange(N_USERS), rows.lengths())
        held_out = users >= N_USERS - 8
        parts[name] = InteractionMatrix.from_pairs(users[held_out], rows.indices[held_out], None, **shape)
        if name == "train":
            shown = N_ITEMS - 1 - rows.indices[held_out] if mirrored else rows.indices[held_out]
            parts["fold_in"] = InteractionMatrix.from_pairs(users[held_out], shown, None, **shape)
            parts["train"] = InteractionMatrix.from_pairs(users[~held_out], rows.indices[~held_out], None, **shape)
    evaluation = EVALUATION | {"protocol": protocol, "names": ["recall", "novelty"]}
    settings = {"model": model, "training": QUICK | {"epochs": 1}, "evaluation": evaluation, "seed": 3}
    return write_bundle(directory, parts=parts, semantic={}, about={}, **IDS, **settings)


def _stored(vectors: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers as they lie on disk; NumPy has no bfloat16."""
    if dtype == "bfloat16":
        return torch.from_numpy(vectors).bfloat16().view(torch.uint16).numpy()
    return vectors.astype(dtype)


def weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    """name → tensor of a trained bundle's checkpoint."""
    return load_tensors(bundle.checkpoint / "model.safetensors", {})[0]
