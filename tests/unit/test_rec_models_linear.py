"""Plain baselines against dense formulas, brute force, scipy and scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import ElasticNet

from rec_models.errors import MissingSemanticMatrixError
from rec_models.evaluation import first_k
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.item_weights import nearest_items, weighted_rows
from rec_models.least_squares import RidgeRows, chosen_entries, gram, right_singular_vectors, slices_of
from rec_models.models import (
    CDAEConfig,
    EASEConfig,
    ItemKNNConfig,
    PLRecConfig,
    RandomConfig,
    SLIMConfig,
    WMFConfig,
)
from rec_models.semantic import ModelInputs, SemanticMatrix, items_of

SEED = 81
N_USERS, N_ITEMS = 40, 18


@pytest.fixture(scope="module")
def train():
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    tastes, topics = rng.standard_normal((N_USERS, 3)), rng.standard_normal((N_ITEMS, 3))
    users, items = np.nonzero(tastes @ topics.T > 1.0)
    return InteractionMatrix.from_pairs(users, items, None, n_users=N_USERS, n_items=N_ITEMS)


@pytest.fixture(scope="module")
def x(train):
    return train.csr(np.float64).toarray()


def solved(config, train, semantic=None):
    model = config.build(ModelInputs(train, semantic or {}, SEED))
    model.fit(train)
    return model.eval()


def everybody(train):
    return ResidentInteractions(train).batch(np.arange(train.n_users))


def scores_of(config, train, semantic=None):
    with torch.no_grad():
        return solved(config, train, semantic).scores(everybody(train)).double().numpy()


def texts_of(n_items):
    rng = np.random.default_rng(SEED)
    present = torch.arange(n_items) % 5 != 0
    vectors = torch.from_numpy(rng.standard_normal((n_items, 4)).astype(np.float32)) * present[:, None]
    return {"items": SemanticMatrix(vectors, present)}


def test_ease_is_the_least_squares_solution_whose_diagonal_is_zero():
    rows = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]], float)
    train = InteractionMatrix.from_pairs(*np.nonzero(rows), None, n_users=5, n_items=4)
    found = solved(EASEConfig(regularization=0.7), train).item_weights.double().numpy()
    free = ~np.eye(4, dtype=bool)

    def objective(weights):
        full = np.zeros((4, 4))
        full[free] = weights
        return ((rows - rows @ full) ** 2).sum() + 0.7 * (full**2).sum()

    best = minimize(objective, np.zeros(12), method="BFGS", options={"gtol": 1e-10})
    assert np.array_equal(np.diag(found), np.zeros(4))
    np.testing.assert_allclose(found[free], best.x, atol=1e-5)
    one_item = InteractionMatrix.from_pairs([0], [2], None, n_users=1, n_items=4)
    scores = solved(EASEConfig(regularization=0.7), train).scores(everybody(one_item))
    np.testing.assert_allclose(scores[0].numpy(), found[2], atol=1e-6)


def test_float32_ease_ranks_as_float64_does(train, x):
    inverse = np.linalg.inv(x.T @ x + 3 * np.eye(N_ITEMS))
    exact = -inverse / np.diag(inverse)
    np.fill_diagonal(exact, 0)
    scores = scores_of(EASEConfig(regularization=3.0), train)
    np.testing.assert_allclose(scores, x @ exact, atol=2e-5)
    ranked = [first_k(torch.from_numpy(each).float(), N_ITEMS)[1] for each in (scores, x @ exact)]
    assert (ranked[0] == ranked[1]).float().mean() > 0.99  # but for ties of users alike


@pytest.mark.parametrize("centred", [False, True])
def test_text_in_ease_is_as_many_users_more_as_vectors_have_dimensions(train, x, centred):
    texts = texts_of(N_ITEMS)
    vectors, present = texts["items"].vectors.double().numpy(), texts["items"].present.numpy()[:, None]
    if centred:
        vectors = (vectors - vectors.sum(0) / present.sum()) * present
    stacked = np.vstack([x, 0.6 * vectors.T])
    inverse = np.linalg.inv(stacked.T @ stacked + 2 * np.eye(N_ITEMS))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    config = EASEConfig(regularization=2.0, text_weight=0.6, text_centred=centred)
    assert config.asks_for_language and not EASEConfig().asks_for_language
    np.testing.assert_allclose(scores_of(config, train, texts), x @ expected, atol=1e-4)


def test_ease_under_a_control_reads_what_every_model_reads_under_it(train):
    texts = texts_of(N_ITEMS)
    given = ModelInputs(train, texts, SEED)
    found = {}
    for language in ("profiles", "shuffled", "random"):
        config = EASEConfig(regularization=2.0, text_weight=0.6, language=language)
        found[language] = scores_of(config, train, texts)
        read = scores_of(
            config.model_copy(update={"language": "profiles"}), train, {"items": items_of("", given, language)}
        )
        np.testing.assert_array_equal(found[language], read)
    assert not np.allclose(found["profiles"], found["shuffled"]) and not np.allclose(found["profiles"], found["random"])
    silent = EASEConfig(regularization=2.0, language="shuffled")
    assert not silent.asks_for_language  # nothing to control where texts have no weight


def test_ease_with_text_names_the_matrix_that_is_missing(train):
    with pytest.raises(MissingSemanticMatrixError, match="semalign embed"):
        EASEConfig(text_weight=1.0).build(ModelInputs(train, {}, 0))


def test_gram_and_transposed_are_those_of_the_dense_matrix(train, x):
    np.testing.assert_array_equal(gram(train, torch.device("cpu")).numpy(), x.T @ x)
    np.testing.assert_array_equal(train.transposed().csr().toarray(), x.T)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), confidence=st.sampled_from([0.0, 0.5, 10.0, 100.0]), ridge=st.floats(0.1, 20))
def test_folding_in_solves_every_users_own_system(seed, confidence, ridge):
    rng = np.random.default_rng(seed)
    rows = (rng.random((7, 11)) < 0.4).astype(float)
    rows[3] = 0
    train = InteractionMatrix.from_pairs(*np.nonzero(rows), None, n_users=7, n_items=11)
    table = rng.standard_normal((11, 4))
    solver = RidgeRows(torch.from_numpy(table).float(), confidence=confidence, ridge=ridge)
    # without confidence the preconditioner is the inverse
    found = solver.solve(everybody(train), steps=1 if confidence == 0 else 30)
    for user, row in enumerate(rows):
        weights = np.diag(1 + confidence * row)
        expected = np.linalg.solve(table.T @ weights @ table + ridge * np.eye(4), table.T @ weights @ (row > 0))
        np.testing.assert_allclose(found[user].numpy(), expected, atol=2e-3, rtol=2e-3)
    assert not found[3].any()


def test_chosen_entries_are_those_of_the_whole_product(train, x):
    rng = torch.Generator().manual_seed(SEED)
    own, table = torch.randn(N_USERS, 4, generator=rng), torch.randn(N_ITEMS, 4, generator=rng)
    found = chosen_entries(own, table, everybody(train))
    torch.testing.assert_close(found, (own @ table.t())[torch.from_numpy(x) > 0])


@pytest.mark.parametrize("confidence", [0.0, 5.0])
def test_wmf_ends_where_alternating_dense_solutions_end(train, x, confidence):
    """Both from the same start, with as many sweeps; the users of the last sweep are folded in anew by both."""
    config = WMFConfig(dim=3, confidence=confidence, ridge=1.0, sweeps=12, solver_steps=40)
    items = (torch.randn(N_ITEMS, 3, generator=torch.Generator().manual_seed(SEED)) * (0.1 / 3**0.5)).double().numpy()

    def solve(rows, table):
        penalty = np.eye(3)
        return np.stack(
            [
                np.linalg.solve(
                    table.T @ ((1 + confidence * row)[:, None] * table) + penalty, table.T @ ((1 + confidence) * row)
                )
                for row in rows
            ]
        )

    for _ in range(12):
        items = solve(x.T, solve(x, items))
    np.testing.assert_allclose(scores_of(config, train), solve(x, items) @ items.T, atol=5e-3)


def test_slices_cover_all_rows_and_hold_no_more_than_they_may():
    indptr = np.concatenate([[0], np.cumsum(np.random.default_rng(SEED).integers(0, 9_000, 50))])
    slices = list(slices_of(indptr, 64))
    assert np.array_equal(np.concatenate(slices), np.arange(50))
    assert len(slices) > 1
    for some in slices:
        assert len(some) == 1 or (indptr[some[-1] + 1] - indptr[some[0]]) * 64 <= 1 << 20


@pytest.mark.parametrize("shrinkage", [0.0, 4.0])
def test_nearest_items_are_those_of_the_dense_cosine(train, x, shrinkage):
    norms = np.linalg.norm(x, axis=0)
    dense = x.T @ x / np.maximum(np.outer(norms, norms) + shrinkage, 1e-12)
    np.fill_diagonal(dense, 0)
    neighbours, values = nearest_items(train.csr(np.float64), 5, shrinkage)
    np.testing.assert_allclose(values.numpy(), -np.sort(-dense, axis=1)[:, :5], atol=1e-6)
    np.testing.assert_allclose(dense[np.arange(N_ITEMS)[:, None], neighbours.numpy()], values.numpy(), atol=1e-6)
    kept = np.zeros_like(dense)
    np.put_along_axis(kept, neighbours.numpy(), values.double().numpy(), axis=1)
    config = ItemKNNConfig(k=5, shrinkage=shrinkage, weighting="none")
    np.testing.assert_allclose(scores_of(config, train), x @ kept.T, atol=1e-5)


def test_weighted_rows_are_tfidf_and_bm25_of_items_as_documents(train, x):
    expected = TfidfTransformer(norm=None).fit_transform(x.T).toarray().T
    np.testing.assert_allclose(weighted_rows(train, "tfidf").toarray(), expected, atol=1e-9)
    counts, lengths = x.sum(1), x.sum(0)
    rarity = np.log(1 + (N_ITEMS - counts + 0.5) / (counts + 0.5))
    bm25 = rarity[:, None] * x * 2.2 / (x + 1.2 * (0.25 + 0.75 * lengths / lengths.mean()))
    np.testing.assert_allclose(weighted_rows(train, "bm25").toarray(), bm25, atol=1e-9)


def test_slim_over_all_items_is_the_elastic_net_of_scikit_learn(train, x):
    l1, l2 = 0.4, 1.5
    model = solved(SLIMConfig(k=N_ITEMS - 1, l1=l1, l2=l2, passes=200), train)
    for item in range(0, N_ITEMS, 4):
        others = np.delete(np.arange(N_ITEMS), item)
        net = ElasticNet(
            alpha=(l1 + l2) / N_USERS,
            l1_ratio=l1 / (l1 + l2),
            positive=True,
            fit_intercept=False,
            tol=1e-10,
            max_iter=100_000,
        ).fit(x[:, others], x[:, item])
        found = np.zeros(N_ITEMS)
        found[model.neighbours[item].numpy()] = model.weights[item].numpy()
        np.testing.assert_allclose(found[others], net.coef_, atol=1e-4)
        assert found[item] == 0


def test_right_singular_vectors_span_what_the_dense_decomposition_finds(train, x):
    found = right_singular_vectors(train.csr(np.float64), 3, np.random.default_rng(SEED))
    _, _, exact = np.linalg.svd(x)
    np.testing.assert_allclose(np.abs(np.sum(found * exact[:3].T, axis=0)), 1, atol=1e-3)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-10)


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_pl_rec_is_a_ridge_regression_on_projected_rows(train, x, power):
    scale = np.maximum(x.sum(0), 1) ** -power
    projection = scale[:, None] * np.linalg.svd(x * scale)[2][:6].T
    latents = x @ projection
    weights = np.linalg.solve(latents.T @ latents + 2 * np.eye(6), latents.T @ x)
    config = PLRecConfig(dim=6, ridge=2.0, popularity_power=power)
    np.testing.assert_allclose(scores_of(config, train), latents @ weights, atol=2e-3)


def test_random_lists_are_as_even_as_chance_and_everybodys_own():
    train = InteractionMatrix.from_pairs([0], [0], None, n_users=400, n_items=50)
    first, second = (RandomConfig().build(ModelInputs(train, {}, seed)).scores(everybody(train)) for seed in (0, 1))
    shown = torch.bincount(first.topk(10).indices.flatten(), minlength=50)
    assert shown.min() > 40 and shown.max() < 130  # 80 expected, deviation 8
    assert (first.mean(), first.var()) == (pytest.approx(1 / 2, abs=0.01), pytest.approx(1 / 12, abs=0.005))
    for other in (second, first.roll(1, 0), first.roll(1, 1)):
        assert abs(np.corrcoef(first.flatten(), other.flatten())[0, 1]) < 0.03


@pytest.mark.parametrize("config", [WMFConfig(dim=4), PLRecConfig(dim=4), EASEConfig(), ItemKNNConfig(), SLIMConfig()])
def test_a_user_is_scored_by_their_row_whoever_they_are(config, train):
    """Unseen users are served: the same row under an index that training never saw gets the same scores."""
    model, known = solved(config, train), everybody(train)
    longer = InteractionMatrix.from_pairs(
        np.full(train.lengths()[5], N_USERS + 9),
        train.indices[train.indptr[5] : train.indptr[6]],
        None,
        n_users=N_USERS + 10,
        n_items=N_ITEMS,
    )
    stranger = ResidentInteractions(longer).batch(np.array([N_USERS + 9]))
    torch.testing.assert_close(model.scores(stranger)[0], model.scores(known)[5], atol=1e-4, rtol=1e-4)


def test_cdae_serves_strangers_as_users_whose_vector_is_zero(train):
    torch.manual_seed(0)
    model = CDAEConfig(hidden_dim=6).build(ModelInputs(train, {}, 0)).eval()
    batch = everybody(train)
    with torch.no_grad():
        before = model.scores(batch)
        model.user_table.normal_()
        stranger = ResidentInteractions(
            InteractionMatrix.from_pairs(
                np.full(train.lengths()[5], N_USERS),
                train.indices[train.indptr[5] : train.indptr[6]],
                None,
                n_users=N_USERS + 1,
                n_items=N_ITEMS,
            )
        ).batch(np.array([N_USERS]))
        torch.testing.assert_close(model.scores(stranger)[0], before[5])
        assert not torch.equal(model.scores(batch)[5], before[5])


def test_the_logistic_loss_of_cdae_leaves_out_negatives_that_were_taken():
    train = InteractionMatrix.from_pairs([0, 0, 1], [0, 1, 2], None, n_users=2, n_items=3)
    torch.manual_seed(0)
    model = CDAEConfig(hidden_dim=4, loss="logistic", negatives=4000, dropout=0).build(ModelInputs(train, {}, 0))
    batch = everybody(train)
    logits = model.scores(batch).double()
    taken = torch.tensor([[1, 1, 0], [0, 0, 1]])
    per_negative = torch.nn.functional.softplus(logits) * (1 - taken) * 4000 * taken.sum(1, keepdim=True) / 3
    expected = (torch.nn.functional.softplus(-logits) * taken + per_negative).sum() / 2
    found = model.loss(batch, torch.Generator().manual_seed(0), 0)["reconstruction"].item()
    assert found == pytest.approx(expected.item(), rel=0.03)
