"""A row of ratings before and at a step of noise: what a critic compares, and what a generator is told of it."""

from __future__ import annotations

import torch
from torch import Tensor

from rec_models.blocks import dense_rows
from rec_models.diffusion import Between
from rec_models.interactions import UserBatch


class RowPair:
    """The rows of a batch before and at one step each, and the step made anew from a guess at the clean rows.

    Source: DGRM, section 3.1; `hidden_share` is ours.
    Deviations: hidden ratings are missing from the row that is told, and only there. Of such an item nothing is known
    at the step, so that what lies before follows from the clean row alone, where the others have the posterior.

    Attributes:
        batch: whose rows they are; told: its entries that are not hidden.
        at: (batch,) int64 step, counted from 0.
        start: (batch, n_items) the clean rows.
        held: (batch, n_items) ones where a made row is held to the true one: where there is a rating, and more where a
            share of the other items stands for 0.
        previous: (batch, n_items) the true rows of the step before.
        shown: (batch, n_items) the rows at the step, hidden ratings left out.
    """

    def __init__(
        self,
        batch: UserBatch,
        top: float,
        at: Tensor,
        between: Between,
        rng: torch.Generator,
        *,
        same_noise: bool = False,
        hidden_share: float = 0.0,
        unrated_share: float = 0.0,
    ) -> None:
        """Args: `top` is what ratings are divided by; `same_noise` takes one noise for both steps."""
        self.batch, self.told, self.at, self.between = batch, batch, at, between
        self.start = dense_rows(batch.with_values(batch.values / top))
        self.held = dense_rows(batch.with_values(torch.ones_like(batch.values)))
        first = normal(self.start.shape, rng, self.start)
        second = first if same_noise else normal(self.start.shape, rng, self.start)

        def pair(rows: Tensor) -> tuple[Tensor, Tensor]:
            return between.same_noise(rows, first) if same_noise else between.pair(rows, (first, second))

        self.previous, self._current = pair(self.start)
        self.shown, self._hidden = self._current, None
        if hidden_share:
            kept = torch.rand(batch.values.shape, generator=rng, device=self.start.device) >= hidden_share
            self.told = batch.only(kept)
            self._hidden = dense_rows(batch.with_values((~kept).to(self.start))) > 0
            self.shown = pair(self.start.masked_fill(self._hidden, 0.0))[1]
        if unrated_share:
            drawn = torch.rand(self.start.shape, generator=rng, device=self.start.device) < unrated_share
            self.held = self.held.masked_fill(drawn, 1.0)

    def before(self, clean: Tensor, rng: torch.Generator) -> Tensor:
        """(batch, n_items) a draw of the step before, were the rows `clean` (batch, n_items) the true ones."""
        noise = normal(clean.shape, rng, clean)
        drawn = self.between.previous(clean, self._current, noise)
        if self._hidden is None:
            return drawn
        spread = self.between.before
        return torch.where(self._hidden, (1 - spread).sqrt() * clean + spread.sqrt() * noise, drawn)


def normal(shape: tuple[int, ...], rng: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers on the device and of the type of another tensor."""
    return torch.randn(shape, generator=rng, device=like.device, dtype=like.dtype)
