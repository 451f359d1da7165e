"""Diagonal Gaussians carried as (mean, log-variance): the only form in which nothing overflows on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DiagonalGaussian:
    """A batch of Gaussians with diagonal covariance.

    Attributes:
        mean: (batch, latent).
        log_variance: (batch, latent), natural logarithm of the variances.
    """

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def from_halves(cls, moments: Tensor, clamp: float | None = None) -> DiagonalGaussian:
        """The Gaussian whose mean is the first half of the last axis and whose log-variance is the second.

        Args:
            moments: (batch, 2 * latent).
            clamp: limits log-variances to [-clamp, clamp]; None leaves them alone.
        """
        exact = moments if moments.dtype == torch.float64 else moments.float()
        mean, log_variance = exact.chunk(2, dim=-1)
        return cls(mean, log_variance if clamp is None else log_variance.clamp(-clamp, clamp))

    def sample(self, rng: torch.Generator | None) -> Tensor:
        """(batch, latent) one reparameterised draw each; gradients reach mean and log-variance."""
        noise = torch.randn(self.mean.shape, generator=rng, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + torch.exp(0.5 * self.log_variance) * noise


def standard_normal(like: DiagonalGaussian) -> DiagonalGaussian:
    """N(0, I) in the shape of another batch."""
    zeros = torch.zeros_like(like.mean)
    return DiagonalGaussian(zeros, zeros)


def kl(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    """(batch,) KL(q || p) in nats, summed over the latent axis.

    Source: closed form for diagonal Gaussians, written with differences of log-variances.
    Deviations: DMRec's released code adds 1e-7 inside ratio and logarithm, which is biased once a variance nears
    1e-7 and NaN at log-variance 90; this form needs no such term and is the default everywhere.
    """
    wider = q.log_variance - p.log_variance
    shift = (q.mean - p.mean).square() * torch.exp(-p.log_variance)
    # expm1: near equal variances 1 would swallow what is left of the exponential
    return 0.5 * (torch.expm1(wider) - wider + shift).sum(-1)


def kl_with_epsilon(q: DiagonalGaussian, p: DiagonalGaussian, epsilon: float = 1e-7) -> Tensor:
    """(batch,) KL(q || p) with a small term inside ratios and logarithm; biased, and at KL 0 not 0.

    Source: DMRec's released code.
    Deviations: none from the code, which it exists to reproduce; `kl` is the default everywhere.
    """
    variance, other = torch.exp(q.log_variance), torch.exp(p.log_variance) + epsilon
    shift = (q.mean - p.mean).square() / other
    return 0.5 * (variance / other + shift - 1 - torch.log(variance / other + epsilon)).sum(-1)


def kl_to_standard(q: DiagonalGaussian) -> Tensor:
    """(batch,) KL(q || N(0, I)) in nats.

    Source: Kingma & Welling 2014, appendix B.
    Deviations: none.
    """
    return 0.5 * (torch.expm1(q.log_variance) - q.log_variance + q.mean.square()).sum(-1)


def squared_wasserstein2(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    """(batch,) the exact squared 2-Wasserstein distance, >= 0.

    Source: the Bures formula; for diagonal covariances the matrix roots collapse to this sum.
    Deviations: none.
    """
    between_means = (q.mean - p.mean).square().sum(-1)
    wider = 0.5 * (q.log_variance - p.log_variance)
    between_deviations = torch.exp(0.5 * p.log_variance) * torch.expm1(wider)  # one minus the other, near 0 too
    return between_means + between_deviations.square().sum(-1)


def log_density(gaussian: DiagonalGaussian, z: Tensor) -> Tensor:
    """(batch,) natural logarithm of each Gaussian's density at its own z (batch, latent)."""
    squared = (z - gaussian.mean).square() * torch.exp(-gaussian.log_variance)
    return -0.5 * (squared + gaussian.log_variance + math.log(2 * math.pi)).sum(-1)


def wasserstein1_bounds(q: DiagonalGaussian, p: DiagonalGaussian) -> tuple[Tensor, Tensor]:
    """(batch,) and (batch,) between which the 1-Wasserstein distance under Euclidean cost lies; at most 1.26 apart.

    Source: below, a sum over dimensions of functions that witness the one-dimensional distances is 1-Lipschitz where
    its weights have unit length, and the best weights give the root of the sum of their squares; in one dimension the
    distance is E |shift + wider * N(0, 1)|, the mean of a folded normal. Above, the 2-Wasserstein distance.
    Deviations: none; there is no closed form of the distance itself.
    """
    high = squared_wasserstein2(q, p).sqrt()
    shift = (q.mean - p.mean).abs()
    wider = (torch.exp(0.5 * q.log_variance) - torch.exp(0.5 * p.log_variance)).abs()
    ratio = shift / wider.clamp_min(torch.finfo(wider.dtype).tiny)
    folded = wider * math.sqrt(2 / math.pi) * torch.exp(-0.5 * ratio.square()) + shift * torch.erf(ratio / math.sqrt(2))
    return torch.minimum(folded.square().sum(-1).sqrt(), high), high  # equal covariances: rounding must not cross them
