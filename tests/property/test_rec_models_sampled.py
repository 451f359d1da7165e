"""Large catalogues: candidates that stand for all items, and an Adam that moves the rows it was told of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_models.errors import RowsNotSharedError
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.losses import decoded_multinomial_nll
from rec_models.models import MultVAEConfig
from rec_models.parts import Team, refuse_what_cannot_be_shared
from rec_models.sampled import RowAdam, candidates_of, sampled_multinomial_nll
from rec_models.semantic import ModelInputs

N_ITEMS = 60


def a_batch(seed, n_users=7, per_user=4):
    rng = np.random.default_rng(seed)
    items = np.concatenate([rng.choice(N_ITEMS, per_user, replace=False) for _ in range(n_users)])
    users = np.repeat(np.arange(n_users), per_user)
    matrix = InteractionMatrix.from_pairs(users, items, None, n_users=n_users, n_items=N_ITEMS)
    return ResidentInteractions(matrix).batch(np.arange(n_users))


@given(seed=st.integers(0, 10_000), n_drawn=st.integers(1, 2 * N_ITEMS))
@settings(deadline=None, max_examples=60)
def test_candidates_are_the_batch_and_one_of_each_equal_share_of_the_others(seed, n_drawn):
    batch = a_batch(seed)
    found = candidates_of(batch, n_drawn, torch.Generator().manual_seed(seed))
    own = len(torch.unique(batch.items))
    drawn = found.items[own:]
    assert torch.equal(found.items[found.places], batch.items)
    assert len(drawn) == min(n_drawn, N_ITEMS - own) and (drawn.diff() >= 0).all()
    assert not np.intersect1d(drawn, batch.items).size and drawn.min() >= 0 and drawn.max() < N_ITEMS
    assert (found.corrections[:own] == 0).all()
    weights = found.corrections[own:].exp()
    assert float(weights.sum()) == pytest.approx(N_ITEMS - own, rel=1e-5)  # together they stand for all others
    if n_drawn >= N_ITEMS - own:
        assert sorted(found.items.tolist()) == list(range(N_ITEMS))


def test_every_other_item_is_drawn_equally_often_and_the_normaliser_is_right_on_average():
    batch, rng, n_drawn, rounds = a_batch(3), torch.Generator().manual_seed(0), 7, 4000
    logits = torch.randn(N_ITEMS, generator=torch.Generator().manual_seed(1)) * 2
    counted, estimates = torch.zeros(N_ITEMS), []
    for _ in range(rounds):
        found = candidates_of(batch, n_drawn, rng)
        counted += torch.bincount(found.items, minlength=N_ITEMS)
        estimates.append((logits[found.items] + found.corrections).exp().sum())
    own = torch.unique(batch.items)
    others = torch.ones(N_ITEMS, dtype=torch.bool).index_fill_(0, own, False)
    assert (counted[own] == rounds).all()
    expected = rounds * n_drawn / int(others.sum())
    assert (counted[others] - expected).abs().max() < 5 * expected**0.5
    estimate = torch.stack(estimates)
    error = estimate.std() / rounds**0.5
    assert abs(estimate.mean() - logits.exp().sum()) < 4 * error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_everything_drawn_it_is_the_whole_likelihood_with_its_gradients(dtype):
    torch.manual_seed(0)
    batch = a_batch(5)
    batch = replace(batch, values=batch.values.to(dtype))
    leaves = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in ((7, 5), (N_ITEMS, 5), (N_ITEMS,))]
    whole = decoded_multinomial_nll(*leaves, batch)
    drawn = sampled_multinomial_nll(*leaves, batch, N_ITEMS, None)
    torch.testing.assert_close(drawn, whole)
    expected, found = torch.autograd.grad(whole, leaves), torch.autograd.grad(drawn, leaves)
    assert found[1].is_sparse
    for ours, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.to_dense(), reference)


def test_a_step_of_a_sampled_model_moves_only_rows_of_its_candidates():
    torch.manual_seed(0)
    batch = a_batch(2)
    config = MultVAEConfig(hidden_dim=6, latent_dim=3, dropout=0.0, sampled_items=5)
    matrix = InteractionMatrix.from_pairs(np.arange(3), np.arange(3), None, n_users=3, n_items=N_ITEMS)
    model = config.build(ModelInputs(matrix, {}, 0))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimiser = RowAdam(model.parameters(), fused=True)
    sum(model.loss(batch, torch.Generator().manual_seed(1), 0).values()).backward()
    optimiser.step()
    moved = {
        name: set(torch.nonzero((weight != before[name]).reshape(len(weight), -1).any(1)).flatten().tolist())
        for name, weight in model.named_parameters()
    }
    own = set(batch.items.tolist())
    assert moved["encoder_in.weight"] == own
    assert own < moved["decoder_out.weight"] and len(moved["decoder_out.weight"] - own) <= 5
    assert len(moved["encoder_out.weight"]) == 6  # what is dense moves whole


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_each_row_has_an_adam_of_its_own_over_the_steps_it_was_in(decay):
    rng = torch.Generator().manual_seed(0)
    table = torch.nn.Parameter(torch.randn(5, 3, generator=rng))
    alone = [torch.nn.Parameter(row.clone()) for row in table.detach()]
    ours = RowAdam([table], lr=0.05, weight_decay=decay, fused=True)
    theirs = [torch.optim.Adam([row], lr=0.05, weight_decay=decay) for row in alone]
    for rows in ([0, 2], [2], [0, 1, 2, 3], [1, 3, 3], [2]):  # row 4 never, and one twice in a step
        values = torch.randn(len(rows), 3, generator=rng)
        table.grad = torch.sparse_coo_tensor(torch.tensor([rows]), values, table.shape, check_invariants=True)
        ours.step()
        for row in set(rows):
            alone[row].grad = values[torch.tensor(rows) == row].sum(0)
            theirs[row].step()
    torch.testing.assert_close(table.detach(), torch.stack([row.detach() for row in alone]))


def test_dense_gradients_are_taken_as_by_adam():
    rng = torch.Generator().manual_seed(0)
    start = torch.randn(4, 3, generator=rng)
    both = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    optimisers = [
        kind([weight], lr=0.1, fused=True) for kind, weight in zip((RowAdam, torch.optim.Adam), both, strict=True)
    ]
    for _ in range(5):
        gradient = torch.randn(4, 3, generator=rng)
        for weight, optimiser in zip(both, optimisers, strict=True):
            weight.grad = gradient.clone()
            optimiser.step()
    assert torch.equal(*both)


def test_processes_cannot_share_tables_that_are_learned_by_rows():
    matrix = InteractionMatrix.from_pairs(np.arange(3), np.arange(3), None, n_users=3, n_items=9)
    models = [MultVAEConfig(sampled_items=n).build(ModelInputs(matrix, {}, 0)) for n in (4, None)]
    with pytest.raises(RowsNotSharedError, match=r"mult_vae .* 2 processes .* `sampled_items` to null") as caught:
        refuse_what_cannot_be_shared(models[0], "mult_vae", 2, Team(0, 2))
    assert caught.value.exit_code == 2
    refuse_what_cannot_be_shared(models[0], "mult_vae", 2, Team())
    refuse_what_cannot_be_shared(models[1], "mult_vae", 2, Team(0, 2))


@given(n=st.integers(1, 12))
def test_some_users_to_validate_on_are_spread_over_all_who_have_something(n):
    users = np.array([1, 1, 3, 4, 6, 8, 8, 8, 9])
    matrix = InteractionMatrix.from_pairs(users, np.arange(9), None, n_users=11, n_items=9)
    some = matrix.of_some(n)
    kept = some.active().tolist()
    assert len(kept) == min(n, 6) and set(kept) <= {1, 3, 4, 6, 8, 9} and some.shape == matrix.shape
    assert kept[0] == 1 and (n < 2 or kept[-1] == 9)
    for user in kept:
        rows = (part.indices[part.indptr[user] : part.indptr[user + 1]] for part in (some, matrix))
        assert np.array_equal(*rows)
    assert matrix.of_some(None) is matrix
