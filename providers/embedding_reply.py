"""An embeddings reply, read without trust: one row a text, in the order of the texts, NaN where a vector is no use."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from providers.completion import Request
from providers.envelope import BAD_ENVELOPE, Envelope, known_count, readable_name
from providers.response_form import ResponseForm

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INPUT = "input"  # the role of a text to embed; no chat message has it, so no key of a chat is a key of texts
WRONG_WIDTH = "wrong_dimensions"


@dataclass(frozen=True)
class TextsRequest(Request):
    """Texts that are embedded together; `rows` says to the encoder which of its texts they are, and is in no key."""

    rows: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class EmbeddingExchange:
    """Embeddings, asked for in base64: a quarter of the bytes of decimal numbers, and exact.

    Args:
        width: numbers in a vector; None where nobody knows before the first reply.
    """

    width: int | None = None
    path: str = "/embeddings"
    reply_tokens: int = 0

    def body(self, request: Request, form: ResponseForm) -> bytes:
        texts = [content for _, content in request.messages]
        body = {"model": request.model, "input": texts, "encoding_format": "base64", **request.sampling}
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()

    def read(self, request: Request, body: bytes) -> Envelope:
        return read_vectors(body, len(request.messages), self.width)

    def divisible(self, request: Request) -> bool:
        return len(request.messages) > 1


def read_vectors(body: bytes, n_texts: int | None, width: int | None = None) -> Envelope:
    """The vectors of a reply to `n_texts` texts, or to as many as it says; never raises, whatever the bytes are.

    A reply that does not say which vector is whose is no reply. A vector that is not finite, has no length or not the
    width of the others costs its own text alone: its row is NaN.
    """
    try:
        document = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return Envelope(error_code=BAD_ENVELOPE, detail=f"not JSON ({type(error).__name__})")
    entries = document.get("data") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return Envelope(error_code=BAD_ENVELOPE, detail="no list `data` of embeddings")
    n_texts = len(entries) if n_texts is None else n_texts
    if len(entries) != n_texts:
        return Envelope(error_code=BAD_ENVELOPE, detail=f"{len(entries)} embeddings for {n_texts} texts")
    by_place = {entry.get("index"): entry.get("embedding") for entry in entries if _is_placed(entry)}
    if by_place.keys() != set(range(n_texts)):
        return Envelope(error_code=BAD_ENVELOPE, detail=f"`index` does not count the {n_texts} texts from 0")
    told = _told(document)
    vectors = [_numbers(by_place[place]) for place in range(n_texts)]
    widths = [len(vector) for vector in vectors if vector is not None and len(vector)]
    expected = width or max(set(widths), key=widths.count, default=0)
    if widths and expected not in widths:
        detail = f"the vectors have {widths[0]} numbers, expected {expected}"
        return Envelope(error_code=WRONG_WIDTH, detail=detail, **told)
    return Envelope(vectors=_unit_rows(vectors, expected), **told)


def _is_placed(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("index"), int) and not isinstance(entry["index"], bool)


def _told(document: dict[str, Any]) -> dict[str, Any]:
    """Model and counts; an embedding has no tokens out, which a server need not say."""
    usage = document.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    tokens_in = known_count(usage.get("prompt_tokens", usage.get("total_tokens")))
    counts = {name: count for name, value in sorted(usage.items()) if (count := known_count(value)) is not None}
    return {
        "model": readable_name(document.get("model")),
        "tokens_in": tokens_in,
        "tokens_out": None if tokens_in is None else 0,
        "usage": counts or None,
    }


def _numbers(embedding: object) -> NDArray[np.float64] | None:
    """The numbers of base64, or of a list from a server that knows no base64; None where it is neither."""
    import numpy as np

    if isinstance(embedding, str):
        try:
            raw = base64.b64decode(embedding, validate=True)
        except (binascii.Error, ValueError):
            return None
        return np.frombuffer(raw, "<f4").astype(np.float64) if len(raw) % struct.calcsize("<f") == 0 else None
    if isinstance(embedding, list) and all(type(number) in (int, float) for number in embedding):
        try:
            return np.array(embedding, np.float64)
        except OverflowError:
            return None
    return None


def _unit_rows(vectors: list[NDArray[np.float64] | None], width: int) -> NDArray[np.float32]:
    """float32 [n, width], each row of length 1, or NaN."""
    import numpy as np

    rows = np.full((len(vectors), width), np.nan)
    for place, vector in enumerate(vectors):
        if vector is not None and len(vector) == width:
            rows[place] = vector
    with np.errstate(all="ignore"):  # lengths of 0, NaN and infinity are what is looked for
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    units[~np.isfinite(units).all(axis=1)] = np.nan
    units[np.linalg.norm(np.nan_to_num(units), axis=1) == 0] = np.nan  # an infinite length divides all to 0
    return units.astype(np.float32)
