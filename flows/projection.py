"""From a few replies to the cost of all: tokens, USD with an interval, seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from flows.steps.rehearse import Ask, Rehearsal, Reply
    from providers import EngineConfig, Price

# Used until replies to questions of today are there.
REPLY_TOKENS = 220
CALLS_PER_S = 2.0

MIN_REPLIES = 5
# Replies are a sample of what is asked now; prices, prompts of users and retries are not in the sample.
LEAST_MARGIN = 0.2
_RESAMPLED = 500
_MOST_REPLIES = 2_000


@dataclass(frozen=True)
class Projection:
    """What is still to be asked, and what it will take.

    Args:
        calls: questions that are certain: first ones, and second ones that stored replies lead to.
        reasks: further second questions to expect, at the share of the replies that are there.
        measured: how many replies the figures rest on; 0 for rules of thumb.
        usd: None while the price is unknown.
        usd_low, usd_high: 95 % by resampling the replies, never narrower than 20 %; None without enough replies.
    """

    calls: int
    reasks: int
    measured: int
    tokens_in: int
    tokens_out: int
    usd: float | None
    usd_low: float | None
    usd_high: float | None
    seconds: float


def project(rehearsal: Rehearsal, engine: EngineConfig, latencies_s: Mapping[str, float]) -> Projection:
    """The cost of what a rehearsal found unanswered.

    Args:
        latencies_s: request key → seconds its call took, of the replies that were measured.
    """
    import numpy as np

    asks, replies = list(rehearsal.asks.values()), rehearsal.replies
    enough = len(replies) >= MIN_REPLIES
    rng = np.random.default_rng(0)
    share = rehearsal.second_share
    n_due = sum(ask.attempt_class != "first" for ask in asks)
    reasks = round(share * (len(asks) - n_due))
    more = 1.0 + reasks / len(asks) if asks else 1.0
    tokens_in, tokens_out = _tokens(asks, replies, rng) if replies else _by_rule(asks)
    tokens_in, tokens_out = tokens_in * more, tokens_out * more
    price = engine.known_price()
    unpriced = None if engine.paid else 0.0
    usd = _cost(price, tokens_in[0], tokens_out[0]) if price else unpriced
    low = high = None
    if price and usd is not None and enough:
        drawn = [_cost(price, *pair) for pair in zip(tokens_in[1:], tokens_out[1:], strict=True)]
        low = float(min(np.quantile(drawn, 0.025), usd * (1 - LEAST_MARGIN)))
        high = float(max(np.quantile(drawn, 0.975), usd * (1 + LEAST_MARGIN)))
    n_in, n_out = round(float(tokens_in[0])), round(float(tokens_out[0]))
    known_s = [latencies_s[reply.key] for reply in replies if reply.key in latencies_s]
    seconds = seconds_of(engine, len(asks) + reasks, n_in + n_out, known_s)
    return Projection(len(asks), reasks, len(replies), n_in, n_out, usd, low, high, seconds)


def _cost(price: Price, tokens_in: float, tokens_out: float) -> float:
    million = 1_000_000
    return float(
        tokens_in * price.input_usd_per_million / million + tokens_out * price.output_usd_per_million / million
    )


def _by_rule(asks: Sequence[Ask]) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    return np.array([float(sum(ask.tokens for ask in asks))]), np.array([float(len(asks) * REPLY_TOKENS)])


def _tokens(asks: Sequence[Ask], replies: Sequence[Reply], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(tokens in, tokens out) of all questions, each (1 + resampled,): the first value is the estimate.

    A kind with too few replies of its own takes those of both.
    """
    import numpy as np

    tokens_in, tokens_out = np.zeros(1 + _RESAMPLED), np.zeros(1 + _RESAMPLED)
    for kind in ("item", "user"):
        asked = [ask.tokens for ask in asks if ask.kind == kind]
        own = [reply for reply in replies if reply.kind == kind]
        pool = own if len(own) >= MIN_REPLIES else list(replies)
        pool = pool[:: max(1, len(pool) // _MOST_REPLIES)]
        rows = np.array([(reply.rule_tokens, reply.tokens_in, reply.tokens_out) for reply in pool], float)
        # (1 + resampled, replies): every reply once, then as many at random, again and again
        drawn = np.vstack([np.arange(len(rows)), rng.integers(0, len(rows), (_RESAMPLED, len(rows)))])
        rule, real, out = (rows[:, column][drawn] for column in range(3))
        tokens_in += sum(asked) * real.sum(axis=1) / np.maximum(rule.sum(axis=1), 1.0)
        tokens_out += len(asked) * out.mean(axis=1)
    return tokens_in, tokens_out


def seconds_of(engine: object, calls: int, tokens: int, latencies_s: Sequence[float]) -> float:
    """At the pace of the calls that were made, or of a rule of thumb; never faster than the limits allow."""
    concurrency = getattr(engine, "concurrency", None)
    if latencies_s and concurrency:
        seconds = calls * sum(latencies_s) / len(latencies_s) / concurrency
    else:
        seconds = calls / CALLS_PER_S
    limits = getattr(engine, "limits", None)
    if limits is not None and limits.requests_per_minute:
        seconds = max(seconds, 60.0 * calls / limits.requests_per_minute)
    if limits is not None and limits.tokens_per_minute:
        seconds = max(seconds, 60.0 * tokens / limits.tokens_per_minute)
    return seconds
