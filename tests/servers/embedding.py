"""`semalign embed` in a process of its own with an encoder that costs nothing and notes every text it is given."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import flows.steps.embed
import providers
from benchmarks.stand_ins import StandInEncoder
from flows import cli

LOG, SHARD, PAUSE = "EMBED_LOG", "EMBED_SHARD_TEXTS", "EMBED_PAUSE_MS"


class NotedEncoder(StandInEncoder):
    """Vectors made of the hash of a text; each call pauses, as a model would work, and is noted as a line of texts."""

    key, short_name, dim, model, dtype = "d" * 64, "noted", 16, "noted", "float32"

    def encode(self, texts, on_progress=None):
        time.sleep(int(os.environ.get(PAUSE, "0")) / 1000)
        digests = [hashlib.sha256(text.encode()) for text in texts]
        with Path(os.environ[LOG]).open("a", encoding="utf-8") as log:
            log.write(" ".join(digest.hexdigest()[:16] for digest in digests) + "\n")
        return vectors_of(texts)


def vectors_of(texts: Sequence[str]) -> np.ndarray:
    """(n, dim) float32, what the encoder gives and nothing else does."""
    digests = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
    drawn = np.frombuffer(digests, np.uint16).reshape(len(texts), NotedEncoder.dim).astype(np.float32) - 32_767
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def start_embed(folder: Path, log: Path, *, shard_texts: int, pause_ms: int) -> subprocess.Popen[str]:
    """The command at work in a folder with a semalign.toml."""
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    own = {LOG: str(log), SHARD: str(shard_texts), PAUSE: str(pause_ms), "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "servers.embedding", "embed", "--json"]
    return subprocess.Popen(
        command, cwd=folder, env={**os.environ, **own}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def noted(log: Path) -> list[list[str]]:
    """The texts of every call that came to its end, as the first digits of their hashes."""
    return [line.split() for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


if __name__ == "__main__":
    providers.parse_encoder = lambda settings: NotedEncoder()  # type: ignore[assignment]
    flows.steps.embed.SHARD_TEXTS = int(os.environ[SHARD])
    sys.exit(cli.run(sys.argv[1:]))
