"""What the vectors of a run would cost where a server makes them: texts, calls, tokens and money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.projection import LEAST_MARGIN, MIN_REPLIES, seconds_of
from flows.steps.embed import collect_texts, known_vectors
from flows.steps.rehearse import CHARACTERS_PER_TOKEN

if TYPE_CHECKING:
    from providers import OpenAIEmbeddingsConfig
    from warehouse import Snapshot, Warehouse

# Used until a profile is there whose length could be looked at.
PROFILE_CHARACTERS = 600


@dataclass(frozen=True)
class VectorsDue:
    """What is still to be embedded, and what it will take.

    Args:
        texts: of these, `known` have vectors that were paid for before.
        is_exact: false while profiles are still to come, which makes `texts` the most there can be.
        measured: calls that the tokens rest on; 0 for the rule of thumb.
        usd: None while the price is unknown.
        usd_low, usd_high: 20 % to either side; None without enough calls to go by.
    """

    texts: int
    known: int
    is_exact: bool
    calls: int
    tokens: int
    measured: int
    usd: float | None
    usd_low: float | None
    usd_high: float | None
    seconds: float


def vectors_due(
    warehouse: Warehouse, settings: OpenAIEmbeddingsConfig, snapshot: Snapshot | None, n_texts: int
) -> VectorsDue:
    """What the embed stage would ask a server for.

    Args:
        snapshot: whose profiles would be embedded; None while they are still to come.
        n_texts: how many texts there will be at most.
    """
    current = warehouse.current()
    if snapshot is not None:
        texts = collect_texts(snapshot)
        known = known_vectors((snapshot, current), settings.describe(), texts)
        missing = [text for hashed, text in texts.texts.items() if hashed not in known]
        n_texts = len(texts.texts)
        missing = _unpaid(warehouse, settings, missing)
    else:
        missing = [f"{place:<{_likely_characters(current)}}" for place in range(n_texts)]
    calls, worst_tokens = settings.forecast(missing)
    measured, share = _measured(warehouse, settings.model)
    tokens = round(worst_tokens * share if measured else sum(map(len, missing)) / CHARACTERS_PER_TOKEN)
    price = settings.known_price()
    usd = price.cost(tokens, 0) if price else None if settings.paid else 0.0
    low = high = None
    if price and usd is not None and measured >= MIN_REPLIES:
        low, high = usd * (1 - LEAST_MARGIN), usd * (1 + LEAST_MARGIN)
    seconds = seconds_of(settings, calls, tokens, ())
    is_exact = snapshot is not None
    return VectorsDue(
        n_texts, n_texts - len(missing), is_exact, calls, tokens, measured, usd, low, high, seconds if calls else 0.0
    )


def _unpaid(warehouse: Warehouse, settings: OpenAIEmbeddingsConfig, texts: Sequence[str]) -> list[str]:
    """Those whose vectors are in no stored reply."""
    hashes = settings.hashes(texts)
    with warehouse.ledger(read_only=True) as ledger:
        stored = {hashed for places in ledger.embedded.find(settings.series, hashes).values() for hashed, _ in places}
    return [text for text, hashed in zip(texts, hashes, strict=True) if hashed not in stored]


def _measured(warehouse: Warehouse, model: str) -> tuple[int, float]:
    """(answered calls for vectors of this model, the share of their worst case that they took)."""
    with warehouse.ledger(read_only=True) as ledger:
        calls = ledger.calls().select(["model", "kind", "state", "tokens_in", "worst_tokens"]).to_pylist()
    answered = [
        call
        for call in calls
        if call["kind"] == "texts" and call["model"] == model and call["state"] == "ok" and call["tokens_in"]
    ]
    worst = sum(call["worst_tokens"] or 0 for call in answered)
    return len(answered), sum(call["tokens_in"] for call in answered) / worst if worst else 1.0


def _likely_characters(current: Snapshot | None) -> int:
    """How long a profile is, from those that are there."""
    if current is None or not current.rows("profiles"):
        return PROFILE_CHARACTERS
    lengths = [len(text) for text in current.read("profiles", columns=["profile"]).column(0).to_pylist() if text]
    return round(sum(lengths) / len(lengths)) if lengths else PROFILE_CHARACTERS
