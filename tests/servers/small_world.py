"""A catalogue of two tastes that a whole run takes seconds for: its sources, its settings, its encoder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SETTINGS = """\
[source]
items = "items.jsonl"
interactions = "interactions.csv"
[model]
name = "dmrec"
[model.base]
name = "mult_vae"
hidden_dim = 16
latent_dim = 8
[training]
epochs = 4
batch_size = 16
[evaluation]
baselines = ["popularity"]
[recommend]
k = 4
[warehouse]
root = "w"
"""


def item_rows(n_items: int = 16) -> list[dict[str, str]]:
    """Items in two tastes, `in_stock` but for every fifth; the last is cold: nobody takes it."""
    taste = {0: "puzzle quiet logic", 1: "racing fast cars"}
    return [
        {
            "item_id": f"i{n:02d}",
            "title": f"Item {n}",
            "description": f"{taste[n % 2]} kind{n % 3}",
            "in_stock": "no" if n % 5 == 4 else "yes",
        }
        for n in range(n_items)
    ]


def interaction_rows(n_users: int = 20, n_items: int = 16) -> list[tuple[str, str]]:
    """Every user takes six items of one taste; nobody takes the last item."""
    rng = np.random.default_rng(11)
    rows = []
    for user in range(n_users):
        liked = [n for n in range(n_items - 1) if n % 2 == user % 2]
        rows += [(f"u{user:02d}", f"i{n:02d}") for n in rng.permutation(liked)[:6]]
    return rows


def write_small_world(folder: Path, settings: str = SETTINGS) -> None:
    """items.jsonl, interactions.csv and semalign.toml in a folder."""
    write_world(folder, item_rows(), interaction_rows(), settings)


def write_world(
    folder: Path, items: Iterable[Mapping[str, Any]], pairs: Iterable[tuple[str, str]], settings: str
) -> None:
    """The same files for any items and (user, item) pairs."""
    lines = [json.dumps(row) + "\n" for row in items]
    (folder / "items.jsonl").write_text("".join(lines), encoding="utf-8")
    rows = [",".join(row) for row in [("user_id", "item_id"), *pairs]]
    (folder / "interactions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "semalign.toml").write_text(settings, encoding="utf-8")
