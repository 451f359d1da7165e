"""Race: our paid encoder over a real ledger against the bare openai client, in turn, on one loopback server.

    python -m benchmarks.bought_vectors [--texts 16384] [--texts-per-call 256] [--width 1536] [--in-flight 16] [--json]

Both ask for the same texts, both end with one float32 matrix. The bare client keeps nothing; ours writes every intent
and every raw reply to disk before it reads it, checks and normalises every vector. The second pass of ours takes all
vectors out of the ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loopback_chat import chat_server
from providers import OpenAIEmbeddingsConfig
from warehouse import Ledger


def texts(n: int) -> list[str]:
    """Different texts of about 60 words."""
    return [
        f"Item {i}. " + "A quiet game of exploration with hand-drawn islands and a slow story. " * 5 for i in range(n)
    ]


def ours(url: str, asked: list[str], given: argparse.Namespace) -> dict[str, float]:
    """Texts a second of the first pass and of the one that asks nobody; bytes in the ledger for each text."""
    config = OpenAIEmbeddingsConfig(
        model="loopback", base_url=url, concurrency=given.in_flight, texts_per_call=given.texts_per_call
    )
    with tempfile.TemporaryDirectory(dir=given.directory) as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        passes, calls = [], []
        for _ in range(2):
            with config.open(ledger) as encoder:
                started = time.perf_counter()
                vectors = encoder.encode(asked)
                passes.append(len(asked) / (time.perf_counter() - started))
                calls.append(encoder.taken.calls)
                assert np.isfinite(vectors).all() and vectors.shape == (len(asked), given.width)
        assert calls == [len(asked) / given.texts_per_call, 0]
        n_bytes = (Path(folder) / "ledger.sqlite").stat().st_size
    return {"texts_per_s": passes[0], "again_texts_per_s": passes[1], "ledger_bytes_a_text": n_bytes / len(asked)}


def bare(url: str, asked: list[str], given: argparse.Namespace) -> dict[str, float]:
    """Texts a second of the openai client with the same calls and the same number in flight."""
    import openai

    async def run() -> float:
        matrix = np.empty((len(asked), given.width), np.float32)
        async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0) as client:
            places = asyncio.Semaphore(given.in_flight)

            async def ask(start: int) -> None:
                async with places:
                    some = asked[start : start + given.texts_per_call]
                    reply: Any = await client.embeddings.create(model="loopback", input=some)
                    for entry in reply.data:
                        matrix[start + entry.index] = entry.embedding

            started = time.perf_counter()
            await asyncio.gather(*(ask(start) for start in range(0, len(asked), given.texts_per_call)))
            return time.perf_counter() - started

    return {"texts_per_s": len(asked) / asyncio.run(run())}


def main() -> None:
    """Prints the medians and every round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=16_384)
    parser.add_argument("--texts-per-call", type=int, default=256)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay-s", type=float, default=0.2)
    parser.add_argument("--directory", help="where the ledger lies while it is written; a real disk, please")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.texts % given.texts_per_call:
        parser.error("--texts has to be a multiple of --texts-per-call: the server answers every call alike")
    asked, rounds = texts(given.texts), []
    with chat_server(given.delay_s, given.texts_per_call, given.width) as url:
        for number in range(given.rounds + 1):
            result = {"bare": bare(url, asked, given), "ours": ours(url, asked, given)}
            if number:  # the first one warms both up
                rounds.append(result)
    names = ("texts_per_s", "again_texts_per_s", "ledger_bytes_a_text")
    document = {
        "settings": {name: value for name, value in vars(given).items() if name not in ("json", "directory")},
        "cores": os.cpu_count(),
        "bare_texts_per_s": statistics.median(one["bare"]["texts_per_s"] for one in rounds),
        "ours": {name: statistics.median(one["ours"][name] for one in rounds) for name in names},
        "ratio": statistics.median(one["ours"]["texts_per_s"] / one["bare"]["texts_per_s"] for one in rounds),
        "rounds": rounds,
    }
    if given.json:
        print(json.dumps(document, indent=2))
        return
    first, again, n_bytes = (document["ours"][name] for name in names)
    print(f"bare {document['bare_texts_per_s']:,.0f} texts/s, ours {first:,.0f} texts/s, ratio {document['ratio']:.2f}")
    print(f"out of the ledger {again:,.0f} texts/s; {n_bytes:,.0f} bytes a text in it")


if __name__ == "__main__":
    main()
