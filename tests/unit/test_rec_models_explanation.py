"""What stands behind a list: factors with items and words, plans between them, planted interests found again."""

import numpy as np
import pytest
import torch
from servers.interests import N_ITEMS, N_USERS, built, dense_of, everybody, planted, random_inputs

from rec_models.explanation import Explainable, overlap, similarity
from rec_models.models import ADDVAEConfig, BANDVAEConfig, MacridVAEConfig


def test_planted_interests_are_learnt_and_spoken_of_in_their_own_words():
    inputs = planted()
    torch.manual_seed(0)
    model = BANDVAEConfig(dim=16, hidden_dim=32, kl_anneal_steps=1000).build(inputs)
    optimiser, rng, batch = (
        torch.optim.Adam(model.parameters(), lr=1e-2),
        torch.Generator().manual_seed(0),
        everybody(inputs),
    )
    for step in range(300):
        optimiser.zero_grad()
        sum(model.loss(batch, rng, step).values()).backward()
        optimiser.step()
    model.eval()
    scores, taken = model.scores(batch), dense_of(batch).bool()
    gains = taken.gather(1, scores.topk(10).indices).float() / torch.log2(torch.arange(2, 12.0))
    assert (gains.sum(1) / (1 / torch.log2(torch.arange(2, 12.0))).sum()).mean() > 0.9
    assert isinstance(model, Explainable)
    told = model.factors_of(batch, top=5, epsilon=0.05)
    blocks = torch.arange(64)[:, None] % 4
    spoken = torch.tensor([[int(name.split(":")[0]) for name in told.sides[0].unit_names]])[0]
    busiest = told.sides[0].shares.argmax(1)
    words = told.sides[0].tops[torch.arange(64), busiest]
    assert (spoken[words] == blocks).float().mean() > 0.9
    held = told.shares.argmax(1)
    assert (told.tops[torch.arange(64), held] % 4 == blocks).float().mean() > 0.9


def test_an_explanation_hangs_together():
    inputs = random_inputs()
    model, batch = built(inputs, text_factors=2).eval(), everybody(inputs)
    told = model.factors_of(batch, top=3)
    filled = batch.lengths > 0
    torch.testing.assert_close(told.shares.sum(1), filled.float())
    taken = dense_of(batch).bool()
    shown = torch.isfinite(told.scores)
    assert not (taken[torch.arange(N_USERS)[:, None, None], told.tops] & shown).any()
    assert (told.scores.diff(dim=-1)[shown[..., 1:]] <= 0).all()
    [side] = told.sides
    assert side.unit_names == tuple("abcdefg") and side.plan.shape == (N_USERS, 3, 2)
    torch.testing.assert_close(side.plan.sum((1, 2)), torch.ones(N_USERS))
    even = model.factors_of(batch, epsilon=100.0).sides[0]
    torch.testing.assert_close(even.sharp, torch.full_like(even.sharp, 1 / 6), atol=1e-2, rtol=0)
    torch.testing.assert_close(even.plan, side.plan)  # the model's own, whatever is shown beside it
    assert side.sharp.std() > even.sharp.std()
    assert ((told.similarity >= -1 / 2) & (told.similarity <= 1)).all()
    whole = torch.logsumexp(model.ratings.factor_scores(*_decoded(model, batch)), 0)
    torch.testing.assert_close(whole, model.scores(batch), rtol=1e-5, atol=1e-5)


def _decoded(model, batch):
    own = model._read(batch, None).ratings
    return own.assignment, own.fused


def test_what_attends_is_told_as_it_is_mixed():
    inputs = random_inputs()
    model, batch = built(inputs, ADDVAEConfig, factors=3, dim=6, hidden_dim=10).eval(), everybody(inputs)
    [side] = model.factors_of(batch, top=4).sides
    assert side.signed and side.sharp is None and side.unit_names == tuple("abcdefg")
    assert side.plan.shape == (N_USERS, 3, 3) and side.plan.abs().max() < 1 and (side.plan < 0).any()
    assert side.tops.shape == (N_USERS, 3, 4)
    with torch.no_grad():
        shares, z, _ = model._encoded(model.ratings, batch, None)
        _, word_z, _ = model._encoded(model.text, model.source(batch), None)
        mapped, word_mapped = model._mapped(z, word_z)
        torch.testing.assert_close(side.plan @ word_z, mapped)
        told = torch.logsumexp(model.ratings.factor_scores(shares, z + mapped + word_mapped), 0)
        torch.testing.assert_close(told, model.scores(batch), rtol=1e-5, atol=1e-5)


def test_common_words_are_counted_between_factors():
    tops = torch.tensor([[[0, 1], [0, 1]], [[0, 1], [2, 3]], [[0, 1], [1, 2]]])
    assert overlap(tops).tolist() == [1.0, 0.0, 0.5]


def test_diagnostics_report_plans_words_and_factors():
    inputs = random_inputs()
    found = built(inputs).eval().diagnostics([everybody(inputs)])
    assert set(found) == {"factor_similarity", "plan_entropy", "word_overlap"}
    assert 0 <= found["plan_entropy"] <= np.log2(3) + 1e-5 and -0.5 <= found["factor_similarity"] <= 1


@pytest.mark.parametrize("kind", [BANDVAEConfig, MacridVAEConfig, ADDVAEConfig])
def test_each_item_of_a_history_is_told_under_the_factor_that_holds_most_of_it(kind):
    inputs = random_inputs()
    model, batch = built(inputs, kind).eval(), everybody(inputs)
    assert isinstance(model, Explainable)
    told = model.factors_of(batch, top=N_ITEMS)
    for user in range(N_USERS):
        held = told.held[user][told.held[user] >= 0].tolist()
        assert sorted(held) == batch.items[batch.rows == user].tolist()
        assert not set(held) & set(told.tops[user][told.scores[user].isfinite()].tolist())
    everything = model.factors_of(batch, top=N_ITEMS, taken=True)
    assert everything.scores.isfinite().all()
    torch.testing.assert_close(everything.shares, told.shares)


def test_one_factor_is_like_no_other():
    torch.testing.assert_close(similarity(torch.randn(3, 1, 4)), torch.zeros(3), atol=1e-6, rtol=0)
    assert similarity(torch.ones(1, 2, 4)).item() == pytest.approx(1)
    assert similarity(torch.eye(3)[None]).item() == pytest.approx(0)
