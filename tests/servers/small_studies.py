"""A catalogue small enough to train on in milliseconds, and rec_models without a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np

from flows.errors import TrainingFailedError

SETTINGS = """\
[source]
items = "items.jsonl"
interactions = "interactions.csv"
[model]
name = "mult_vae"
hidden_dim = 16
latent_dim = 8
[training]
epochs = 3
evaluate_every = 1
batch_size = 16
[evaluation]
ks = [5]
select_by = "recall@5"
names = ["recall", "ndcg", "novelty", "gini"]
baselines = ["popularity"]
[warehouse]
root = "w"
"""


def write_small_catalogue(folder: Path) -> Path:
    """24 users and 20 items in two tastes, users of very different activity, with settings that read no language."""
    rng = np.random.default_rng(7)
    items = [{"item_id": f"i{n:02d}", "title": f"Item {n}"} for n in range(20)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items), encoding="utf-8")
    lines = ["user_id,item_id"]
    for user in range(24):
        liked = [n for n in range(20) if n % 2 == user % 2]
        lines += [f"u{user:02d},i{n:02d}" for n in rng.permutation(liked)[: 4 + user % 6]]
    (folder / "interactions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "semalign.toml").write_text(SETTINGS, encoding="utf-8")
    return folder


def run_in_this_process(label, arguments, log, on_event):
    """`python -m rec_models …` without a new interpreter."""
    from rec_models.__main__ import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(list(arguments))
    events = [json.loads(line) for line in printed.getvalue().splitlines()]
    if code:
        raise TrainingFailedError(label, code, events[-1]["message"], str(log))
    for event in events:
        on_event(event)
