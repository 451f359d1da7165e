"""Distribution matchings of DMRec: how a collaborative Gaussian and a language Gaussian are fused and compared.

Source: DMRec (Mult-VAE family), equations 9-15, and its released code at revision 58ff302.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from rec_models.gaussians import DiagonalGaussian, kl, kl_to_standard, squared_wasserstein2

Fuse = Literal["add", "none", "gaussian_sum"]
# Where a matching draws from: the run's own generator, or torch's global one where there is no run.
Rng = torch.Generator | None


def fuse(source: DiagonalGaussian, language: DiagonalGaussian, how: Fuse) -> DiagonalGaussian:
    """The Gaussian that is decoded, in training and at inference alike.

    Source: DMRec, "additivity of Gaussians", and its code.
    Deviations: `add` adds log-variances, so variances multiply; that is what the released code does for all three
    strategies and it is the default. `none` decodes the source alone, as the paper's equations read.
    `gaussian_sum` is what a sum of independent Gaussians would be.
    """
    if how == "none":
        return source
    mean = source.mean + language.mean
    if how == "add":
        return DiagonalGaussian(mean, source.log_variance + language.log_variance)
    return DiagonalGaussian(mean, torch.logaddexp(source.log_variance, language.log_variance))


class _Matching(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GODM(_Matching):
    """Global optimality: prior KL plus a Wasserstein distance between the two spaces.

    Source: DMRec equations 9 and 10.
    Deviations: the paper prints the squared distance of the decoded posterior to the language posterior; the code
    takes the root (with 1e-7 inside, for the gradient at 0) and measures it between the *unfused* branches. The
    code's form is the default; `w2_root=false, match_on="fused"` is the paper's.
    """

    name: Literal["godm"] = "godm"
    beta: float = Field(default=0.4, ge=0)
    w2_root: bool = True
    match_on: Literal["source", "fused"] = "source"

    def divergence(
        self, fused: DiagonalGaussian, source: DiagonalGaussian, language: DiagonalGaussian, rng: Rng
    ) -> Tensor:
        """(batch,) KL(fused || prior) + beta * W2."""
        matched = source if self.match_on == "source" else fused
        distance = squared_wasserstein2(matched, language)
        if self.w2_root:
            distance = (distance + 1e-7).sqrt()  # the root alone has an infinite gradient at 0
        return kl_to_standard(fused) + self.beta * distance


class CPDM(_Matching):
    """Composite prior: both spaces are drawn to a Gaussian between them.

    Source: DMRec equations 11-13.
    Deviations: the paper writes a mixture of densities and calls the sum Jensen-Shannon; the code interpolates
    *parameters* (`param_geometric`, the default), which is unbounded. `param_moment` averages variances instead of
    log-variances; `mixture_mc` estimates the true mixture KL by sampling and stays within 2 ln 2 at alpha 1/2.
    Under additive fusion this term does not compare the two spaces: it shrinks the collaborative residual.
    """

    name: Literal["cpdm"] = "cpdm"
    beta: float = Field(default=0.2, ge=0)
    alpha: float = Field(default=0.5, ge=0, le=1)
    cp_mode: Literal["param_geometric", "param_moment", "mixture_mc"] = "param_geometric"
    mc_samples: int = Field(default=8, ge=1)

    def composite_divergence(self, fused: DiagonalGaussian, language: DiagonalGaussian, rng: Rng = None) -> Tensor:
        """(batch,) KL(fused || composite) + KL(language || composite)."""
        if self.cp_mode == "mixture_mc":
            return self._to_mixture(fused, fused, language, rng) + self._to_mixture(language, fused, language, rng)
        alpha = self.alpha
        mean = alpha * fused.mean + (1 - alpha) * language.mean
        if self.cp_mode == "param_geometric":
            log_variance = alpha * fused.log_variance + (1 - alpha) * language.log_variance
        else:
            weighted = fused.log_variance + _log(alpha), language.log_variance + _log(1 - alpha)
            log_variance = torch.logaddexp(*weighted)
        composite = DiagonalGaussian(mean, log_variance)
        return kl(fused, composite) + kl(language, composite)

    def _to_mixture(
        self, drawn_from: DiagonalGaussian, fused: DiagonalGaussian, language: DiagonalGaussian, rng: Rng
    ) -> Tensor:
        total = torch.zeros(len(fused.mean), dtype=fused.mean.dtype, device=fused.mean.device)
        for _ in range(self.mc_samples):
            z = drawn_from.sample(rng)
            mixture = torch.logaddexp(
                _log_density(fused, z) + _log(self.alpha), _log_density(language, z) + _log(1 - self.alpha)
            )
            total = total + _log_density(drawn_from, z) - mixture
        return total / self.mc_samples

    def divergence(
        self, fused: DiagonalGaussian, source: DiagonalGaussian, language: DiagonalGaussian, rng: Rng
    ) -> Tensor:
        """(batch,) KL(fused || prior) + beta * composite divergence."""
        return kl_to_standard(fused) + self.beta * self.composite_divergence(fused, language, rng)


class MDDM(_Matching):
    """Mixing divergence: the prior and the language posterior share the pull on what is decoded.

    Source: DMRec equation 15.
    Deviations: none in form. Under additive fusion KL(fused || language) collapses to
    1/2 sum(exp(l_s) - 1 - l_s + m_s^2 exp(-l_w)), so the matching never compares the two means; `fuse="none"` does.
    """

    name: Literal["mddm"] = "mddm"
    beta: float = Field(default=0.5, ge=0, le=1)

    def divergence(
        self, fused: DiagonalGaussian, source: DiagonalGaussian, language: DiagonalGaussian, rng: Rng
    ) -> Tensor:
        """(batch,) beta * KL(fused || prior) + (1 - beta) * KL(fused || language)."""
        return self.beta * kl_to_standard(fused) + (1 - self.beta) * kl(fused, language)


class NoMatching(_Matching):
    """The prior alone: with additive fusion this is the ablation "Add".

    Source: DMRec, ablation study.
    Deviations: the paper does not write its objective out; this is reconstruction plus KL of the fused posterior.
    """

    name: Literal["none"] = "none"

    def divergence(
        self, fused: DiagonalGaussian, source: DiagonalGaussian, language: DiagonalGaussian, rng: Rng
    ) -> Tensor:
        """(batch,) KL(fused || prior)."""
        return kl_to_standard(fused)


Matching = Annotated[GODM | CPDM | MDDM | NoMatching, Field(discriminator="name")]


def _log(share: float) -> float:
    return math.log(share) if share > 0 else -math.inf


def _log_density(gaussian: DiagonalGaussian, z: Tensor) -> Tensor:
    squared = (z - gaussian.mean).square() * torch.exp(-gaussian.log_variance)
    return -0.5 * (squared + gaussian.log_variance + math.log(2 * math.pi)).sum(-1)
