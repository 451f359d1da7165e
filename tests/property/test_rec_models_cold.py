"""Items nobody took in training are scored as those with the nearest texts; all others as before."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rec_models.cold import ColdItems, nearest_by_text, through_text
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.recommender import Recommender
from rec_models.semantic import ModelInputs, SemanticMatrix

N_USERS, N_ITEMS, DIM = 7, 12, 4


class Fixed(Recommender):
    """A table of scores."""

    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", table)

    def scores(self, batch):
        return self.table[batch.users]


def world(seed, n_cold, textless=()):
    """Inputs in which the last items are cold and some have no text, and a model with random scores."""
    rng = np.random.default_rng(seed)
    warm = N_ITEMS - n_cold
    users, items = np.divmod(rng.permutation(N_USERS * warm)[: max(warm, N_USERS * warm // 2)], warm)
    items[:warm] = np.arange(warm)  # every warm item is taken by somebody
    taken = InteractionMatrix.from_pairs(users, items, None, n_users=N_USERS, n_items=N_ITEMS)
    vectors = torch.from_numpy(rng.standard_normal((N_ITEMS, DIM)).astype(np.float32))
    present = torch.ones(N_ITEMS, dtype=torch.bool)
    present[list(textless)] = False
    model = Fixed(torch.from_numpy(rng.standard_normal((N_USERS, N_ITEMS)).astype(np.float32)))
    return model, ModelInputs(taken, {"items": SemanticMatrix(vectors * present[:, None], present)}, seed)


def scores(model, inputs):
    return model.scores(ResidentInteractions(inputs.train).batch(np.arange(N_USERS)))


@given(seed=st.integers(0, 2**32 - 1), n_cold=st.integers(1, N_ITEMS - 2), k=st.integers(1, 20))
def test_a_cold_item_is_worth_the_mean_of_its_nearest_untaken_ones_by_a_plain_loop(seed, n_cold, k):
    model, inputs = world(seed, n_cold)
    before, after = scores(model, inputs).numpy(), scores(through_text(model, inputs, k), inputs).numpy()
    warm = N_ITEMS - n_cold
    np.testing.assert_array_equal(after[:, :warm], before[:, :warm])
    taken = [set(row.tolist()) for row in np.split(inputs.train.indices, inputs.train.indptr[1:-1])]
    unit = inputs.semantic["items"].vectors.numpy()
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    for item in range(warm, N_ITEMS):
        cosines = unit[:warm] @ unit[item]
        chosen = np.argsort(-cosines)[: min(k, warm)]
        for user in range(N_USERS):
            asked = [other for other in chosen if other not in taken[user]]
            expected = before[user, asked].mean() if asked else before[user, item]
            np.testing.assert_allclose(after[user, item], expected, atol=2e-6)


@given(seed=st.integers(0, 2**32 - 1), n_cold=st.integers(1, 5))
def test_neighbours_are_warm_and_the_nearest_comes_first(seed, n_cold):
    _, inputs = world(seed, n_cold)
    cold, warm = torch.arange(N_ITEMS - n_cold, N_ITEMS), torch.arange(N_ITEMS - n_cold)
    nearest = nearest_by_text(inputs.semantic["items"], cold, warm, 3)
    assert (nearest < N_ITEMS - n_cold).all()
    unit = torch.nn.functional.normalize(inputs.semantic["items"].vectors, dim=1)
    cosines = (unit[cold][:, None] * unit[nearest]).sum(-1)
    assert (cosines.diff(dim=1) <= 1e-6).all()


def users_of(inputs, item):
    """Who took an item."""
    return [
        user for user in range(N_USERS) if item in inputs.train.indices[slice(*inputs.train.indptr[user : user + 2])]
    ]


def test_the_text_of_a_warm_item_gives_its_very_score_to_those_who_have_not_taken_it():
    model, inputs = world(3, 2)
    vectors = inputs.semantic["items"].vectors
    vectors[N_ITEMS - 1] = vectors[4]
    after = scores(through_text(model, inputs, 1), inputs)
    taken = torch.from_numpy(np.isin(np.arange(N_USERS), users_of(inputs, 4)))
    expected = torch.where(taken, model.table[:, N_ITEMS - 1], model.table[:, 4])
    torch.testing.assert_close(after[:, N_ITEMS - 1], expected)


def test_a_cold_item_without_a_text_keeps_the_models_score_and_a_textless_one_is_nobodys_neighbour():
    model, inputs = world(5, 3, textless=(0, 1, N_ITEMS - 1))
    wrapped = through_text(model, inputs, 4)
    assert isinstance(wrapped, ColdItems)
    assert wrapped.cold.tolist() == [N_ITEMS - 3, N_ITEMS - 2]
    assert not set(wrapped.nearest.flatten().tolist()) & {0, 1}
    torch.testing.assert_close(scores(wrapped, inputs)[:, N_ITEMS - 1], model.table[:, N_ITEMS - 1])


def test_without_cold_items_or_texts_it_is_the_model_itself():
    model, inputs = world(7, 0)
    assert through_text(model, inputs) is model
    model, inputs = world(7, 2)
    assert through_text(model, ModelInputs(inputs.train, {}, 7)) is model
