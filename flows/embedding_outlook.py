"""What the vectors of a run would cost where a server makes them: texts, calls, tokens and money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.projection import LEAST_MARGIN, MIN_REPLIES, seconds_of
from flows.steps.due_vectors import due_vectors
from flows.steps.rehearse import CHARACTERS_PER_TOKEN
from flows.vector_sources import VectorFiles

if TYPE_CHECKING:
    from flows.embedding_sets import DescribedSet
    from providers import OpenAIEmbeddingsConfig
    from warehouse import Snapshot, Warehouse

# Of a local encoder on two cores.
TEXTS_PER_S = 60.0
# Used until a profile is there whose length could be looked at.
PROFILE_CHARACTERS = 600


@dataclass(frozen=True)
class VectorsDue:
    """What is still to be embedded, and what it will take.

    Args:
        words: the same for people.
        texts: of these, `known` have vectors already; the most there can be while profiles are still to come.
        measured: calls that the tokens rest on; 0 for the rule of thumb.
        usd: None while the price is unknown.
        usd_low, usd_high: 20 % to either side; None without enough calls to go by.
    """

    words: str
    seconds: float
    texts: int = 0
    known: int = 0
    calls: int = 0
    tokens: int = 0
    measured: int = 0
    usd: float | None = 0.0
    usd_low: float | None = None
    usd_high: float | None = None


def due_of(
    warehouse: Warehouse, same: Sequence[DescribedSet], snapshot: Snapshot | None, n_profiles: int
) -> VectorsDue:
    """What the embed stage would do for the sets of one encoder.

    Args:
        snapshot: whose profiles would be embedded; None while they are still to come.
        n_profiles: how many there will be at most; of columns it is only known that an entity has one text of each.
    """
    from providers import OpenAIEmbeddingsConfig

    n_texts, model = n_profiles * sum(len(one.wanted.texts) for one in same), same[0].identity.model
    if isinstance(same[0].config, VectorFiles):
        return VectorsDue(f"vectors of {model}, read and joined by id", 1.0)
    if isinstance(same[0].config, OpenAIEmbeddingsConfig):
        return _bought(warehouse, same[0].config, same, snapshot, n_texts)
    return _made_here(model, n_texts)


def due_of_texts(warehouse: Warehouse, one: DescribedSet, texts: Sequence[str]) -> VectorsDue:
    """What it would take to embed these texts, of which some may stand for texts to come."""
    from providers import OpenAIEmbeddingsConfig

    if not isinstance(one.config, OpenAIEmbeddingsConfig):
        return _made_here(one.identity.model, len(texts))
    return _priced(warehouse, one.config, _unpaid(warehouse, one.config, texts), len(texts), at_most=False)


def in_all(dues: Sequence[VectorsDue]) -> VectorsDue:
    """Several encoders together; an unknown price stays unknown."""
    priced = [due.usd for due in dues if due.usd is not None]
    usd = sum(priced) if len(priced) == len(dues) else None
    has_interval = usd is not None and any(due.usd_low is not None for due in dues)
    return VectorsDue(
        words="; ".join(due.words for due in dues),
        seconds=sum(due.seconds for due in dues),
        texts=sum(due.texts for due in dues),
        known=sum(due.known for due in dues),
        calls=sum(due.calls for due in dues),
        tokens=sum(due.tokens for due in dues),
        measured=sum(due.measured for due in dues),
        usd=usd,
        usd_low=sum(due.usd_low or due.usd or 0.0 for due in dues) if has_interval else None,
        usd_high=sum(due.usd_high or due.usd or 0.0 for due in dues) if has_interval else None,
    )


def _made_here(model: str, n_texts: int) -> VectorsDue:
    words = f"at most {n_texts:,} texts by {model}; texts embedded before are not embedded again"
    return VectorsDue(words, 10 + n_texts / TEXTS_PER_S, n_texts)


def _bought(
    warehouse: Warehouse,
    settings: OpenAIEmbeddingsConfig,
    same: Sequence[DescribedSet],
    snapshot: Snapshot | None,
    n_texts: int,
) -> VectorsDue:
    """What a server would be asked for."""
    if snapshot is not None:
        due = due_vectors(warehouse, snapshot, same)
        n_texts = len(due.pool.texts)
        missing = _unpaid(warehouse, settings, [due.pool.texts[place] for place in due.missing])
    else:
        missing = [f"{place:<{_likely_characters(warehouse.current())}}" for place in range(n_texts)]
    return _priced(warehouse, settings, missing, n_texts, at_most=snapshot is None)


def _priced(
    warehouse: Warehouse, settings: OpenAIEmbeddingsConfig, missing: Sequence[str], n_texts: int, *, at_most: bool
) -> VectorsDue:
    """The missing of so many texts in calls, tokens and money."""
    calls, worst_tokens = settings.forecast(missing)
    measured, share = _measured(warehouse, settings.model)
    tokens = round(worst_tokens * share if measured else sum(map(len, missing)) / CHARACTERS_PER_TOKEN)
    price = settings.known_price()
    usd = price.cost(tokens, 0) if price else None if settings.paid else 0.0
    low = high = None
    if price and usd is not None and measured >= MIN_REPLIES:
        low, high = usd * (1 - LEAST_MARGIN), usd * (1 + LEAST_MARGIN)
    seconds = seconds_of(settings, calls, tokens, ()) if calls else 0.0
    known = n_texts - len(missing)
    words = (
        f"{'at most ' if at_most else ''}{len(missing):,} texts by {settings.model} in {calls:,} calls;"
        f" {known:,} embedded before; from {f'{measured:,} calls' if measured else 'rules of thumb'}"
    )
    return VectorsDue(words, seconds, n_texts, known, calls, tokens, measured, usd, low, high)


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
