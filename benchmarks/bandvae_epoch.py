"""Race: one training epoch of BANDVAE, ours against the dense formulation, in turn; and how time grows.

    python -m benchmarks.bandvae_epoch INTERACTIONS.parquet [--rounds 3] [--words 8000] [--words-an-item 60]
                                       [--factors 4] [--items 0] [--grow] [--json]

The table needs user_id and item_id, such as the citeulike_a set; a tenth of the users is left out twice, as the paper
trains on four fifths. Words are drawn at random from Zipf's law: speed does not depend on what they mean, only on how
many there are. The dense side draws noise for every user, unit and factor, as the authors' ancestors do.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks import dense_bandvae
from benchmarks.sides import apart, compared, peak_memory
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.memory import keep_freed_memory
from rec_models.models import BANDVAEConfig
from rec_models.models.bandvae import BANDVAE
from rec_models.semantic import ModelInputs
from rec_models.text_features import TextFeatures

BATCH = 512


def inputs_of(given: argparse.Namespace) -> ModelInputs:
    """Four fifths of the users, and drawn words; `--items` keeps the first so many items and repeats none."""
    table = pq.read_table(given.interactions, columns=["user_id", "item_id"])
    users, items = (np.unique(table[name].to_numpy(), return_inverse=True)[1] for name in ("user_id", "item_id"))
    rng = np.random.default_rng(0)
    n_items = given.items or int(items.max()) + 1
    order = rng.permutation(users.max() + 1)
    kept = (order[users] < 0.8 * len(order)) & (items < n_items)
    _, users = np.unique(users[kept], return_inverse=True)
    train = InteractionMatrix.from_pairs(users, items[kept], None, n_users=int(users.max()) + 1, n_items=n_items)
    return ModelInputs(train, {}, 0, text=drawn_words(n_items, given.words, given.words_an_item, rng))


def drawn_words(n_items: int, n_words: int, an_item: int, rng: np.random.Generator) -> TextFeatures:
    """Rows of unit length with about `an_item` words each."""
    chances = 1 / np.arange(10, n_words + 10)
    columns = rng.choice(n_words, n_items * an_item, p=chances / chances.sum())
    rows = np.repeat(np.arange(n_items), an_item)
    weights = rng.random(len(rows)).astype(np.float32) / np.sqrt(an_item / 3)
    words = InteractionMatrix.from_pairs(rows, columns, weights, n_users=n_items, n_items=n_words)
    return TextFeatures(words, tuple(map(str, range(n_words))))


class Ours:
    """An epoch as the training loop makes it."""

    def __init__(self, model: BANDVAE, inputs: ModelInputs) -> None:
        self.model, self.history = model, ResidentInteractions(inputs.train)
        self.rng = torch.Generator().manual_seed(0)

    def terms(self, users: np.ndarray) -> dict[str, torch.Tensor]:
        """Of a batch of users."""
        return self.model.loss(self.history.batch(users), self.rng, 0)


class Dense:
    """An epoch over dense rows; text is counted once, before the clock starts."""

    def __init__(self, model: BANDVAE, inputs: ModelInputs) -> None:
        self.model, self.draws = model, dense_bandvae.fresh()
        history = ResidentInteractions(inputs.train)
        everybody = history.batch(np.arange(inputs.n_users))
        self.ratings = torch.zeros(inputs.train.shape)
        self.ratings[everybody.rows, everybody.items] = 1
        source = model.text_sides()[0].source
        assert source is not None
        text = source(everybody)
        self.text = torch.zeros(inputs.n_users, text.n_items)
        self.text[text.rows, text.items] = text.values

    def terms(self, users: np.ndarray) -> dict[str, torch.Tensor]:
        """Of a batch of users."""
        return dense_bandvae.loss(self.model, self.ratings[users], self.text[users], self.draws, 0)


SIDES = {"ours": Ours, "dense": Dense}


def one_side(side: str, given: argparse.Namespace) -> dict[str, float]:
    """Seconds of an epoch, by the clock and of the processor, and the peak memory, in this process alone."""
    keep_freed_memory()  # as `python -m rec_models train` does
    inputs = inputs_of(given)
    torch.manual_seed(0)
    model = BANDVAEConfig(factors=given.factors, text_factors=given.factors).build(inputs)
    runner = SIDES[side](model, inputs)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    order = np.random.default_rng(1).permutation(inputs.n_users)
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    began = spent = 0.0
    for at, users in enumerate([batches[0], *batches]):
        if at == 1:  # the first step fills caches and is not counted
            began, spent = time.perf_counter(), time.process_time()
        optimiser.zero_grad(set_to_none=True)
        loss = torch.stack(list(runner.terms(users).values())).sum()
        loss.backward()
        assert np.isfinite(loss.item())
        optimiser.step()
    seconds = {"epoch": time.perf_counter() - began, "processor": time.process_time() - spent}
    return seconds | {"peak_memory_bytes": peak_memory()}


def race(given: argparse.Namespace) -> dict[str, Any]:
    """Medians of both sides and the ratio round by round, each side in a process of its own, in turn."""
    rounds = [{side: _process(side, given) for side in SIDES} for _ in range(given.rounds)]
    found = {"threads": torch.get_num_threads(), "factors": given.factors, "items": given.items}
    return found | compared(rounds, ("epoch", "processor"), "dense")


def _process(side: str, given: argparse.Namespace) -> dict[str, float]:
    names = ("words", "words_an_item", "factors", "items")
    options = {name: getattr(given, name) for name in names}
    return apart("bandvae_epoch", given.interactions, side=side, **options)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interactions", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--words", type=int, default=8000)
    parser.add_argument("--words-an-item", type=int, default=60)
    parser.add_argument("--factors", type=int, default=4)
    parser.add_argument("--items", type=int, default=0, help="the first so many items; 0 is all")
    parser.add_argument("--grow", action="store_true", help="ours alone, at more factors and fewer items")
    parser.add_argument("--side", choices=list(SIDES), help="run one side and print its seconds")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.side:
        print(json.dumps(one_side(given.side, given)))
        return
    if given.grow:
        for factors, items in ((2, 0), (4, 0), (8, 0), (4, 8490), (4, 4245)):
            row = _process("ours", argparse.Namespace(**(vars(given) | {"factors": factors, "items": items})))
            print(json.dumps({"factors": factors, "items": items or "all"} | row))
        return
    found = race(given)
    if given.json:
        print(json.dumps(found))
        return
    for name in ("epoch", "processor"):
        row = found[name]
        seconds = f"{row['ours_s']:.2f} s against {row['dense_s']:.2f} s"
        print(f"{name}: {seconds}: {row['ratio']:.2f}x ({row['low']:.2f}-{row['high']:.2f})")
    peaks = {side: f"{peak / 1e9:.2f} GB" for side, peak in found["peak_memory_bytes"].items()}
    print(f"peak memory: {peaks}, threads: {found['threads']}")


if __name__ == "__main__":
    main()
