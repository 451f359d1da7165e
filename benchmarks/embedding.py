"""Race: our encoder, from texts to vectors on disk, against bare SentenceTransformer.encode, in turn.

    python -m benchmarks.embedding [--texts 5000] [--rounds 3] [--dtype bfloat16] [--config examples/steam] [--json]

The texts are the item profiles of a data set as the attributes engine composes them. Bare encode is run with the same
dtype at each of several batch sizes, once each on a sample, and races at the best of them; and with its own defaults
(batch 32, float32). Ours runs as the embedding stage does: longest first, in shards of 1,024, each written and synced
before the next is begun, the vectors back in the order of the texts. Every round runs all three, each time in another
order; a ratio is taken within a round, of seconds passed and of processor seconds. On a machine that others use as
well, the second is the one to read, with one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.build_profiles import build_profiles
from flows.progress import SilentProgress
from flows.settings_layers import load_settings
from flows.steps.embed import SHARD_TEXTS
from flows.steps.texts import text_hash
from flows.steps.vector_rows import VectorIndex
from flows.workspace import opened
from providers import SentenceEncoderConfig
from warehouse import VectorShards

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from providers.sentence_encoder import SentenceEncoder

SEED = 7
BATCHES = (4, 8, 16, 32, 64, 128)
GPU_BATCHES = (32, 64, 128, 256, 512, 1024)


def item_texts(config: Path, n: int) -> list[str]:
    """n profiles of items, composed from attributes, in an order that says nothing of their length."""
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(config, [f"warehouse.root={folder}/warehouse", "profiles.engine=attributes"])
        with opened(settings, "benchmark", SilentProgress()) as workspace:
            snapshot = workspace.warehouse.snapshot(build_profiles(settings, workspace))
            told = snapshot.read("profiles", ["profile"], {"kind": "item"})["profile"].to_pylist()
    texts = sorted({text for text in told if text})
    random.Random(SEED).shuffle(texts)
    return texts[:n]


def bare_model(dtype: str, device: str) -> SentenceTransformer:
    """The default model as its library loads it."""
    import torch
    from sentence_transformers import SentenceTransformer

    path = SentenceEncoderConfig().describe().path
    return SentenceTransformer(str(path), device=device, model_kwargs={"dtype": getattr(torch, dtype)})


def bare(model: SentenceTransformer, texts: list[str], batch_size: int) -> np.ndarray:
    return np.asarray(model.encode(texts, batch_size=batch_size, show_progress_bar=False))


def ours(encoder: SentenceEncoder, texts: list[str]) -> np.ndarray:
    """The path of the embedding stage, shards on disk included."""
    with tempfile.TemporaryDirectory() as folder:
        shards = VectorShards(Path(folder), encoder.key)
        hashes = np.array([text_hash(text).encode() for text in texts], "S64")
        index = VectorIndex(hashes)
        order = np.array(sorted(range(len(texts)), key=lambda place: -len(texts[place])))
        for start in range(0, len(order), SHARD_TEXTS):
            part = order[start : start + SHARD_TEXTS]
            made = encoder.encode([texts[place] for place in part])
            shards.add(hashes[part], made)
            index.put(hashes[part], made)
        return index.matrix[index.places(hashes)]


@dataclass(frozen=True)
class Took:
    """Seconds passed, and processor seconds of all threads."""

    wall_s: float
    cpu_s: float


def timed(run: Callable[[], object]) -> Took:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def main() -> None:
    """Prints texts a second of each, and how they compare."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=5_000)
    parser.add_argument("--sample", type=int, default=640, help="texts that each batch size is tried on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--config", type=Path, default=Path("examples/steam"))
    parser.add_argument("--threads", type=int, help="compute threads; torch's own number without it")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    texts = item_texts(given.config, given.texts)
    same, default = bare_model(given.dtype, device), bare_model("float32", device)
    sample = texts[: given.sample]
    bare(same, sample[:64], 32)
    bare(default, sample[:64], 32)
    swept = {size: timed(lambda size=size: bare(same, sample, size)) for size in _batches(device)}
    # the processor's seconds leave out what other programs took; on a GPU they say nothing
    best = min(swept, key=lambda size: swept[size].cpu_s if device == "cpu" else swept[size].wall_s)
    with SentenceEncoderConfig.model_validate({"dtype": given.dtype, "device": device}).open() as encoder:
        ours(encoder, sample[:64])
        runners: dict[str, Callable[[], np.ndarray]] = {
            "ours": lambda: ours(encoder, texts),
            "bare_best": lambda: bare(same, texts, best),
            "bare_default": lambda: bare(default, texts, 32),
        }
        taken: list[dict[str, Took]] = []
        for number in range(given.rounds):
            names = list(runners)[number % 3 :] + list(runners)[: number % 3]
            taken.append({name: timed(runners[name]) for name in names})
        nearest = _least_cosine(runners["ours"](), bare(default, texts, 32))
    document = {
        "settings": {"texts": len(texts), "dtype": given.dtype, "device": device, "rounds": given.rounds},
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "sweep_texts_per_s": {size: round(len(sample) / took.wall_s, 1) for size, took in swept.items()},
        "best_batch": best,
        "texts_per_s": {name: _spread([len(texts) / one[name].wall_s for one in taken]) for name in runners},
        **{
            f"{clock}ratio_to_{other}": _spread([of(one[f"bare_{other}"]) / of(one["ours"]) for one in taken])
            for other in ("best", "default")
            for clock, of in (("", _wall), ("cpu_", _cpu))
        },
        "least_cosine_to_float32": nearest,
    }
    if given.json:
        print(json.dumps(document, indent=2))
        return
    rates = {name: spread["median"] for name, spread in document["texts_per_s"].items()}
    print(", ".join(f"{name} {rate:.1f} texts/s" for name, rate in rates.items()) + f" (best batch {best})")
    print(f"ratio to bare at its best {document['ratio_to_best']['median']:.3f} (at least 0.97 is asked for)")
    print(f"ratio to bare with defaults {document['ratio_to_default']['median']:.3f} (at least 1.6 is asked for)")


def _wall(took: Took) -> float:
    return took.wall_s


def _cpu(took: Took) -> float:
    return took.cpu_s


def _batches(device: str) -> tuple[int, ...]:
    return BATCHES if device == "cpu" else GPU_BATCHES


def _spread(values: list[float]) -> dict[str, Any]:
    rounded = [round(value, 4) for value in values]
    return {"median": statistics.median(rounded), "least": min(rounded), "most": max(rounded), "rounds": rounded}


def _least_cosine(one: np.ndarray, other: np.ndarray) -> float:
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (one, other)]
    return float((unit[0] * unit[1]).sum(axis=1).min())


if __name__ == "__main__":
    main()
