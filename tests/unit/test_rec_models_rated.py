"""Protocols that rank rated items alone, what trivial predictors score there, and the report on ratings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from rec_models.errors import NothingToEvaluateError
from rec_models.evaluation import EvaluationConfig, evaluate
from rec_models.interactions import InteractionMatrix, ResidentInteractions
from rec_models.rated_lists import RatedEntries, hits_among
from rec_models.rating_report import RatingReport
from rec_models.recommender import Recommender

N_USERS, N_ITEMS = 40, 30


class Fixed(Recommender):
    def __init__(self, table, predicts_ratings=True):
        super().__init__()
        self.table, self.predicts_ratings = table, predicts_ratings

    def scores(self, batch):
        return self.table[batch.users].clone()


def world(seed=0):
    """Train and test parts of ratings, and the table of all ratings."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    ratings = rng.integers(1, 6, (N_USERS, N_ITEMS)).astype(np.float32)
    part = rng.choice(3, (N_USERS, N_ITEMS), p=[0.4, 0.3, 0.3])
    made = []
    for which in (1, 2):
        users, items = np.nonzero(part == which)
        made.append(InteractionMatrix.from_pairs(users, items, ratings[users, items], n_users=N_USERS, n_items=N_ITEMS))
    return *made, torch.from_numpy(ratings)


def measured(model, train, test, protocol, **options):
    config = EvaluationConfig(protocol=protocol, ks=(5,), select_by="ndcg@5", **options)
    return evaluate(model, ResidentInteractions(train), test, config, part="test")


def test_who_knows_the_ratings_gets_everything_where_equal_ratings_keep_an_order():
    train, test, ratings = world()
    table = ratings + 1e-4 * torch.arange(N_ITEMS).flip(0)  # the order of the catalogue breaks what is equal
    means = measured(Fixed(table), train, test, "dgrm-paper", ties="index").means()
    assert means["recall@5"] == pytest.approx(1) and means["ndcg@5"] == pytest.approx(1)
    assert means["rmse"] == pytest.approx(0, abs=3e-3)


def test_in_the_codes_reading_even_perfection_is_less_than_one():
    train, test, ratings = world()
    found = measured(Fixed(ratings), train, test, "dgrm-code", ties="index")
    asked = test.rated_at_least(3).lengths()
    few = asked[found.users] < 5
    assert few.any() and (found.values["ndcg@5"][few] < 1).all()
    assert len(found.users) == (test.lengths() > 0).sum()


def test_users_who_liked_nothing_are_left_out_in_one_reading_and_count_0_in_the_other():
    train = InteractionMatrix.from_pairs([0, 1], [0, 0], [4, 4], n_users=2, n_items=4)
    test = InteractionMatrix.from_pairs([0, 0, 1], [1, 2, 1], [5, 1, 2], n_users=2, n_items=4)
    model = Fixed(torch.full((2, 4), 4.0))
    assert measured(model, train, test, "dgrm-paper").users.tolist() == [0]
    assert measured(model, train, test, "dgrm-code").values["recall@5"].tolist() == [1, 0]
    disliked = InteractionMatrix.from_pairs([0], [1], [1], n_users=2, n_items=4)
    with pytest.raises(NothingToEvaluateError):
        measured(model, train, disliked, "dgrm-paper")


def test_a_prediction_below_the_middle_is_not_listed_unless_it_is_no_rating():
    train, test, ratings = world()
    low = 0.1 * ratings
    assert measured(Fixed(low), train, test, "dgrm-paper").means()["recall@5"] == 0
    assert measured(Fixed(low, predicts_ratings=False), train, test, "dgrm-paper").means()["recall@5"] > 0.7


def test_validation_can_look_at_the_order_alone_while_the_test_keeps_what_is_predicted_low_out():
    train, test, ratings = world()
    low = Fixed(0.5 * ratings)  # the right order, and one rating in five passes
    for protocol in ("dgrm-paper", "dgrm-code"):
        found = {}
        for part, cut in (("valid", None), ("valid", "test"), ("test", "test"), ("test", None)):
            config = EvaluationConfig(protocol=protocol, ks=(5,), select_by="ndcg@5", cut_lists=cut)
            means = evaluate(low, ResidentInteractions(train), test, config, part=part).means()
            found[part, cut] = means["ndcg@5"]
        assert found["valid", "test"] >= found["valid", None] == found["test", None] == found["test", "test"]
        cut_away = found["valid", "test"] - found["test", "test"]
        assert cut_away > 0.3 if protocol == "dgrm-paper" else cut_away == 0  # the code cuts no list
    whole = measured(Fixed(ratings, predicts_ratings=False), train, test, "dgrm-paper")
    config = EvaluationConfig(protocol="dgrm-paper", ks=(5,), select_by="ndcg@5", cut_lists="test")
    assert evaluate(low, ResidentInteractions(train), test, config, part="valid").means()["ndcg@5"] == pytest.approx(
        whole.means()["ndcg@5"]
    )


def test_one_order_for_both_lists_flatters_a_constant():
    """The trap of the published protocol: equal scores in the order of equal ratings."""
    train, test, _ = world()
    test = replace(test, values=test.values.clip(3, 4))  # nothing but likes, many of them equal
    constant = Fixed(torch.full((N_USERS, N_ITEMS), 3.5))
    shared, fair = (measured(constant, train, test, "dgrm-paper", ties=ties).means() for ties in ("index", None))
    assert shared["recall@5"] > fair["recall@5"] + 0.01
    again = measured(constant, train, test, "dgrm-paper").means()
    assert again == fair


def test_only_what_was_liked_is_to_be_found_in_the_catalogue():
    train, test, ratings = world()
    masked = ratings.clone()
    rows = np.repeat(np.arange(N_USERS), test.lengths())
    seen = torch.zeros_like(ratings, dtype=torch.bool)
    seen[rows, test.indices.astype(np.int64)] = True
    masked[~seen] = 0
    config = EvaluationConfig(ks=(5,), names=("recall",), select_by="recall@5", relevant_rating=5.0)
    found = evaluate(Fixed(masked, False), ResidentInteractions(train), test, config, part="test")
    assert found.users.tolist() == np.flatnonzero(test.rated_at_least(5).lengths()).tolist()
    assert found.means()["recall@5"] > 0.99 and not found.ratings


@given(seed=st.integers(0, 10_000), k=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_lists_are_those_of_sorting_user_by_user(seed, k):
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.integers(0, 5, 30))
    # all different, so that there is one answer
    ratings, scores = (rng.permutation(30).astype(np.float32) for _ in range(2))
    passing = rng.random(30) < 0.7
    hits, counts = hits_among(RatedEntries(rows, ratings, scores, passing, 5), k, 10.0, rng)
    for user in range(5):
        own = np.flatnonzero(rows == user)
        best = sorted((e for e in own if ratings[e] >= 10), key=lambda e: -ratings[e])[:k]
        listed = sorted((e for e in own if passing[e]), key=lambda e: -scores[e])[:k]
        expected = [e in best for e in listed] + [False] * (k - len(listed))
        assert hits[user].tolist() == expected and counts[user] == len(best)


def report_of(predicted, train, test):
    config = EvaluationConfig(protocol="dgrm-paper", ks=(5,), select_by="ndcg@5")
    return evaluate(
        Fixed(predicted), ResidentInteractions(train), test, config, part="test", distributions=True
    ).ratings


def test_the_report_tells_a_lost_mode_and_users_of_one_rating():
    train, test, ratings = world()
    good = report_of(ratings + 0.1, train, test)
    extremes = report_of(torch.where(ratings >= 3, 5.0, 1.0), train, test)
    flat = report_of(ratings.mean(1, keepdim=True).expand_as(ratings), train, test)
    assert good["rating_bins"] == 5 and good["rating_kl"] < 1e-3 and good["ks_share_20"] == 1
    assert extremes["rating_bins"] == 2 and extremes["rating_kl"] > 100 * max(good["rating_kl"], 0.01)
    assert flat["rating_deviation"] < 1e-4 < good["rating_deviation"]
    assert sum(good[f"rated_is_{r}"] for r in range(1, 6)) == pytest.approx(1)
    assert sum(good[f"unrated_is_{r}"] for r in range(1, 6)) == pytest.approx(1)
    assert extremes["unrated_is_3"] == 0


def test_distances_are_those_of_their_definitions():
    train, test, ratings = world()
    predicted = ratings.roll(1, 1).clamp(2, 4)
    told = report_of(predicted, train, test)
    rows = np.repeat(np.arange(N_USERS), test.lengths())
    guess, true = predicted[rows, test.indices.astype(np.int64)].numpy(), np.asarray(test.values)
    p, q = (np.bincount(v.astype(int), minlength=6)[1:] / len(true) + 1e-6 for v in (true, guess))
    p, q = p / p.sum(), q / q.sum()
    assert told["rating_kl"] == pytest.approx((p * np.log(p / q)).sum())
    assert told["rating_w1"] == pytest.approx(np.abs(np.sort(true) - np.sort(guess)).mean(), abs=1e-3)
    assert told["mae"] == pytest.approx(np.abs(true - guess).mean())
    chances = [ks_2samp(guess[rows == u], true[rows == u], method="asymp").pvalue for u in np.unique(rows)]
    for level in (1, 5, 10, 20):
        assert told[f"ks_share_{level}"] == pytest.approx(np.mean(np.array(chances) >= level / 100))


def test_the_report_reads_the_scale_from_the_ratings():
    report = RatingReport(np.array([0.5, 4.5], np.float32))
    assert (report.low, report.high) == (1, 5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"protocol": "dgrm-code", "names": ("novelty",)}, "speaks of the catalogue"),
        ({"ties": "random"}, "rank rated items alone"),
    ],
)
def test_measures_that_a_protocol_does_not_have_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        EvaluationConfig(**options)
