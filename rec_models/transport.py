"""Optimal transport: what it costs to turn one distribution into another, by Sinkhorn's iterations in the log domain.

Source: Cuturi 2013 (entropic transport), Schmitzer 2019 (ε-scaling), Feydy et al. 2019 (debiased divergences).
Deviations: iterations keep potentials, never their exponentials, which underflow at costs of 100 ε in float32.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

PlanGradient = Literal["detached", "unrolled"]
# Problems of up to this many cells lie with the batch innermost: sums over 16 neighbours leave vectors half empty.
_CELLS_OF_A_SMALL_PROBLEM = 1024
_ITERATIONS_A_CHECK = 10  # a check makes the plan, which costs as much as half an iteration
_ITERATIONS_A_STAGE = 20
_NO_MASS = 1e-25  # of the independent plan: less would be denormal numbers, which slow down every product with a plan


class Transport(NamedTuple):
    """What `sinkhorn` found; leading dimensions are those of the cost.

    Attributes:
        plan: (..., n, m) how much mass goes from each row to each column; column sums are exact up to rounding.
        value: (...) cost of the plan, <plan, cost>.
        regularised: (...) value plus ε KL(plan | rows x columns), which is what the iterations minimise. With a
            detached plan either has the gradient `plan` in the cost: exact for this one, by the envelope theorem.
        row_potentials: (..., n) f in units of the cost, where plan = rows columns exp((f + g - cost) / ε).
        column_potentials: (..., m) g.
        marginal_error: (...) L1 distance of the plan's row sums from `rows`; no gradient.
        iterations: pairs of updates made, in all stages of ε-scaling together.
    """

    plan: Tensor
    value: Tensor
    regularised: Tensor
    row_potentials: Tensor
    column_potentials: Tensor
    marginal_error: Tensor
    iterations: int


def sinkhorn(
    cost: Tensor,
    epsilon: float | Tensor,
    *,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
    iterations: int = 100,
    tolerance: float | None = None,
    scaling: float | None = None,
    gradient: PlanGradient = "detached",
) -> Transport:
    """Entropic transport plans between `rows` and `columns`, each problem of a batch for itself.

    Args:
        cost: (..., n, m) finite, float32 or float64. Where ε is below 1e-5 of the costs, float32 rounds them by as
            much as counts: give float64.
        epsilon: > 0 in units of the cost, one or (...).
        rows: (..., n) masses >= 0 that sum to 1; None is 1 / n each. Padding has 0.
        columns: (..., m) likewise.
        iterations: at most, at `epsilon`; each updates row potentials, then column potentials.
        tolerance: stop once no problem's `marginal_error` is above it, looked at every ten iterations; None makes all
            of them, and never waits for a device.
        scaling: factor in (0, 1) by which ε falls from the largest cost to `epsilon`, with up to 20 iterations at each
            step, which small ε need in order to converge; None starts at `epsilon`.
        gradient: `detached` holds the plan constant; `unrolled` differentiates through all iterations, and keeps them
            in memory.
    """
    unrolled = gradient == "unrolled" and torch.is_grad_enabled()
    leading, (n, m) = cost.shape[:-2], cost.shape[-2:]
    layout = _BATCH_LAST if n * m <= _CELLS_OF_A_SMALL_PROBLEM else _BATCH_FIRST
    with torch.set_grad_enabled(unrolled):
        ways = layout.lay(cost.reshape(-1, n, m)).contiguous()
        sharpness = torch.as_tensor(epsilon, dtype=cost.dtype, device=cost.device)
        problem = _Problem(
            ways,
            layout.lay(sharpness.expand(leading).reshape(-1, 1, 1) * math.log(2)),
            layout.lay(_masses(rows, leading, n, cost)[..., None]),
            layout.lay(_masses(columns, leading, m, cost)[:, None]),
            layout,
            None if unrolled else torch.empty_like(ways),
        )
        f, g, spent = problem.solved(iterations, tolerance, scaling)
        laid, error = problem.plan(f, g)
        value = (laid * ways).sum(layout.cells)
        entropy = (laid * (f + g)).sum(layout.cells) * problem.bit.flatten() - value
    plan = layout.lay_back(laid).reshape(cost.shape)
    value, entropy = value.view(leading), entropy.view(leading)
    if not unrolled:
        value = (plan * cost).sum((-2, -1))
    return Transport(
        plan,
        value,
        value + entropy,
        layout.lay_back(f * problem.bit).reshape(*leading, n),
        layout.lay_back(g * problem.bit).reshape(*leading, m),
        error.detach().view(leading),
        spent,
    )


class _Layout(NamedTuple):
    """Where the axes of (batch, n, m) lie."""

    order: tuple[int, int, int]
    row_axis: int
    column_axis: int

    @property
    def cells(self) -> tuple[int, int]:
        return self.row_axis, self.column_axis

    def lay(self, each: Tensor) -> Tensor:
        return each.permute(self.order)

    def lay_back(self, each: Tensor) -> Tensor:
        return each.permute([self.order.index(axis) for axis in range(3)])


_BATCH_FIRST = _Layout((0, 1, 2), 1, 2)
_BATCH_LAST = _Layout((1, 2, 0), 0, 1)


class _Problem(NamedTuple):
    """Problems in one layout; every tensor has three axes. Potentials are in bits, against rows x columns."""

    cost: Tensor
    bit: Tensor  # the cost that halves a mass, ε ln 2: powers of 2 take a third of the time of powers of e
    rows: Tensor
    columns: Tensor
    layout: _Layout
    scratch: Tensor | None  # of the cost's shape; None where iterations are differentiated, which must keep theirs

    def solved(self, iterations: int, tolerance: float | None, scaling: float | None) -> tuple[Tensor, Tensor, int]:
        """Row and column potentials, and how many iterations they took."""
        f, g, spent = torch.zeros_like(self.rows), torch.zeros_like(self.columns), 0
        stages = [] if scaling is None else self.stages(scaling)
        for bit, most in [*((bit, _ITERATIONS_A_STAGE) for bit in stages), (self.bit, iterations)]:
            f, g, more = self._replace(bit=bit).alternated(f / bit, g / bit, most, tolerance)
            f, g, spent = f * bit, g * bit, spent + more
        return f / self.bit, g / self.bit, spent

    def stages(self, scaling: float) -> list[Tensor]:
        """What a bit costs before it costs what was asked for, falling."""
        widest = self.cost.detach().amax(self.layout.cells, keepdim=True).maximum(self.bit)
        steps = math.ceil(float((self.bit / widest).log().amin()) / math.log(scaling))
        return [(widest * scaling**step).maximum(self.bit) for step in range(steps)]

    def alternated(self, f: Tensor, g: Tensor, iterations: int, tolerance: float | None) -> tuple[Tensor, Tensor, int]:
        """Potentials after at most so many updates of each."""
        kernel = self.cost / -self.bit
        log_rows, log_columns = self.rows.log2(), self.columns.log2()
        for step in range(1, iterations + 1):
            f = -_log_sums(kernel, g + log_columns, self.layout.column_axis, self.scratch)
            g = -_log_sums(kernel, f + log_rows, self.layout.row_axis, self.scratch)
            if tolerance is not None and step % _ITERATIONS_A_CHECK == 0 and self.plan(f, g)[1].amax() <= tolerance:
                return f, g, step
        return f, g, iterations

    def plan(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """The plan of these potentials, and the (batch,) L1 error of its rows.

        Potentials of thousands of bits carry float32's rounding into the exponent, so columns are made exact once more.
        """
        plan = F.threshold((self.cost / -self.bit + f + g).exp2(), _NO_MASS, 0.0) * self.rows * self.columns
        sums = plan.sum(self.layout.row_axis, keepdim=True)
        plan = plan * (self.columns / sums.clamp_min(torch.finfo(plan.dtype).tiny))
        found = plan.sum(self.layout.column_axis, keepdim=True)
        return plan, (found - self.rows).abs().sum(self.layout.cells)


def _log_sums(kernel: Tensor, weights: Tensor, axis: int, scratch: Tensor | None) -> Tensor:
    """Log2-sum-exp2 of kernel + weights along an axis, kept; with scratch in place, which takes a tenth of the time."""
    if scratch is None:
        return torch.logsumexp((kernel + weights) * math.log(2), axis, keepdim=True) / math.log(2)
    torch.add(kernel, weights, out=scratch)
    highest = scratch.amax(axis, keepdim=True)
    # What is below 2**-100 of the highest adds nothing, and as a denormal number it would take ten times as long.
    return highest + scratch.sub_(highest).clamp_min_(-100).exp2_().sum(axis, keepdim=True).log2_()


def _masses(given: Tensor | None, leading: torch.Size, n: int, cost: Tensor) -> Tensor:
    if given is None:
        return cost.new_full((math.prod(leading), n), 1 / n)
    return given.to(cost.dtype).expand(*leading, n).reshape(-1, n)


def scaling_sinkhorn(cost: Tensor, epsilon: float, iterations: int = 100) -> Tensor:
    """(n, m) the plan between uniform marginals as the released code of RecGOAT computes it.

    Source: 6lyc/RecGOAT-WSDM2027 at revision ca24976.
    Deviations: none, so exp(-cost / ε) underflows and with costs of 100 ε the plan's mass is 0. Use `sinkhorn`.
    """
    kernel = torch.exp(cost / -epsilon)
    rows, columns = (torch.full_like(kernel.select(axis, 0), 1 / kernel.shape[1 - axis]) for axis in (1, 0))
    v = torch.ones_like(columns)
    u = torch.ones_like(rows)
    for _ in range(iterations):
        u = rows / (kernel @ v + 1e-8)
        v = columns / (kernel.t() @ u + 1e-8)
    return u[:, None] * kernel * v


def barycentric(plan: Tensor, targets: Tensor) -> Tensor:
    """(..., n, width) where each row's mass goes on average; a row without mass goes to 0.

    Args:
        plan: (..., n, m).
        targets: (..., m, width).
    """
    return (plan @ targets) / plan.sum(-1, keepdim=True).clamp_min(torch.finfo(plan.dtype).tiny)


def euclidean_costs(a: Tensor, b: Tensor) -> Tensor:
    """(..., n, m) distances between points a (..., n, width) and b (..., m, width), by one matrix product.

    The gradient of a distance of 0 is 0. Both are moved so that b has mean 0, which keeps far points from cancelling.
    """
    centre = b.detach().mean(-2, keepdim=True)
    a, b = a - centre, b - centre
    squares = a.square().sum(-1, keepdim=True) + b.square().sum(-1)[..., None, :]
    # (..., n, width) @ (..., width, m) -> (..., n, m)
    return (squares - 2 * a @ b.mT).clamp_min(1e-12).sqrt()


def dimension_costs(a: Tensor, b: Tensor, power: Literal[1, 2] = 1) -> Tensor:
    """(width_a, width_b) mean over samples of |a_j - b_k| ** power, for a (n, width_a) and b (n, width_b).

    Source: RecGOAT's code for the square; it broadcasts to (n, width_a, width_b), which a matrix product need not.
    Deviations: none.
    """
    if power == 1:
        return torch.cdist(a.t().contiguous(), b.t().contiguous(), p=1) / len(a)
    means = a.square().mean(0)[:, None] + b.square().mean(0)
    return means - 2 / len(a) * (a.t() @ b)


def relative_epsilon(cost: Tensor, share: float) -> Tensor:
    """(...) ε as a share of the median cost (..., n, m) of each problem; no gradient."""
    return (share * cost.detach().flatten(-2).median(-1).values).clamp_min(1e-9)


def sinkhorn_divergence(
    a: Tensor,
    b: Tensor,
    share: float,
    *,
    iterations: int = 100,
    tolerance: float | None = None,
    scaling: float | None = None,
    gradient: PlanGradient = "detached",
) -> Tensor:
    """(...) how far apart two clouds of points are: 0 where they are equal, in units of distance.

    The entropic 1-Wasserstein distance of each to the other, less the mean of each to itself, which takes away what
    ε adds. It nears the 1-Wasserstein distance as ε falls.

    Args:
        a: (..., n, width) points of equal weight.
        b: (..., m, width) likewise.
        share: ε as a share of the median distance between the two.
        iterations, tolerance, scaling, gradient: as `sinkhorn`'s.

    Source: Feydy et al. 2019, equation 3, with the unsquared Euclidean distance for a cost.
    Deviations: none.
    """
    cross = euclidean_costs(a, b)
    epsilon = relative_epsilon(cross, share)
    across, within_a, within_b = (
        sinkhorn(
            cost, epsilon, iterations=iterations, tolerance=tolerance, scaling=scaling, gradient=gradient
        ).regularised
        for cost in (cross, euclidean_costs(a, a), euclidean_costs(b, b))
    )
    return across - (within_a + within_b) / 2


def assignment_w1(a: Tensor, b: Tensor) -> float:
    """The exact 1-Wasserstein distance of two clouds of n points (n, width), by assigning each point its partner.

    For measuring, not for descending: O(n^3) on the host; 512 points take some 20 ms.
    """
    costs = euclidean_costs(a, b).detach().double().cpu().numpy()
    return float(costs[linear_sum_assignment(costs)].mean())


def sliced_w1(a: Tensor, b: Tensor, directions: Tensor) -> Tensor:
    """() mean over directions of the 1-Wasserstein distance of the projections; a lower bound of the distance itself.

    Args:
        a: (n, width) points of equal weight.
        b: (m, width) likewise.
        directions: (k, width) of unit length.

    Source: Bonneel et al. 2015.
    Deviations: the distance of order 1, as the area between the two cumulative distributions; n and m may differ.
    """
    # (n + m, width) @ (width, k) -> (n + m, k)
    places, order = (torch.cat([a, b]) @ directions.t()).sort(0)
    step = torch.where(order < len(a), 1 / len(a), -1 / len(b))
    return (step.cumsum(0)[:-1].abs() * places.diff(dim=0)).sum(0).mean()
