"""Sparse rows, losses, layers, comparison: small truths, one each."""

import math
import pickle

import numpy as np
import pytest
import torch

from rec_models import InteractionMatrix, catalogue, paired_comparison, parse_config, parse_evaluation, parse_training
from rec_models.blocks import SparseLinear, dropout_entries, l2_normalised, products_with_all, scores_of_all
from rec_models.errors import ModelSettingsError, NotComparableError, UnknownModelError
from rec_models.interactions import ResidentInteractions
from rec_models.losses import decoded_multinomial_nll, multinomial_nll
from rec_models.semantic import ModelInputs, SemanticMatrix, pooled_users, under_control


@pytest.fixture
def three_users():
    # user 0 has items 1 and 3, user 1 nothing, user 2 item 0
    return InteractionMatrix.from_pairs([0, 2, 0], [3, 0, 1], None, n_users=3, n_items=4)


def dense(matrix):
    table = np.zeros(matrix.shape, np.float32)
    for user in range(matrix.n_users):
        row = slice(matrix.indptr[user], matrix.indptr[user + 1])
        table[user, matrix.indices[row]] = matrix.values[row]
    return torch.from_numpy(table)


def test_pairs_in_any_order_make_sorted_rows(three_users):
    assert three_users.indptr.tolist() == [0, 2, 2, 3]
    assert three_users.indices.tolist() == [1, 3, 0]


def test_of_a_repeated_pair_the_last_value_counts():
    matrix = InteractionMatrix.from_pairs([0, 0], [1, 1], [2.0, 5.0], n_users=1, n_items=2)
    assert matrix.values.tolist() == [5.0]


def test_pairs_outside_the_matrix_are_refused():
    with pytest.raises(IndexError, match="user 9"):
        InteractionMatrix.from_pairs([9], [0], None, n_users=3, n_items=4)


def test_a_batch_is_the_rows_in_the_order_asked(three_users):
    batch = ResidentInteractions(three_users).batch(np.array([2, 1, 0]))
    assert batch.users.tolist() == [2, 1, 0]
    assert batch.rows.tolist() == [0, 2, 2]
    assert batch.items.tolist() == [0, 1, 3]
    assert batch.lengths.tolist() == [1, 0, 2]


def test_a_matrix_survives_its_files(three_users, tmp_path):
    three_users.save(tmp_path, "train")
    again = InteractionMatrix.load(tmp_path, "train", 4)
    assert torch.equal(dense(three_users), dense(again))


def test_union_holds_every_pair_once(three_users):
    both = three_users.union(InteractionMatrix.from_pairs([1, 0], [2, 1], None, n_users=3, n_items=4))
    assert both.nnz == 4


def test_sparse_linear_is_the_dense_layer_with_the_same_weights(three_users):
    layer = SparseLinear(4, 5)
    batch = ResidentInteractions(three_users).batch(np.arange(3))
    torch.testing.assert_close(layer(batch), dense(three_users) @ layer.weight + layer.bias)


def test_dropout_keeps_the_expectation_and_only_touches_entries(three_users):
    batch = ResidentInteractions(three_users).batch(np.zeros(20_000, np.int64))
    dropped = dropout_entries(batch, 0.3, torch.Generator().manual_seed(0))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)


def test_l2_normalised_rows_have_length_one_and_empty_rows_stay_empty(three_users):
    batch = ResidentInteractions(three_users).batch(np.arange(3))
    assert l2_normalised(batch).tolist() == pytest.approx([1 / math.sqrt(2), 1 / math.sqrt(2), 1])


def test_likelihood_at_constant_logits_is_count_times_log_items(three_users):
    batch = ResidentInteractions(three_users).batch(np.arange(3))
    assert multinomial_nll(torch.zeros(3, 4), batch).tolist() == pytest.approx([2 * math.log(4), 0, math.log(4)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decoded_likelihood_and_its_gradient_are_those_of_autograd(three_users, dtype):
    torch.manual_seed(0)
    users = np.arange(200) % 3  # more than one slice of rows
    batch = ResidentInteractions(three_users).batch(users)
    leaves = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in ((200, 6), (4, 6), (4,))]
    hidden, weight, bias = leaves
    reference = multinomial_nll(hidden @ weight.t() + bias, batch).mean()
    expected = torch.autograd.grad(reference, leaves)
    fused = decoded_multinomial_nll(hidden, weight, bias, batch)
    torch.testing.assert_close(fused, reference)
    for ours, theirs in zip(torch.autograd.grad(3 * fused, leaves), expected, strict=True):
        torch.testing.assert_close(ours, 3 * theirs)


def test_decoded_likelihood_passes_the_numerical_gradient_check(three_users):
    torch.manual_seed(0)
    batch = ResidentInteractions(three_users).batch(np.arange(3))
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 2), (4, 2), (4,))]
    assert torch.autograd.gradcheck(lambda h, w, b: decoded_multinomial_nll(h, w, b, batch), leaves)


def test_bfloat16_products_keep_the_normaliser_exact(three_users):
    torch.manual_seed(0)
    batch = ResidentInteractions(three_users).batch(np.arange(3))
    hidden, weight, bias = torch.randn(3, 8), torch.randn(4, 8), torch.zeros(4)
    with torch.autocast("cpu", torch.bfloat16):
        low = decoded_multinomial_nll(hidden, weight, bias, batch)
    assert low.dtype == torch.float32
    assert float(low) == pytest.approx(float(decoded_multinomial_nll(hidden, weight, bias, batch)), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_products_with_all_items_are_the_products_whatever_the_slices(dtype):
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 7).to(dtype), torch.randn(600, 7).to(dtype)
    torch.testing.assert_close(products_with_all(hidden, weight), hidden @ weight.t())


def test_scores_in_low_precision_are_close_and_hardly_ever_tied():
    torch.manual_seed(0)
    layer, hidden = torch.nn.Linear(64, 2000), torch.randn(300, 64)  # more than one slice of rows
    exact = scores_of_all(hidden, layer)
    torch.testing.assert_close(exact, layer(hidden).detach())
    with torch.autocast("cpu", torch.bfloat16):
        low = scores_of_all(hidden, layer)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, exact, atol=0.03, rtol=0)
    different = torch.tensor([len(row.unique()) for row in low])
    assert different.min() > 1950  # bfloat16 alone has some 300 values in this range


def test_pooled_users_skip_items_without_text(three_users):
    items = SemanticMatrix(torch.eye(4), torch.tensor([True, False, True, True]))
    users = pooled_users(items, three_users)
    assert users.vectors[0].tolist() == [0, 0, 0, 1]
    assert users.present.tolist() == [True, False, True]


def test_shuffled_texts_are_the_same_texts_elsewhere_and_pooled_users_follow(three_users):
    items = SemanticMatrix(torch.eye(4), torch.ones(4, dtype=torch.bool))
    inputs = ModelInputs(three_users, {}, seed=1)
    users = pooled_users(items, three_users)
    shuffled, followed = under_control(items, users, "shuffled", inputs)
    assert sorted(map(tuple, shuffled.vectors.tolist())) == sorted(map(tuple, items.vectors.tolist()))
    assert not torch.equal(shuffled.vectors, items.vectors)
    torch.testing.assert_close(followed.vectors[2], shuffled.vectors[0])
    again, _ = under_control(items, users, "shuffled", inputs)
    assert torch.equal(again.vectors, shuffled.vectors)


def test_random_vectors_have_unit_length_and_keep_the_mask(three_users):
    items = SemanticMatrix(torch.eye(4), torch.tensor([True, False, True, True]))
    drawn, _ = under_control(items, pooled_users(items, three_users), "random", ModelInputs(three_users, {}, seed=1))
    assert drawn.vectors.norm(dim=1).tolist() == pytest.approx([1, 0, 1, 1])


def test_comparison_of_a_clear_gain_excludes_zero_and_agrees_with_scipy():
    rng = np.random.default_rng(0)
    base = rng.random(400)
    better = base + 0.05 + rng.normal(0, 0.1, 400)
    found = paired_comparison(better, base)
    assert 0 < found.low < found.difference < found.high
    assert found.p_value < 1e-6
    assert found.relative == pytest.approx(found.difference / base.mean())


def test_comparison_of_a_model_with_itself_is_nothing():
    found = paired_comparison([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0, 2.0]), ([1.0], [1.0]), ([1.0, np.nan], [1.0, 2.0])])
def test_comparison_refuses_what_cannot_be_paired(a, b):
    with pytest.raises(NotComparableError):
        paired_comparison(a, b)


def test_catalogue_names_every_model_once_with_its_paper():
    names = [card.name for card in catalogue()]
    assert len(set(names)) == len(names) and {"dmrec", "recgoat", "bandvae", "pia"} <= set(names)
    assert all(card.paper for card in catalogue())


def test_an_unknown_model_is_answered_with_the_known_ones():
    known = ", ".join(card.name for card in catalogue())
    with pytest.raises(UnknownModelError, match=f"'dmrek'; known: {known}"):
        parse_config({"name": "dmrek"})


def test_a_misspelt_option_is_answered_with_the_nearest():
    with pytest.raises(ModelSettingsError, match=r"latent_dimm.*did you mean `latent_dim`"):
        parse_config({"name": "mult_vae", "latent_dimm": 3})
    with pytest.raises(ModelSettingsError, match=r"\[training\].*batch_size"):
        parse_training({"batch_size": 0})


@pytest.mark.parametrize(
    ("branch", "sentence"),
    [
        (
            {"base": {"name": "cvga", "hidden_dim": 3}},
            r"unknown option `base\.hidden_dim` \(did you mean `latent_dim`\?\)",
        ),
        ({"matching": {"name": "mddm", "bta": 1}}, r"unknown option `matching\.bta` \(did you mean `beta`\?\)"),
        ({"meta_network": {"pool": "x"}}, r"`meta_network\.pool`: Input should be 'sum', 'mean' or 'sqrt', got 'x'"),
        ({"base": {"name": "cvgaa"}}, r"`base`: .*'mult_vae', 'cvga', 'l_diffrec'"),
    ],
)
def test_an_option_of_a_part_is_answered_with_the_parts_own_options_as_a_file_spells_them(branch, sentence):
    with pytest.raises(ModelSettingsError, match=sentence):
        parse_config({"name": "dmrec"} | branch)


@pytest.mark.parametrize(
    "settings", [{"ks": [0]}, {"select_by": "ndcg@0"}, {"select_by": "luck@3"}, {"names": ["luck"]}]
)
def test_a_metric_that_cannot_be_measured_is_refused_before_training(settings):
    with pytest.raises(ModelSettingsError, match=r"\[evaluation\]"):
        parse_evaluation(settings)


def test_errors_survive_pickling_with_their_sentence():
    error = UnknownModelError("x", ["a", "b"])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - our own bytes
