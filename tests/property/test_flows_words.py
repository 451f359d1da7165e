"""Words of items against an independent count: which are kept, and what they weigh."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flows.settings import WordSettings
from flows.split_errors import EmptyVocabularyError
from flows.steps.words import weigh_words

WORDS = st.sampled_from(["moon", "sun", "star", "comet", "the", "of", "x", "Moon", "süß"])
TEXTS = st.lists(st.lists(WORDS, max_size=8).map(" ".join), min_size=1, max_size=12)
STOPPED = {"the", "of", "x"}  # one letter is no word


def counted(texts):
    return [Counter(word for word in text.lower().split() if word not in STOPPED) for text in texts]


@given(TEXTS, st.integers(1, 3), st.sampled_from([0.5, 1.0]), st.integers(1, 4))
def test_what_is_kept_and_what_it_weighs_is_what_the_formula_says(texts, min_count, max_share, size):
    settings = WordSettings(min_count=min_count, max_share=max_share, vocabulary=size)
    rows = counted(texts)
    total, spread = Counter(), Counter()
    for row in rows:
        total.update(row)
        spread.update(row.keys())
    allowed = [word for word in total if total[word] >= min_count and spread[word] < max_share * len(texts)]
    expected = sorted(sorted(allowed, key=lambda word: (-total[word], word))[:size])
    if not expected:
        with pytest.raises(EmptyVocabularyError):
            weigh_words(texts, settings)
        return
    found = weigh_words(texts, settings)
    assert list(found.vocabulary) == expected
    dense = np.zeros(found.words.shape)
    for row in range(len(texts)):
        inside = slice(found.words.indptr[row], found.words.indptr[row + 1])
        assert (np.diff(found.words.indices[inside]) > 0).all()
        dense[row, found.words.indices[inside]] = found.words.values[inside]
    for row, counts in enumerate(rows):
        weights = [counts[word] * (math.log((1 + len(texts)) / (1 + spread[word])) + 1) for word in expected]
        length = math.hypot(*weights) or 1
        assert dense[row] == pytest.approx([weight / length for weight in weights], abs=1e-6)


@given(TEXTS, st.randoms(use_true_random=False))
def test_the_order_of_the_items_orders_the_rows_and_nothing_else(texts, chance):
    settings = WordSettings(min_count=1, max_share=1.0, stop_words="none")
    order = list(range(len(texts)))
    chance.shuffle(order)
    try:
        straight = weigh_words(texts, settings)
    except EmptyVocabularyError:
        assume(False)
        return
    shuffled = weigh_words([texts[row] for row in order], settings)
    assert shuffled.vocabulary == straight.vocabulary
    for place, row in enumerate(order):
        ours, theirs = (
            found.words.values[found.words.indptr[at] : found.words.indptr[at + 1]]
            for found, at in ((shuffled, place), (straight, row))
        )
        assert ours.tolist() == theirs.tolist()
