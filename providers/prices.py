"""What a model costs: a dated table and the user's own figures. An unknown price stays unknown, never 0."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, NonNegativeFloat


@dataclass(frozen=True)
class Price:
    """USD for a million tokens, and the day the figure was read."""

    model: str
    input_usd_per_million: float
    output_usd_per_million: float
    as_of: str

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """USD for so many tokens."""
        return (tokens_in * self.input_usd_per_million + tokens_out * self.output_usd_per_million) / 1_000_000


class PriceOverride(BaseModel):
    """A price the user wrote, which wins over the table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_usd_per_million: NonNegativeFloat
    output_usd_per_million: NonNegativeFloat


_LISTED = "2026-03-21"
_EMBEDDINGS_LISTED = "2026-11-21"

# What a request in a batch costs of the price of an ordinary call, as listed on the day above.
BATCH_FACTOR = 0.5

# List prices of the public API for ordinary (not batch, not cached) calls, as listed on the days above.
PRICES: tuple[Price, ...] = (
    Price("gpt-4.1", 2.00, 8.00, _LISTED),
    Price("gpt-4.1-mini", 0.40, 1.60, _LISTED),
    Price("gpt-4.1-nano", 0.10, 0.40, _LISTED),
    Price("gpt-4o", 2.50, 10.00, _LISTED),
    Price("gpt-4o-mini", 0.15, 0.60, _LISTED),
    Price("gpt-5", 1.25, 10.00, _LISTED),
    Price("gpt-5-mini", 0.25, 2.00, _LISTED),
    Price("gpt-5-nano", 0.05, 0.40, _LISTED),
    Price("o3", 2.00, 8.00, _LISTED),
    Price("o4-mini", 1.10, 4.40, _LISTED),
    Price("text-embedding-3-small", 0.02, 0.0, _EMBEDDINGS_LISTED),
    Price("text-embedding-3-large", 0.13, 0.0, _EMBEDDINGS_LISTED),
    Price("text-embedding-ada-002", 0.10, 0.0, _EMBEDDINGS_LISTED),
)


def price_of(model: str, override: PriceOverride | None = None) -> Price | None:
    """The user's price, else the listed price of exactly this name or of the name without its date, else None."""
    if override is not None:
        return Price(model, override.input_usd_per_million, override.output_usd_per_million, as_of="settings")
    listed = {price.model: price for price in PRICES}
    head, _, tail = model.partition("-20")
    dated = len(tail) == len("25-04-14") and tail.replace("-", "").isdigit()
    return listed.get(model) or (listed.get(head) if dated else None)


def batch_price(price: Price | None, factor: float = BATCH_FACTOR) -> Price | None:
    """The price of the same tokens in a batch; an unknown price stays unknown."""
    if price is None:
        return None
    scaled = price.input_usd_per_million * factor, price.output_usd_per_million * factor
    return Price(price.model, *scaled, as_of=price.as_of)
