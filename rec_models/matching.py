"""Distribution matchings of DMRec: how a collaborative Gaussian and a language Gaussian are fused and compared.

Source: DMRec (Mult-VAE family), equations 9-15, and its released code at revision 58ff302.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from rec_models.gaussians import (
    DiagonalGaussian,
    kl,
    kl_to_standard,
    kl_with_epsilon,
    log_density,
    squared_wasserstein2,
)

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


class Fusion(nn.Module):
    """`fuse`, with the language branch weighed dimension by dimension where a width is given.

    Source: ours; the papers add the whole branch.
    Deviations: a gate of 2 * sigmoid(w) in (0, 2) on the language mean and log-variance, w starting at 0, so training
    starts from plain fusion. The matching is given the ungated branch.
    """

    def __init__(self, how: Fuse, gated_dim: int | None) -> None:
        super().__init__()
        self.how: Fuse = how
        self.gate = None if gated_dim is None else nn.Parameter(torch.zeros(gated_dim))

    def forward(self, source: DiagonalGaussian, language: DiagonalGaussian) -> DiagonalGaussian:
        """(batch, latent) what is decoded."""
        if self.gate is not None:
            share = 2 * torch.sigmoid(self.gate)
            language = DiagonalGaussian(share * language.mean, share * language.log_variance)
        return fuse(source, language, self.how)


class _Matching(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_prior(self, fused: DiagonalGaussian, given: Tensor | None) -> Tensor:
        """(batch,) the base's divergence from a prior of its own, else KL(fused || N(0, I))."""
        return kl_to_standard(fused) if given is None else given


class _KLMatching(_Matching):
    """What the two matchings by KL share.

    Attributes:
        match_on: compare the language with the `fused` posterior, as the released code, or with the collaborative
            `source`. Under additive fusion only `source` compares the two spaces.
        form: `exact` divergences, or `authors`, with the 1e-7 of their code inside ratios and logarithm.
    """

    match_on: Literal["fused", "source"] = "fused"
    form: Literal["exact", "authors"] = "exact"

    def matched(self, fused: DiagonalGaussian, source: DiagonalGaussian) -> DiagonalGaussian:
        """The posterior that is compared with the language."""
        return source if self.match_on == "source" else fused

    def kl(self, q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
        """(batch,) KL(q || p) in the form asked for."""
        return kl(q, p) if self.form == "exact" else kl_with_epsilon(q, p)


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
        self,
        fused: DiagonalGaussian,
        source: DiagonalGaussian,
        language: DiagonalGaussian,
        rng: Rng,
        prior: Tensor | None = None,
    ) -> Tensor:
        """(batch,) KL(fused || prior) + beta * W2."""
        matched = source if self.match_on == "source" else fused
        distance = squared_wasserstein2(matched, language)
        if self.w2_root:
            distance = (distance + 1e-7).sqrt()  # the root alone has an infinite gradient at 0
        return self.to_prior(fused, prior) + self.beta * distance


class CPDM(_KLMatching):
    """Composite prior: both spaces are drawn to a Gaussian between them.

    Source: DMRec equations 11-13.
    Deviations: the paper writes a mixture of densities and calls the sum Jensen-Shannon; the code interpolates
    *parameters* (`param_geometric`, the default), which is unbounded. `param_moment` averages variances instead of
    log-variances; `mixture_mc` estimates the true mixture KL by sampling and stays within 2 ln 2 at alpha 1/2.
    Under additive fusion this term does not compare the two spaces: it shrinks the collaborative residual.
    `match_on="source"` and `fuse="none"` compare them.
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
        return self.kl(fused, composite) + self.kl(language, composite)

    def _to_mixture(
        self, drawn_from: DiagonalGaussian, fused: DiagonalGaussian, language: DiagonalGaussian, rng: Rng
    ) -> Tensor:
        total = torch.zeros(len(fused.mean), dtype=fused.mean.dtype, device=fused.mean.device)
        for _ in range(self.mc_samples):
            z = drawn_from.sample(rng)
            mixture = torch.logaddexp(
                log_density(fused, z) + _log(self.alpha), log_density(language, z) + _log(1 - self.alpha)
            )
            total = total + log_density(drawn_from, z) - mixture
        return total / self.mc_samples

    def divergence(
        self,
        fused: DiagonalGaussian,
        source: DiagonalGaussian,
        language: DiagonalGaussian,
        rng: Rng,
        prior: Tensor | None = None,
    ) -> Tensor:
        """(batch,) KL(fused || prior) + beta * composite divergence."""
        matched = self.matched(fused, source)
        return self.to_prior(fused, prior) + self.beta * self.composite_divergence(matched, language, rng)


class MDDM(_KLMatching):
    """Mixing divergence: the prior and the language posterior share the pull on what is decoded.

    Source: DMRec equation 15; its ablation "w/o Mixing".
    Deviations: none in form. Under additive fusion KL(fused || language) collapses to
    1/2 sum(exp(l_s) - 1 - l_s + m_s^2 exp(-l_w)), so the matching never compares the two means; `match_on="source"`
    and `fuse="none"` do. The paper mentions that beta may be drawn and does not say from what (`beta_sampling`).

    Attributes:
        beta: share of the prior; without mixing, weight of the language.
        mixing: false is the ablation: the prior at full weight plus beta times the language.
        beta_sampling: draw the share anew at every step from Beta(a, a) with this a, in place of `beta`.
    """

    name: Literal["mddm"] = "mddm"
    beta: float = Field(default=0.5, ge=0, le=1)
    mixing: bool = True
    beta_sampling: float | None = Field(default=None, gt=0)

    def divergence(
        self,
        fused: DiagonalGaussian,
        source: DiagonalGaussian,
        language: DiagonalGaussian,
        rng: Rng,
        prior: Tensor | None = None,
    ) -> Tensor:
        """(batch,) beta * KL(fused || prior) + (1 - beta) * KL(fused || language)."""
        pull, beta = self.to_prior(fused, prior), self._beta(fused.mean, rng)
        between = self.kl(self.matched(fused, source), language)
        return beta * pull + (1 - beta) * between if self.mixing else pull + beta * between

    def _beta(self, like: Tensor, rng: Rng) -> float | Tensor:
        if self.beta_sampling is None:
            return self.beta
        # Two gamma draws make a beta draw; torch.distributions would not take the run's generator.
        shape = torch.full((2,), self.beta_sampling, device=like.device)
        drawn = torch._standard_gamma(shape, rng)  # type: ignore[reportPrivateImportUsage]
        return drawn[0] / drawn.sum()


class NoMatching(_Matching):
    """The prior alone: with additive fusion this is the ablation "Add".

    Source: DMRec, ablation study.
    Deviations: the paper does not write its objective out; this is reconstruction plus KL of the fused posterior.
    """

    name: Literal["none"] = "none"

    def divergence(
        self,
        fused: DiagonalGaussian,
        source: DiagonalGaussian,
        language: DiagonalGaussian,
        rng: Rng,
        prior: Tensor | None = None,
    ) -> Tensor:
        """(batch,) KL(fused || prior)."""
        return self.to_prior(fused, prior)


Matching = Annotated[GODM | CPDM | MDDM | NoMatching, Field(discriminator="name")]


def _log(share: float) -> float:
    return math.log(share) if share > 0 else -math.inf
