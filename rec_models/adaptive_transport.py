"""Optimal adaptive transport (OAT): maps from language to IDs, and what is left between their distributions.

Source: RecGOAT's abstract, which names the 1-Wasserstein distance between IDs and language representations, and its
code at revision ca24976.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from rec_models.losses import info_nce
from rec_models.transport import (
    PlanGradient,
    Transport,
    assignment_w1,
    dimension_costs,
    euclidean_costs,
    relative_epsilon,
    scaling_sinkhorn,
    sinkhorn,
    sinkhorn_divergence,
)

# Rows distances are measured over: assigning 512 exactly takes some 20 ms, 4,096 would take 10 s.
_ROWS_MEASURED = 512

TransportForm = Literal["sample", "feature", "released", "none"]


class EntropicSettings(NamedTuple):
    """How plans are made.

    Attributes:
        epsilon: as a share of the median cost.
        iterations: Sinkhorn updates.
        gradient: the plan is held constant, or its iterations are differentiated.
        moves_ids: the sample form's distance moves IDs too.
        scaling: factor by which ε falls to its value from the largest cost; None begins at it.
    """

    epsilon: float
    iterations: int
    gradient: PlanGradient
    moves_ids: bool = False
    scaling: float | None = None

    def plan(self, cost: Tensor) -> Transport:
        """Between rows and columns of a cost (n, m)."""
        epsilon = relative_epsilon(cost, self.epsilon)
        return sinkhorn(cost, epsilon, iterations=self.iterations, scaling=self.scaling, gradient=self.gradient)


class Untransported(nn.Module):
    """Language as it is, at no cost."""

    def forward(self, language: Tensor, ids: Tensor, among: Tensor, *, costed: bool) -> tuple[Tensor, Tensor]:
        """(n, dim) moved language and () what is left of the distance.

        Args:
            language: (n, dim).
            ids: (n, dim).
            among: (some,) int64 rows that stand for both distributions.
            costed: whether the second is asked for.
        """
        return language, language.new_zeros(())

    def marginal_error(self, moved: Tensor, ids: Tensor) -> float | None:
        """How far the sample form's plan is from its row sums, of 1 in all; None of the other forms.

        Args:
            moved: (n, dim) language behind the map.
            ids: (n, dim).
        """
        return None


class SampleTransport(Untransported):
    """A linear map that begins as the identity, and the debiased entropic 1-Wasserstein distance between items.

    Language is carried to where IDs are. Where the distance moves both, they meet at the cheapest place, in which all
    vectors are 0 or lie along one line, and nothing is left to rank by (`moves_ids`).

    Source: the abstract; the form is our reading.
    Deviations: the code transports dimensions and descends no distance.
    """

    def __init__(self, dim: int, settings: EntropicSettings) -> None:
        super().__init__()
        self.settings = settings
        self.map = nn.Parameter(torch.eye(dim))

    def forward(self, language: Tensor, ids: Tensor, among: Tensor, *, costed: bool) -> tuple[Tensor, Tensor]:
        """As Untransported's; the distance is that of the items `among`."""
        moved = language @ self.map
        if not costed or len(among) < 2:
            return moved, moved.new_zeros(())
        with torch.autocast(moved.device.type, enabled=False):
            targets = ids[among] if self.settings.moves_ids else ids[among].detach()
            clouds = moved[among].float(), targets.float()
            how = self.settings
            return moved, sinkhorn_divergence(
                *clouds, how.epsilon, iterations=how.iterations, scaling=how.scaling, gradient=how.gradient
            )

    @torch.no_grad()
    def marginal_error(self, moved: Tensor, ids: Tensor) -> float:
        """Of the plan between the two clouds."""
        return float(self.settings.plan(euclidean_costs(moved.float(), ids.float())).marginal_error)


class FeatureTransport(Untransported):
    """A plan between the dimensions of language and of IDs, made anew from the items `among`, and a correction of it.

    Source: RecGOAT's code for transport between dimensions.
    Deviations: the ground cost is the mean absolute difference of standardised features, not 100 times the mean square;
    the plan is made in the log domain and multiplied by the number of dimensions, so that each output is an average of
    inputs, where the code's plan of mass 1 is lost beside its correction; the correction begins at 0; the cost is
    descended.
    """

    def __init__(self, dim: int, settings: EntropicSettings) -> None:
        super().__init__()
        self.settings = settings
        self.correction = nn.Parameter(torch.zeros(dim, dim))

    def forward(self, language: Tensor, ids: Tensor, among: Tensor, *, costed: bool) -> tuple[Tensor, Tensor]:
        """As Untransported's; the distance is that of the dimensions."""
        if len(among) < 2:
            return language + language @ self.correction, language.new_zeros(())
        with torch.autocast(language.device.type, enabled=False):
            cost = dimension_costs(standardised(language[among].float()), standardised(ids[among].float()))
            found = self.settings.plan(cost)
        return language @ (len(cost) * found.plan + self.correction), found.value


class ReleasedTransport(Untransported):
    """The released code's map: the plan of mass 1 plus a free matrix that is a thousand times as large.

    Source: RecGOAT's code; its cost 100 mean (a - b)^2 is made by one matrix product, which is the same number.
    Deviations: in training the plan is that of the batch's items, the code's that of all. Nothing descends the cost,
    and the plan, where it has mass at all, moves the map by 0.1 %.
    """

    def __init__(self, dim: int, settings: EntropicSettings) -> None:
        super().__init__()
        self.free = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dim, dim)))

    def forward(self, language: Tensor, ids: Tensor, among: Tensor, *, costed: bool) -> tuple[Tensor, Tensor]:
        """As Untransported's; all rows stand for the distributions, and the cost is reported as 0."""
        return language @ (self.plan(language, ids) + self.free), language.new_zeros(())

    @torch.no_grad()
    def plan(self, language: Tensor, ids: Tensor) -> Tensor:
        """(dim, dim)."""
        with torch.autocast(language.device.type, enabled=False):
            return scaling_sinkhorn(100 * dimension_costs(language.float(), ids.float(), 2), epsilon=0.01)


def transport_of(form: TransportForm, dim: int, settings: EntropicSettings) -> Untransported:
    """The untrained map of this form."""
    forms = {"sample": SampleTransport, "feature": FeatureTransport, "released": ReleasedTransport}
    return forms[form](dim, settings) if form in forms else Untransported()


def standardised(rows: Tensor) -> Tensor:
    """(n, dim) columns of mean 0 and variance 1; a constant column stays 0."""
    centred = rows - rows.mean(0)
    return centred / centred.square().mean(0).clamp_min(1e-12).sqrt()


def gaps(language: Tensor, ids: Tensor, temperature: float, transport: Untransported) -> dict[str, float]:
    """How far language (n, dim) lies from IDs (n, dim) of the same items, over at most 512 of them; {} of none.

    `w1` is the exact 1-Wasserstein distance; `w1_relative` that over the mean distance of a language vector from an ID,
    which does not change with their scale; `info_nce` what IDs pay to find their own text among those, in nats;
    `marginal_error` how far this transport's plan between them is from its row sums, where it has one.
    """
    if not len(ids):
        return {}
    some = torch.linspace(0, len(ids) - 1, min(len(ids), _ROWS_MEASURED), device=ids.device).long()
    language, ids = language[some].float(), ids[some].float()
    distance, error = assignment_w1(language, ids), transport.marginal_error(language, ids)
    return ({} if error is None else {"marginal_error": error}) | {
        "w1": distance,
        "w1_relative": distance / max(float(euclidean_costs(language, ids).mean()), 1e-12),
        "info_nce": float(info_nce(ids, language, language, temperature)) / len(some),
    }
