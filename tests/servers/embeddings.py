"""Embeddings by the server of `counting`: a vector for every text, made of the text alone, and faults as told."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from servers.counting import Reply, Script, failure

WIDTH = 16


def vector_of(text: str, width: int = WIDTH) -> np.ndarray:
    """float32 [width], not of length 1: a client has to see to that."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return (3 * np.random.default_rng(seed).standard_normal(width)).astype(np.float32)


def unit_of(text: str, width: int = WIDTH) -> np.ndarray:
    """float32 [width], what a client should make of it."""
    vector = vector_of(text, width).astype(np.float64)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def embedded(
    asked: Mapping[str, Any],
    *,
    vectors: Callable[[str], Any] | None = None,
    order: Sequence[int] | None = None,
    as_numbers: bool = False,
    **sending: Any,
) -> Reply:
    """A well-formed reply to a request.

    Args:
        vectors: text → what stands for its vector; numbers are written as the request asks for them.
        order: in which the entries stand, each still under its own index.
        as_numbers: lists of decimal numbers although base64 was asked for, as some servers do.
    """
    width = asked.get("dimensions", WIDTH)
    made = [vectors(text) if vectors else vector_of(text, width) for text in asked["input"]]
    entries = [
        {"object": "embedding", "index": place, "embedding": _written(vector, as_numbers)}
        for place, vector in enumerate(made)
    ]
    tokens = sum(max(1, len(text) // 4) for text in asked["input"])
    document = {
        "object": "list",
        "model": asked["model"],
        "data": entries if order is None else [entries[place] for place in order],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Reply(json.dumps(document).encode(), **{"usable": True, **sending})


def too_long_for(limit_characters: int) -> Script:
    """A script that refuses a call for one text that is too long, as the API does."""

    def script(number: int, asked: Mapping[str, Any]) -> Reply:
        if any(len(text) > limit_characters for text in asked["input"]):
            return failure(400, "invalid_request_error", "This model's maximum context length is 8192 tokens")
        return embedded(asked)

    return script


def faulty_embeddings(seed: int, share: float, hang_s: float) -> Script:
    """A script that misbehaves for a share of the calls, by seed, call and how often that call was made.

    Args:
        hang_s: how long what hangs takes; beyond the client's deadline, please.
    """
    times: Counter[str] = Counter()
    guard = threading.Lock()

    def nothing(text: str) -> np.ndarray:
        return np.full(WIDTH, np.nan, np.float32)

    def script(number: int, asked: Mapping[str, Any]) -> Reply:
        name = json.dumps(asked["input"])
        with guard:
            times[name] += 1
            rng = random.Random(f"{seed}:{name}:{times[name]}")
        good = embedded(asked)
        faults = [
            failure(429, **{"retry-after-ms": "20"}),
            failure(500),
            failure(503),
            Reply(b"", reset=True),
            embedded(asked, delay_s=hang_s, usable=False),
            Reply(b"<html>a login page</html>", headers={"Content-Type": "text/html"}),
            Reply(b"{}"),
            Reply(good.body[:60]),
            Reply(good.body[:60], declared=4000),
            embedded({**asked, "input": asked["input"][1:]}),
            embedded(asked, vectors=nothing),
        ]
        return rng.choice(faults) if rng.random() < share else good

    return script


def _written(vector: Any, as_numbers: bool) -> Any:
    if not isinstance(vector, np.ndarray):
        return vector
    return vector.tolist() if as_numbers else base64.b64encode(vector.astype("<f4").tobytes()).decode()
