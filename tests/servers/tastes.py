"""Users and items of a few tastes, drawn from a generator, and who likes what: what golden numbers are learnt from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rec_models.evaluation import EvaluationConfig, evaluate
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.semantic import ModelInputs


def split_likes(
    rng: np.random.Generator, n_users: int, n_items: int
) -> tuple[np.ndarray, InteractionMatrix, InteractionMatrix]:
    """(n_items, 3) the kind of each item; train and, three in ten, test of the ten items each user likes best."""
    taste, kind = rng.normal(size=(n_users, 3)), rng.normal(size=(n_items, 3))
    likely = np.argsort(-(taste @ kind.T + rng.normal(0, 0.5, (n_users, n_items))), axis=1)[:, :10]
    held_out = rng.random(likely.shape) < 0.3
    users = np.broadcast_to(np.arange(n_users)[:, None], likely.shape)
    train, test = (
        InteractionMatrix.from_pairs(users[part], likely[part], None, n_users=n_users, n_items=n_items)
        for part in (~held_out, held_out)
    )
    return kind, train, test


def learnt(
    config: Any, inputs: ModelInputs, test: InteractionMatrix, *, seed: int, steps: int, rate: float
) -> tuple[float, float]:
    """(reconstruction after so many steps on all users at once, Recall@10 on the held-out items).

    Args:
        rate: of the groups of parameters that have none of their own.
    """
    torch.manual_seed(seed)
    model, rng, order = config.build(inputs), torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    history = ResidentInteractions(inputs.train)
    groups = [{"params": group.parameters, "lr": group.learning_rate or rate} for group in model.parameter_groups()]
    optimiser, total = torch.optim.Adam(groups), 0.0
    for step in range(steps):
        terms = model.loss(history.batch(order.permutation(inputs.train.n_users)), rng, step)
        optimiser.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        total = terms["reconstruction"].item()
    return total, recall_at_10(model, history, test)


def recall_at_10(model: Any, history: ResidentInteractions, test: InteractionMatrix) -> float:
    """On the held-out items."""
    config = EvaluationConfig(ks=(10,), select_by="recall@10")
    return evaluate(model, history, test, config, part="test").means()["recall@10"]
