"""L-DiffRec: interaction rows compressed by one encoder a cluster of items, denoised in the latent, decoded."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from rec_models.blocks import SparseLinear, dropout_entries, scores_of_all, xavier_normal_
from rec_models.diffusion import Denoiser, NoiseSchedule, StepSampler
from rec_models.errors import ItemClustersError, ModelSettingsError
from rec_models.gaussians import DiagonalGaussian
from rec_models.interactions import UserBatch
from rec_models.losses import decoded_multinomial_nll
from rec_models.recommender import Encoding, ParameterGroup, RecommenderConfig, VariationalRecommender
from rec_models.semantic import ModelInputs


class LDiffRecConfig(RecommenderConfig):
    """Settings of L-DiffRec; the authors use batches of 400 users (`training.batch_size`).

    Attributes:
        clusters: clusters of items with an encoder each; more than 1 needs the bundle's item clusters. The authors'
            best settings have 2.
        latent_dim: width of the latent of all clusters together, shared out by their number of items.
        dropout: share of input entries dropped in training.
        denoiser_hidden_dim, time_dim, denoiser_dropout: the network that predicts the clean latent.
        steps, noise_scale, noise_min, noise_max: 1 - alpha_bar runs from scale * min to scale * max.
        sampling_steps: forward steps before the reverse chain at inference, without noise; 0 starts from the latent.
        reweight: weigh a step's error by the signal it loses; false weighs all alike.
        diffusion_weight, diffusion_floor, diffusion_decay_epochs: weight of the diffusion loss, falling linearly to
            its floor, reached no later than after so many epochs.
        kl_weight, kl_anneal_steps: the weight is min(kl_weight, step / kl_anneal_steps); 0 steps hold it constant.
        learning_rate, denoiser_learning_rate, weight_decay, denoiser_weight_decay: of the autoencoder and of the
            denoiser; null takes those of `training`.
        clamp_log_variance: bound on |log-variance| of what is fused with this base; its own stay within 1.
    """

    paper: ClassVar[str] = "Wang et al., Diffusion Recommender Model, SIGIR 2023 (L-DiffRec)"

    name: Literal["l_diffrec"] = "l_diffrec"
    clusters: int = Field(default=1, ge=1)
    latent_dim: int = Field(default=300, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    denoiser_hidden_dim: int = Field(default=300, ge=1)
    time_dim: int = Field(default=10, ge=2)
    denoiser_dropout: float = Field(default=0.5, ge=0, lt=1)
    steps: int = Field(default=5, ge=1)
    noise_scale: float = Field(default=0.5, gt=0)
    noise_min: float = Field(default=0.001, gt=0, lt=1)
    noise_max: float = Field(default=0.005, gt=0, lt=1)
    sampling_steps: int = Field(default=0, ge=0)
    reweight: bool = True
    diffusion_weight: float = Field(default=0.05, ge=0)
    diffusion_floor: float = Field(default=0.005, ge=0)
    diffusion_decay_epochs: int = Field(default=500, ge=0)
    kl_weight: float = Field(default=0.3, ge=0)
    kl_anneal_steps: int = Field(default=200, ge=0)
    learning_rate: float | None = Field(default=5e-4, gt=0)
    denoiser_learning_rate: float | None = Field(default=1e-4, gt=0)
    weight_decay: float | None = Field(default=0.0, ge=0)
    denoiser_weight_decay: float | None = Field(default=0.0, ge=0)
    clamp_log_variance: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _steps_fit(self) -> LDiffRecConfig:
        if self.sampling_steps > self.steps:
            raise ValueError(f"`sampling_steps` {self.sampling_steps} is more than `steps` {self.steps}")
        if self.noise_scale * max(self.noise_min, self.noise_max) >= 1 or self.noise_min > self.noise_max:
            raise ValueError("`noise_scale` * `noise_max` must be below 1, and `noise_min` at most `noise_max`")
        return self

    def build(self, inputs: ModelInputs) -> LDiffRec:
        """The untrained model over the bundle's item clusters, or over one cluster of all items."""
        clusters = inputs.item_clusters
        found = 1 if clusters is None else len(clusters.unique())
        if self.clusters > 1 and self.clusters != found:
            raise ItemClustersError(self.name, self.clusters, None if clusters is None else found)
        if clusters is None or self.clusters == 1:
            clusters = torch.zeros(inputs.n_items, dtype=torch.int64)
        if self.latent_dim < self.clusters:
            raise ModelSettingsError(
                "model", [f"`latent_dim` {self.latent_dim} is less than `clusters` {self.clusters}"]
            )
        return LDiffRec(self, clusters, len(inputs.train.active()))


class Compression(nn.Module):
    """(batch, 2 * latent) moments in (-1, 1): every cluster's items through an encoder of their own.

    Source: DiffRec, section 3.3, and the code's AutoEncoder.
    Deviations: items keep their order, where the code sorts columns by cluster and maps predictions back; the same
    numbers.
    """

    cluster: Tensor
    position: Tensor

    def __init__(self, clusters: Tensor, latent_dim: int) -> None:
        super().__init__()
        _, cluster, sizes = clusters.unique(return_inverse=True, return_counts=True)
        position = torch.empty_like(cluster)
        for number, size in enumerate(sizes.tolist()):
            position[cluster == number] = torch.arange(size)
        self.register_buffer("cluster", cluster, persistent=False)
        self.register_buffer("position", position, persistent=False)
        self.encoders = nn.ModuleList()
        for size, width in zip(sizes.tolist(), shares_of(latent_dim, sizes.tolist()), strict=True):
            encoder = SparseLinear(size, 2 * width)
            xavier_normal_(encoder.weight, encoder.bias)
            self.encoders.append(encoder)

    def forward(self, batch: UserBatch) -> Tensor:
        """Means of all clusters, then their log-variances."""
        of, position = self.cluster[batch.items], self.position[batch.items]
        halves = []
        for number, encoder in enumerate(self.encoders):
            # Entries of other clusters read this cluster's first item with value 0: no list of unknown length is made.
            own = of == number
            halves.append(
                torch.tanh(encoder(replace(batch, items=position * own, values=batch.values * own))).chunk(2, 1)
            )
        return torch.cat([mean for mean, _ in halves] + [log_variance for _, log_variance in halves], 1)


class LDiffRec(VariationalRecommender):
    """L-DiffRec.

    Source: Wang et al. 2023, section 3.3 and equations 9-13; the authors' code (YiyanXu/DiffRec, L-DiffRec).
    Deviations: follows the code where it says more than the paper (tanh on the moments, log-variances included; KL
    weight capped at 0.3 over 200 steps; the diffusion loss falls over 500 epochs). `reweight=false` only takes
    the weights away; in the code it cannot be switched off. A chain begun after `sampling_steps` forward steps gets
    no noise, so that scores are the same every time. Adam instead of AdamW, the same without weight decay.
    Predicts the clean latent only, not the noise.
    """

    users_seen: Tensor

    def __init__(self, config: LDiffRecConfig, clusters: Tensor, n_users: int) -> None:
        super().__init__()
        self.config, self.n_users = config, n_users
        self.latent_dim, self.clamp_log_variance = config.latent_dim, config.clamp_log_variance
        self.encoder = Compression(clusters, config.latent_dim)
        self.decoder = nn.Linear(config.latent_dim, len(clusters))
        xavier_normal_(self.decoder.weight, self.decoder.bias)
        hidden, time, dropout = config.denoiser_hidden_dim, config.time_dim, config.denoiser_dropout
        self.denoiser = Denoiser(config.latent_dim, hidden, time, dropout)
        self.schedule = NoiseSchedule(config.steps, config.noise_scale, config.noise_min, config.noise_max)
        self.sampler = StepSampler(config.steps)
        # Epochs are counted here because the decay of the diffusion loss is written in epochs, not in steps.
        self.register_buffer("users_seen", torch.zeros((), dtype=torch.int64))

    def encode(self, batch: UserBatch, rng: torch.Generator | None) -> Encoding:
        """The posterior of each user, from rows with entries dropped in training."""
        rows = batch if rng is None else batch.with_values(dropout_entries(batch, self.config.dropout, rng))
        return Encoding(DiagonalGaussian.from_halves(self.encoder(rows)), rows)

    def likelihood(self, z: Tensor, batch: UserBatch, rng: torch.Generator, step: int) -> dict[str, Tensor]:
        """The likelihood of the true rows given the denoised latent, and the weighted error of denoising."""
        at, likelier = self.sampler.draw(len(z), rng)
        noise = torch.randn(z.shape, generator=rng, device=z.device, dtype=z.dtype)
        denoised = self.denoiser(self.schedule.noised(z, at, noise), at, rng)
        errors = (z - denoised).square().mean(1)
        if self.config.reweight:
            errors = errors * self.schedule.snr_drop[at].to(errors.dtype)
        self.sampler.record(at, errors)
        weight = self._diffusion_weight()
        self.users_seen += len(batch)
        return {
            "reconstruction": decoded_multinomial_nll(denoised, self.decoder.weight, self.decoder.bias, batch),
            "diffusion": weight * (errors / likelier.to(errors.dtype)).mean(),
        }

    def _diffusion_weight(self) -> Tensor:
        config = self.config
        epoch = self.users_seen // self.n_users
        left = 1 - epoch / config.diffusion_decay_epochs if config.diffusion_decay_epochs else torch.ones_like(epoch)
        return (config.diffusion_weight * left).clamp_min(config.diffusion_floor).float()

    def denoised(self, z: Tensor) -> Tensor:
        """(batch, latent) the end of the reverse chain of means; every step of it, whatever it begins from."""
        current = z
        if self.config.sampling_steps:
            at = torch.full((len(z),), self.config.sampling_steps - 1, device=z.device)
            current = self.schedule.noised(z, at, torch.zeros_like(z))
        for step in reversed(range(len(self.schedule))):
            at = torch.full((len(z),), step, device=z.device)
            current = self.schedule.previous_mean(self.denoiser(current, at, None), current, step)
        return current

    def decode(self, z: Tensor) -> Tensor:
        """(batch, n_items) logits of the denoised latent."""
        with torch.no_grad():
            return scores_of_all(self.denoised(z), self.decoder)

    def divergence_weight(self, step: int, batch_size: int) -> float:
        """The KL weight rises by 1 / kl_anneal_steps a step to its cap."""
        config = self.config
        return config.kl_weight if config.kl_anneal_steps == 0 else min(config.kl_weight, step / config.kl_anneal_steps)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The autoencoder and the denoiser, each with a learning rate of its own."""
        config = self.config
        autoencoder = [*self.encoder.parameters(), *self.decoder.parameters()]
        denoiser = list(self.denoiser.parameters())
        return [
            ParameterGroup("autoencoder", autoencoder, config.learning_rate, config.weight_decay),
            ParameterGroup("denoiser", denoiser, config.denoiser_learning_rate, config.denoiser_weight_decay),
        ]


def shares_of(width: int, sizes: list[int]) -> list[int]:
    """Widths that add up to `width`, each at least 1, in proportion to the sizes; the last takes what is left.

    Source: L-DiffRec's code, widths of the encoders.
    Deviations: a remainder below 1 is taken from the widest; the code would build an empty encoder.
    """
    total = sum(sizes)
    widths = [max(1, width * size // total) for size in sizes[:-1]]
    while width - sum(widths) < 1:
        widths[widths.index(max(widths))] -= 1
    return [*widths, width - sum(widths)]
