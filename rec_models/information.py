"""How much a latent tells of the interactions and of the texts it was made from, estimated over a population."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rec_models.gaussians import DiagonalGaussian, kl, kl_to_standard, log_density

# Latents drawn; each is weighed against the posteriors of the population: the cost is this times users times latent.
_DRAWS = 256


class Information:
    """Collects the posteriors of a population of users, then estimates.

    Source: DMRec equation 16: KL(q || p) = I(z; x) - I~(z; s), where I(z; x) compares q(z | x) with the mean posterior
    q(z) and I~(z; s) = E log p(z | s) / q(z) is a lower bound of I(z; s).
    Deviations: the paper derives the two terms and estimates neither. Here q(z) is the mixture over the users given,
    exact for them as a population, and the expectation is taken over 256 of them spread evenly, one fixed draw each.
    So I(z; x) cannot exceed the logarithm of the number of users and stands near it once posteriors are apart.
    """

    def __init__(self) -> None:
        self._fused: list[DiagonalGaussian] = []
        self._language: list[DiagonalGaussian] = []

    def add(self, fused: DiagonalGaussian, language: DiagonalGaussian) -> None:
        """Posteriors (batch, latent) of further users."""
        self._fused.append(fused)
        self._language.append(language)

    def means(self) -> dict[str, float]:
        """Means over users in nats: two divergences over all, two informations over those drawn."""
        fused, language = (_joined(parts) for parts in (self._fused, self._language))
        users = torch.linspace(0, len(fused.mean) - 1, min(_DRAWS, len(fused.mean)), device=fused.mean.device).long()
        chosen = DiagonalGaussian(fused.mean[users], fused.log_variance[users])
        text = DiagonalGaussian(language.mean[users], language.log_variance[users])
        z = chosen.sample(torch.Generator(users.device).manual_seed(0))
        mixture = torch.logsumexp(log_densities(fused, z), 1) - math.log(len(fused.mean))
        return {
            "kl_prior": float(kl_to_standard(fused).mean()),
            "kl_language": float(kl(fused, language).mean()),
            "information_interactions": float((log_density(chosen, z) - mixture).mean()),
            "information_language": float((log_density(text, z) - mixture).mean()),
        }


def log_densities(gaussian: DiagonalGaussian, z: Tensor) -> Tensor:
    """(draws, users) natural logarithm of every Gaussian's density at every z (draws, latent).

    The square is multiplied out so that two matrix products do it; give float64, since its terms cancel.
    """
    precision = torch.exp(-gaussian.log_variance)
    own = (gaussian.mean.square() * precision + gaussian.log_variance + math.log(2 * math.pi)).sum(-1)
    # (draws, latent) @ (latent, users) -> (draws, users)
    return -0.5 * (z.square() @ precision.t() - 2 * z @ (gaussian.mean * precision).t() + own)


def _joined(parts: list[DiagonalGaussian]) -> DiagonalGaussian:
    return DiagonalGaussian(
        torch.cat([part.mean for part in parts]).double(), torch.cat([part.log_variance for part in parts]).double()
    )
