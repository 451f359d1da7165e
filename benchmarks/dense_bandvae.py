"""BANDVAE as its equations read: every table of users, units and factors is made whole.

A yardstick for speed and a reference for the numbers; it borrows the parameters of a model and nothing else of it.
Nothing outside `benchmarks/` and the tests imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rec_models.factors import InterestFactors
from rec_models.models.bandvae import BANDVAE


@dataclass(frozen=True)
class Draws:
    """Where chance comes from, so that two formulations can share it.

    Attributes:
        gumbel: shape (batch or 1, n_units, factors) -> a draw of it; called once an assignment, the last one last.
        dropout: what dropout makes of a tensor, and its share.
        normal: shape -> a draw.
    """

    gumbel: Callable[[tuple[int, ...]], Tensor]
    dropout: Callable[[Tensor, float], Tensor]
    normal: Callable[[tuple[int, ...]], Tensor]


def fresh() -> Draws:
    """Everything drawn anew for each user, unit and factor."""
    return Draws(lambda shape: -torch.empty(shape).exponential_().log(), F.dropout, torch.randn)


def channel(factors: InterestFactors, rows: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Shares (batch, n_units, factors), drawn factors (batch, factors, dim) and divergence (batch,) of dense rows."""
    options = factors.options
    units = factors.unit_vectors()
    prototypes = F.normalize(factors.prototypes, dim=-1)[None].expand(len(rows), -1, -1)
    last = 1 if options.iterations == 1 else len(rows)
    for left in reversed(range(options.iterations - 1)):
        scores = torch.einsum("nd,bkd->bnk", units, prototypes) / options.temperature
        shares = torch.softmax(scores + draws.gumbel(tuple(scores.shape)), -1)
        moved = draws.dropout(shares * rows[:, :, None], options.prototype_dropout)
        moved = torch.einsum("bnk,nd->bkd", moved, units)
        # a factor all of whose entries were dropped stays where it was
        prototypes = F.normalize(torch.where(moved.any(-1, keepdim=True), moved, prototypes), dim=-1)
        prototypes = prototypes.detach() if left == 0 else prototypes
    scores = torch.einsum("nd,bkd->bnk", units, prototypes[:last]) / options.temperature
    shares = torch.softmax(scores + draws.gumbel(tuple(scores.shape)), -1)
    inputs = draws.dropout(F.normalize(shares * rows[:, :, None], dim=1), options.dropout)
    hidden = torch.tanh(torch.einsum("bnk,nh->bkh", inputs, factors.encoder_in) + factors.encoder_in_bias)
    mean, narrower = factors.encoder_out(hidden).chunk(2, -1)
    mean = F.normalize(mean, dim=-1)
    z = mean + options.deviation * torch.exp(-narrower / 2) * draws.normal(tuple(mean.shape))
    return shares, z, 0.5 * (torch.exp(-narrower) - 1 + narrower).sum((1, 2))


def logits(factors: InterestFactors, shares: Tensor, z: Tensor) -> Tensor:
    """(batch, n_units) log of the mixture."""
    cosines = torch.einsum("nd,bkd->bnk", factors.unit_vectors(), F.normalize(z, dim=-1))
    return torch.logsumexp(shares.log() + cosines / factors.options.temperature, -1)


def plans(costs: Tensor, epsilon: float, iterations: int) -> Tensor:
    """(batch, n, m) by Sinkhorn in the log domain."""
    n, m = costs.shape[1:]
    kernel, f, g = -costs / epsilon, costs.new_zeros(len(costs), n), costs.new_zeros(len(costs), m)
    for _ in range(iterations):
        f = -torch.logsumexp(kernel + g[:, None], 2) - torch.log(torch.tensor(float(n)))
        g = -torch.logsumexp(kernel + f[:, :, None], 1) - torch.log(torch.tensor(float(m)))
    return torch.exp(kernel + f[:, :, None] + g[:, None])


def loss(model: BANDVAE, ratings: Tensor, text: Tensor | None, draws: Draws, step: int) -> dict[str, Tensor]:
    """The terms of `BANDVAE.loss` with adaptive fusion, from dense rows (batch, n_items) and (batch, n_words)."""
    config = model.config
    grown = (step + 1) / config.kl_anneal_steps
    shares, z, kl = channel(model.ratings, ratings, draws)
    fused, terms = z, {}
    if text is not None:
        words = model.sides[0].channel
        assert isinstance(words, InterestFactors) and model.fusion is not None
        word_shares, word_z, word_kl = channel(words, text, draws)
        costs = (z[:, :, None] - word_z[:, None]).square().sum(-1)
        plan = plans(costs.detach(), config.epsilon, config.sinkhorn_iterations)
        mapped = plan @ word_z / plan.sum(2, keepdim=True)
        mapped_back = plan.mT @ z / plan.sum(1)[..., None]
        fused = z + model.fusion(z, mapped)
        predicted = logits(words, word_shares, word_z + model.fusion(word_z, mapped_back))
        terms["text"] = -config.text_weight * (F.log_softmax(predicted, -1) * text).sum(-1).mean()
        terms["text_kl"] = config.text_weight * min(config.text_kl_cap, grown) * word_kl.mean()
        terms["alignment"] = config.alignment_weight * (plan * costs).sum((1, 2)).mean()
    terms["reconstruction"] = -(F.log_softmax(logits(model.ratings, shares, fused), -1) * ratings).sum(-1).mean()
    terms["kl"] = min(config.kl_cap, grown) * kl.mean()
    return terms
