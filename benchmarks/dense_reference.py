"""DMRec written the way its authors train it: dense batches, dense products with the item vectors, per-user metrics.

A yardstick for speed and for scores, in our own words; nothing outside `benchmarks/` imports it.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DenseDMRec(nn.Module):
    """Mult-VAE and meta-network with additive fusion and the mixing divergence, every input a dense row."""

    item_vectors: Tensor
    user_vectors: Tensor

    def __init__(
        self, item_vectors: Tensor, user_vectors: Tensor, *, hidden: int, latent: int, dropout: float, beta: float
    ):
        super().__init__()
        n_items, width = item_vectors.shape
        self.latent, self.dropout, self.beta = latent, dropout, beta
        self.encoder = nn.Sequential(nn.Linear(n_items, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, n_items))
        self.meta = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latent))
        self.register_buffer("item_vectors", item_vectors, persistent=False)
        self.register_buffer("user_vectors", user_vectors, persistent=False)

    def forward(self, rows: Tensor, users: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        rows = F.dropout(rows, self.dropout, self.training)
        mean, log_variance = self.encoder(rows).split(self.latent, 1)
        mean_w, log_variance_w = self.meta(rows @ self.item_vectors + self.user_vectors[users]).split(self.latent, 1)
        mean, log_variance = mean + mean_w, log_variance + log_variance_w
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance) if self.training else mean
        return self.decoder(z), mean, log_variance, mean_w, log_variance_w

    def loss(self, rows: Tensor, users: Tensor) -> Tensor:
        """() the released objective, with its 1e-7 inside ratio and logarithm."""
        logits, mean, log_variance, mean_w, log_variance_w = self(rows, users)
        reconstruction = -(F.log_softmax(logits, 1) * rows).sum(-1).mean()
        variance, variance_w = log_variance.exp(), log_variance_w.exp()
        prior = -0.5 * (1 + log_variance - mean.pow(2) - variance).sum(1).mean()
        ratio = torch.log(variance / (variance_w + 1e-7) + 1e-7)
        matching = -0.5 * (1 + ratio - (mean - mean_w).pow(2) / (variance_w + 1e-7) - variance / (variance_w + 1e-7))
        return reconstruction + self.beta * prior + (1 - self.beta) * matching.sum(1).mean()


def epoch(
    model: DenseDMRec, optimiser: torch.optim.Optimizer, train: scipy.sparse.csr_matrix, batch_size: int
) -> float:
    """Mean loss of one pass over all users in random order."""
    model.train()
    order = np.random.permutation(len(train.indptr) - 1)
    losses = []
    for start in range(0, len(order), batch_size):
        users = order[start : start + batch_size]
        rows = torch.from_numpy(train[users].toarray())
        loss = model.loss(rows, torch.from_numpy(users))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return float(np.mean(losses))


@torch.no_grad()
def validate(
    model: DenseDMRec, train: scipy.sparse.csr_matrix, held_out: scipy.sparse.csr_matrix, ks: tuple[int, ...]
) -> dict[str, float]:
    """Recall and NDCG, one user at a time in Python."""
    model.eval()
    users = np.flatnonzero(np.diff(held_out.indptr))
    sums = {f"{metric}@{k}": 0.0 for metric in ("recall", "ndcg") for k in ks}
    for start in range(0, len(users), 1024):
        chunk = users[start : start + 1024]
        mask = torch.from_numpy(train[chunk].toarray())
        scores = model(mask, torch.from_numpy(chunk))[0] * (1 - mask) - 1e8 * mask
        ranked = torch.topk(scores, max(ks))[1].numpy()
        for user, items in zip(chunk, ranked, strict=True):
            wanted = set(held_out.indices[held_out.indptr[user] : held_out.indptr[user + 1]].tolist())
            for k in ks:
                gains = [1 / math.log2(rank + 2) for rank, item in enumerate(items[:k].tolist()) if item in wanted]
                ideal = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(wanted))))
                sums[f"recall@{k}"] += len(gains) / len(wanted)
                sums[f"ndcg@{k}"] += sum(gains) / ideal
    return {name: total / len(users) for name, total in sums.items()}
