"""Item anchors: points in a latent that posteriors are pulled to, learned, begun from texts or tied to them."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from rec_models.blocks import rows_times
from rec_models.gaussians import DiagonalGaussian
from rec_models.interactions import UserBatch
from rec_models.semantic import SemanticMatrix

AnchorSource = Literal["learned", "text_init", "text_tied"]


class Centroids(NamedTuple):
    """Where the anchors of users' items lie.

    Attributes:
        centre: (batch, latent) their mean; zeros for a user without items.
        spread: (batch,) mean squared distance of the anchors from it.
        taken: (batch,) 1 for a user with items, else 0.
    """

    centre: Tensor
    spread: Tensor
    taken: Tensor

    def from_gaussian(self, q: DiagonalGaussian) -> Tensor:
        """(batch,) expected mean squared distance of a draw from the anchors.

        Source: PIA, equations 9 and 10, in closed form.
        Deviations: none.
        """
        return self.taken * (self.from_draw(q.mean) + torch.exp(q.log_variance).sum(1))

    def from_draw(self, z: Tensor) -> Tensor:
        """(batch,) mean squared distance of z (batch, latent) from the anchors; 0 without items."""
        return self.taken * ((z - self.centre).square().sum(1) + self.spread)


class Anchors(nn.Module):
    """One anchor an item, given out as the `Centroids` of users' items.

    Source: PIA, section 4 (`learned`); anchors from texts are ours.
    Deviations: the paper gives no initial values. Here they are normal with the deviation of a Xavier-normal (n_items,
    latent) matrix: unit normals would outweigh the likelihood for epochs.
    """

    def __init__(self, n_items: int, latent_dim: int, seed: int) -> None:
        super().__init__()
        # A generator of its own: the model around it draws the weights that it would draw without anchors.
        self.rng = torch.Generator().manual_seed(seed)
        self.deviation = (2 / (n_items + latent_dim)) ** 0.5
        self.latent_dim = latent_dim

    def of(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """(items, latent) anchors and for each of the `items` (nnz,) its row among them."""
        raise NotImplementedError

    def centroids(self, batch: UserBatch) -> Centroids:
        """Over all items of each row, whatever their values: nothing is dropped here."""
        anchors, rows = self.of(batch.items)
        shares = 1.0 / batch.lengths.to(anchors.dtype)[batch.rows]
        shared = UserBatch(
            batch.users, batch.rows, rows, shares, batch.offsets, batch.lengths, len(anchors), batch.turn
        )
        centre = rows_times(shared, anchors)
        squares = rows_times(shared, anchors.square().sum(1, keepdim=True)).squeeze(1)
        spread = (squares - centre.square().sum(1)).clamp_min(0)
        return Centroids(centre, spread, (batch.lengths > 0).to(anchors.dtype))


class LearnedAnchors(Anchors):
    """Anchors that are parameters: noise at first, or the principal components of the items' texts at that scale."""

    def __init__(self, n_items: int, latent_dim: int, seed: int, texts: SemanticMatrix | None) -> None:
        super().__init__(n_items, latent_dim, seed)
        first = torch.randn(n_items, latent_dim, generator=self.rng)
        if texts is not None:
            first = torch.where(texts.present[:, None], principal_components(texts, first), first)
        self.anchors = nn.Parameter(first * self.deviation)

    def of(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """All anchors, since the items are their rows."""
        return self.anchors, items


class TiedAnchors(Anchors):
    """Anchors that stay a linear map of the items' texts; where an item has none, the map's offset."""

    vectors: Tensor
    present: Tensor

    def __init__(self, n_items: int, latent_dim: int, seed: int, texts: SemanticMatrix) -> None:
        super().__init__(n_items, latent_dim, seed)
        self.register_buffer("vectors", texts.vectors, persistent=False)
        self.register_buffer("present", texts.present.float(), persistent=False)
        mean, deviation = _moments(texts)
        scale = self.deviation / (deviation * texts.dim**0.5)
        self.weight = nn.Parameter(torch.randn(texts.dim, latent_dim, generator=self.rng) * scale)
        # What all texts share would put all anchors in one place.
        self.offset = nn.Parameter(-mean @ self.weight.detach())

    def of(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Anchors of the items that occur."""
        found, rows = torch.unique(items, return_inverse=True)
        vectors = self.vectors[found].to(self.weight.dtype) * self.present[found, None]
        return vectors @ self.weight + self.offset, rows


def anchors_of(
    source: AnchorSource, n_items: int, latent_dim: int, seed: int, texts: SemanticMatrix | None
) -> LearnedAnchors | TiedAnchors:
    """Anchors of a kind; those from texts need `texts`."""
    if source == "text_tied":
        assert texts is not None
        return TiedAnchors(n_items, latent_dim, seed, texts)
    return LearnedAnchors(n_items, latent_dim, seed, texts if source == "text_init" else None)


def principal_components(texts: SemanticMatrix, filler: Tensor) -> Tensor:
    """(n_items, latent) leading components of the texts with root mean square 1, then columns of `filler`."""
    mean, _ = _moments(texts)
    centred = (texts.vectors.float() - mean) * texts.present[:, None]
    _, axes = torch.linalg.eigh(centred.t() @ centred)
    width = min(filler.shape[1], texts.dim)
    components = centred @ axes.flip(1)[:, :width]
    size = components[texts.present].square().mean().sqrt() if texts.present.any() else torch.ones(())
    return torch.cat([components / size.clamp_min(1e-12), filler[:, width:]], 1)


def _moments(texts: SemanticMatrix) -> tuple[Tensor, float]:
    """(dim,) mean of the texts there are, and the root mean square of their entries around it; (0, 1) of none."""
    real = texts.vectors[texts.present].float()
    if not len(real):
        return torch.zeros(texts.dim), 1.0
    mean = real.mean(0)
    return mean, max(float((real - mean).square().mean().sqrt()), 1e-12)
