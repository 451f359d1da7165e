"""One channel of a user: which factors are behind the units (items, words) of a row, and the row they predict."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rec_models.blocks import dropped
from rec_models.clusters import item_clusters
from rec_models.gaussians import DiagonalGaussian
from rec_models.interactions import UserBatch
from rec_models.mixtures import mixture_logits, mixture_nll

# Rows with a larger share of units are multiplied as dense ones: gathering costs that many times a product's cell.
_SPARSE = 0.03

PrototypeGradient = Literal["none", "straight_through", "one_step"]
Noise = Literal["shared", "independent", "none"]


@dataclass(frozen=True)
class FactorOptions:
    """Shape and behaviour of a channel.

    Attributes:
        factors: how many.
        dim: width of a factor and of a unit's vector.
        hidden_dim: width of the encoder's hidden layer.
        iterations: how often units are assigned; prototypes move towards a user's own units between two of them, so
            that one leaves prototypes, and with them assignments, the same for every user.
        temperature: what cosines are divided by, in assignments and in the decoder.
        deviation: standard deviation sigma of the prior.
        dropout: share of a factor's entries dropped before the encoder in training.
        prototype_dropout: share of entries dropped from a prototype's step in training.
        prototype_gradient: what the initial prototypes learn from where there are iterations; see `InterestFactors`.
        noise: Gumbel noise on assignments in training: `shared` by the users of a batch, `independent` for each, or
            `none`.
        normalised_steps: prototypes move over unit vectors of units rather than raw ones.
        own_units: units have vectors of their own, which vectors from texts join through a gate that begins at 0;
            without them the vectors from texts are all there is.
    """

    factors: int
    dim: int
    hidden_dim: int
    iterations: int = 1
    temperature: float = 0.1
    deviation: float = 0.1
    dropout: float = 0.5
    prototype_dropout: float = 0.5
    prototype_gradient: PrototypeGradient = "none"
    noise: Noise = "shared"
    normalised_steps: bool = True
    own_units: bool = True


@dataclass(frozen=True)
class Assignment:
    """How the units of a batch are shared out between factors.

    Attributes:
        units: (n_units, dim) vectors of unit length.
        weights: (nnz, factors) of each entry of the batch; rows sum to 1.
        bias: (factors, n_units) or (factors, batch, n_units), what `mixture_nll` adds to scores.
        assigned: (factors, batch, dim) prototypes over the temperature where users have their own, else None.
    """

    units: Tensor
    weights: Tensor
    bias: Tensor
    assigned: Tensor | None


class InterestFactors(nn.Module):
    """Encoder and decoder of one channel.

    Source: BANDVAE, equations of its rating and text encoders and decoders; with one iteration MacridVAE's (Ma et al.
    2019), with more VALID's.
    Deviations: `noise` is drawn once for each unit and factor of a step and shared by its users, as the ancestors draw
    it where prototypes are not the users' own: the same in distribution for every user, and a table of users, units
    and factors less to draw (`independent` draws that). Prototypes move over unit vectors of units with dropout on the
    entries, as in the ancestors' code (the paper's equation has raw vectors; `normalised_steps`). With
    `prototype_gradient` none and several iterations the initial prototypes learn nothing, in the paper too: they are a
    buffer. `straight_through` hands them the gradient of the last ones, `one_step` differentiates the last step.
    """

    prototypes: Tensor
    _vectors: Tensor | None

    def __init__(self, options: FactorOptions, n_units: int, vectors: Tensor | None = None) -> None:
        """A channel over `n_units`, which texts may have given `vectors` (n_units, any)."""
        super().__init__()
        self.options, self.n_units = options, n_units
        k, dim = options.factors, options.dim
        own = nn.init.xavier_normal_(torch.empty(n_units, dim)) if options.own_units else None
        self.units = None if own is None else nn.Parameter(own)
        prototypes = nn.init.xavier_normal_(torch.empty(k, dim))
        if options.iterations > 1 and options.prototype_gradient != "straight_through":
            self.register_buffer("prototypes", prototypes)
        else:
            self.prototypes = nn.Parameter(prototypes)
        self.encoder_in = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_units, options.hidden_dim)))
        self.encoder_in_bias = nn.Parameter(torch.empty(options.hidden_dim).normal_(0, 0.01))
        self.encoder_out = nn.Linear(options.hidden_dim, 2 * dim)
        nn.init.xavier_normal_(self.encoder_out.weight)
        nn.init.normal_(self.encoder_out.bias, 0, 0.01)
        self.register_buffer("_vectors", vectors, persistent=False)
        if vectors is not None:
            self.projection = nn.Parameter(nn.init.xavier_normal_(torch.empty(vectors.shape[1], dim)))
            self.gate = nn.Parameter(torch.zeros(())) if options.own_units else None

    def forward(self, rows: UserBatch, rng: torch.Generator | None) -> tuple[Assignment, DiagonalGaussian]:
        """What `assign` and `posterior` make of a batch."""
        assignment = self.assign(rows, rng)
        return assignment, self.posterior(rows, assignment.weights, rng)

    @torch.no_grad()
    def start_from(self, vectors: Tensor, seed: int) -> None:
        """Units begin where their texts' (n_units, any) vectors lie, and prototypes among them.

        Vectors that cannot tell as many groups apart as there are factors leave everything where it was.

        Source: SEM-MacridVAE; BANDVAE tried it and found no gain.
        Deviations: directions beyond those of the vectors keep their random start.
        """
        assert self.units is not None
        placed = principal_directions(vectors, self.options.dim)
        if len(placed.unique(dim=0)) < self.options.factors:
            return
        self.units[:, : placed.shape[1]] = placed.to(self.units)
        labels = torch.from_numpy(item_clusters(placed.numpy(force=True), self.options.factors, seed=seed))
        for factor in range(self.options.factors):
            self.prototypes[factor] = self.units[labels.to(self.units.device) == factor].mean(0)

    def unit_vectors(self) -> Tensor:
        """(n_units, dim) vectors of unit length."""
        return F.normalize(self._raw_units(), dim=-1)

    def _raw_units(self) -> Tensor:
        """(n_units, dim)."""
        if self._vectors is None:
            assert self.units is not None
            return self.units
        with torch.autocast(self.projection.device.type, enabled=False):
            placed = self._vectors.to(self.projection.dtype) @ self.projection
        return placed if self.units is None or self.gate is None else self.units + self.gate * placed

    def assign(self, rows: UserBatch, rng: torch.Generator | None) -> Assignment:
        """Assignments of a batch's units; with an `rng` noise and dropout as in training."""
        noise = self._noise(len(rows), rng)
        if self.options.iterations == 1:
            assignment = self.shared_assignment(noise)
            return replace(assignment, weights=_at(assignment.bias, rows).exp())
        units, sharpness = self.unit_vectors(), 1 / self.options.temperature
        start = F.normalize(self.prototypes, dim=-1)
        prototypes = self._own_prototypes(rows, units, start, rng)  # (batch, factors, dim)
        scores = sharpness * _entry_scores(units, prototypes, rows) + _at(noise, rows)
        assigned = sharpness * prototypes.transpose(0, 1)
        return Assignment(units, torch.softmax(scores, -1), noise, assigned)

    def shared_assignment(self, noise: Tensor | None = None) -> Assignment:
        """Assignments by the prototypes as they are, the same for every user but for the noise; of no entries."""
        units = self.unit_vectors()
        with torch.autocast(units.device.type, enabled=False):  # rounded shares would be the same for many units
            scores = F.normalize(self.prototypes, dim=-1) @ units.t() / self.options.temperature  # (factors, n_units)
        if noise is not None:
            scores = (scores if noise.dim() == 2 else scores[:, None]) + noise
        return Assignment(units, units.new_zeros(0, self.options.factors), F.log_softmax(scores, 0), None)

    def posterior(self, rows: UserBatch, weights: Tensor, rng: torch.Generator | None) -> DiagonalGaussian:
        """The posterior of each factor in units of the prior's deviation: its prior is the standard normal.

        Args:
            weights: (nnz, factors) shares of the entries.

        Returns:
            (batch, factors, dim); means have length 1 / deviation.
        """
        entries = weights * rows.values[:, None]
        squares = entries.new_zeros(len(rows), entries.shape[1]).index_add(0, rows.rows, entries.square())
        entries = entries / squares.clamp_min(1e-24).sqrt()[rows.rows]
        if rng is not None:
            entries = dropped(entries, self.options.dropout, rng)
        hidden = torch.tanh(factor_rows_times(rows, entries, self.encoder_in) + self.encoder_in_bias)
        direction, narrower = self.encoder_out(hidden).float().chunk(2, -1)
        return DiagonalGaussian(F.normalize(direction, dim=-1) / self.options.deviation, -narrower)

    def nll(self, assignment: Assignment, z: Tensor, batch: UserBatch) -> Tensor:
        """() mean negative log-likelihood of true rows given factors z (batch, factors, dim) of any length, in nats."""
        return mixture_nll(assignment.units, *self._decoded(assignment, z), batch)

    def logits(self, assignment: Assignment, z: Tensor) -> Tensor:
        """(batch, n_units) logits given factors z, outside any graph."""
        return mixture_logits(assignment.units, *self._decoded(assignment, z))

    def factor_scores(self, assignment: Assignment, z: Tensor) -> Tensor:
        """(factors, batch, n_units) log of what each factor adds to a unit's odds: for looking at few users."""
        factors, bias, assigned = self._decoded(assignment, z)
        bias = bias[:, None] if bias.dim() == 2 else bias
        scores = factors @ assignment.units.t() + bias
        if assigned is None:
            return scores
        return scores - torch.logsumexp(assigned @ assignment.units.t() + bias, 0)

    def _decoded(self, assignment: Assignment, z: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        factors = F.normalize(z.to(assignment.units.dtype), dim=-1).transpose(0, 1) / self.options.temperature
        assigned = assignment.assigned
        return factors if assigned is None else factors + assigned, assignment.bias, assigned

    def _noise(self, n_users: int, rng: torch.Generator | None) -> Tensor:
        """(factors, n_units) or (factors, batch, n_units) Gumbel draws; zeros without an `rng`."""
        shape = (self.options.factors, self.n_units)
        if rng is None or self.options.noise == "none":
            return self.prototypes.new_zeros(shape)
        if self.options.noise == "independent":
            shape = (shape[0], n_users, shape[1])
        return _gumbel(shape, self.prototypes, rng)

    def _own_prototypes(self, rows: UserBatch, units: Tensor, start: Tensor, rng: torch.Generator | None) -> Tensor:
        """(batch, factors, dim) unit vectors after all steps towards each user's own units."""
        options = self.options
        own = start.detach().expand(len(rows), *start.shape)
        for left in reversed(range(options.iterations - 1)):
            with torch.set_grad_enabled(options.prototype_gradient == "one_step" and left == 0 and rng is not None):
                own = self._step(rows, units, own, rng)
        return own + (start - start.detach()) if options.prototype_gradient == "straight_through" else own

    def _step(self, rows: UserBatch, units: Tensor, own: Tensor, rng: torch.Generator | None) -> Tensor:
        options = self.options
        scores = _entry_scores(units, own, rows) / options.temperature
        if rng is not None and options.noise != "none":
            scores = scores + _gumbel(tuple(scores.shape), scores, rng)
        shares = torch.softmax(scores, -1) * rows.values[:, None]
        if rng is not None:
            shares = dropped(shares, options.prototype_dropout, rng)
        moved = factor_rows_times(rows, shares, units if options.normalised_steps else self._raw_units())
        # a factor without any entry left stays where it was
        return F.normalize(torch.where(moved.any(-1, keepdim=True), moved, own), dim=-1)


class ProfilePrior(nn.Module):
    """A prior whose means lie where a user's own text points, instead of at 0; a gate that begins at 0 opens it.

    Source: ours.
    """

    vectors: Tensor
    present: Tensor

    def __init__(self, options: FactorOptions, vectors: Tensor, present: Tensor) -> None:
        """Args: vectors (n_users, any) of users' texts and whether each has one."""
        super().__init__()
        self.deviation = options.deviation
        self.register_buffer("vectors", vectors, persistent=False)
        self.register_buffer("present", present, persistent=False)
        projections = torch.empty(options.factors, vectors.shape[1], options.dim)
        for projection in projections:
            nn.init.xavier_normal_(projection)
        self.projections, self.gate = nn.Parameter(projections), nn.Parameter(torch.zeros(()))

    def divergence(self, posterior: DiagonalGaussian, users: Tensor) -> Tensor:
        """(batch,) what `divergence` gains by the prior's means: the squared distance to them, less its constant."""
        texts = self.vectors[users].to(self.projections.dtype)
        pointed = F.normalize(torch.einsum("up,kpd->ukd", texts, self.projections), dim=-1)
        cosines = (F.normalize(posterior.mean, dim=-1) * pointed).sum(-1)
        gate = self.gate.clamp(-1, 1)
        return self.present[users] * ((gate.square() - 2 * gate * cosines) / (2 * self.deviation**2)).sum(-1)


def principal_directions(vectors: Tensor, dim: int) -> Tensor:
    """(n, at most dim) float32: vectors along the directions they vary most in, rows standardised to Xavier's size."""
    exact = vectors.double() - vectors.double().mean(0)
    directions = torch.linalg.eigh(exact.t() @ exact).eigenvectors.flip(1)[:, :dim]
    directions = directions * directions.sum(0).sign()  # an eigenvector's sign is anybody's: fix it
    along = exact @ directions
    along = (along - along.mean(1, keepdim=True)) / along.std(1, keepdim=True, correction=0).clamp_min(1e-12)
    return (along * math.sqrt(2 / (len(vectors) + dim))).float()


def divergence(posterior: DiagonalGaussian) -> Tensor:
    """(batch,) KL of factors (batch, factors, dim) to their prior, less the constant that means of fixed length add.

    Source: BANDVAE; MacridVAE's code.
    Deviations: without the constant, factors / (2 deviation^2) nats, as in that code.
    """
    wider = posterior.log_variance
    return 0.5 * (torch.expm1(wider) - wider).sum((-2, -1))


def annealed_to(cap: float, step: int, steps: int) -> float:
    """One over `steps` more each optimiser step, up to `cap`; 0 steps hold the cap from the start.

    Source: BANDVAE and its ancestors: the slope does not depend on the cap.
    Deviations: none.
    """
    return cap if steps == 0 else min(cap, (step + 1) / steps)


def factor_rows_times(rows: UserBatch, weights: Tensor, table: Tensor) -> Tensor:
    """(batch, factors, width) the sparse rows of each factor times a dense (n_units, width) table.

    Args:
        weights: (nnz, factors) the values of each factor's row at the entries.
    """
    n_factors, n_units = weights.shape[1], len(table)
    if len(rows.rows) > _SPARSE * len(rows) * n_units:
        dense = weights.new_zeros(len(rows), n_factors, n_units)
        dense = dense.index_put(
            (rows.rows[:, None], torch.arange(n_factors, device=weights.device), rows.items[:, None]), weights
        )
        return dense @ table
    begins, lengths = rows.offsets[rows.rows], rows.lengths[rows.rows]
    within = torch.arange(len(rows.rows), device=weights.device) - begins
    # bag of a user's factor k: the user's entries once more
    places = (begins * n_factors + within)[:, None] + lengths[:, None] * torch.arange(n_factors, device=weights.device)
    places = places.reshape(-1)
    items = torch.empty_like(places).scatter_(0, places, rows.items.repeat_interleave(n_factors))
    values = torch.zeros_like(weights.reshape(-1)).scatter(0, places, weights.reshape(-1))
    bags = rows.offsets[:, None] * n_factors + rows.lengths[:, None] * torch.arange(n_factors, device=weights.device)
    summed = F.embedding_bag(items, table, bags.reshape(-1), mode="sum", per_sample_weights=values)
    return summed.view(len(rows), n_factors, table.shape[1])


def _entry_scores(units: Tensor, prototypes: Tensor, rows: UserBatch) -> Tensor:
    """(nnz, factors) products of each entry's unit with its user's prototypes, one factor at a time."""
    own = units[rows.items]
    return torch.stack([(own * prototype[rows.rows]).sum(-1) for prototype in prototypes.unbind(1)], -1)


def _at(values: Tensor, rows: UserBatch) -> Tensor:
    """(nnz, factors) of (factors, n_units) or (factors, batch, n_units) at the entries."""
    return (values[:, rows.items] if values.dim() == 2 else values[:, rows.rows, rows.items]).t()


def _gumbel(shape: tuple[int, ...], like: Tensor, rng: torch.Generator) -> Tensor:
    drawn = torch.empty(shape, dtype=like.dtype, device=like.device).exponential_(generator=rng)
    return drawn.clamp_min_(math.exp(-17)).log_().neg_()
