"""Users and items of a few tastes, drawn from a generator, and who likes what: what golden numbers are learnt from."""

from __future__ import annotations

import numpy as np

from rec_models.interactions import InteractionMatrix


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
