"""Laws of embedding replies and of how texts are grouped into calls."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from providers import OpenAIEmbeddingsConfig
from providers.embedding_calls import MOST_TOKENS_A_CALL, estimated_tokens, grouped, shown
from providers.embedding_reply import read_vectors

NUMBERS = st.floats(width=32)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def written(vector: list[float], as_numbers: bool) -> Any:
    return vector if as_numbers else base64.b64encode(np.array(vector, "<f4").tobytes()).decode()


@given(st.data())
def test_every_row_is_a_unit_vector_of_its_own_text_or_nan_whatever_the_order(data):
    width = data.draw(st.integers(1, 5))
    vectors = data.draw(st.lists(st.lists(NUMBERS, min_size=width, max_size=width), min_size=1, max_size=6))
    as_numbers = data.draw(st.booleans())
    entries = [{"index": place, "embedding": written(vector, as_numbers)} for place, vector in enumerate(vectors)]
    body = json.dumps({"data": data.draw(st.permutations(entries))}).encode()
    envelope = read_vectors(body, len(vectors))
    assert envelope.vectors is not None and envelope.vectors.shape == (len(vectors), width)
    for row, vector in zip(envelope.vectors, vectors, strict=True):
        exact = np.array(vector, np.float32).astype(np.float64)
        if np.isfinite(exact).all() and np.linalg.norm(exact) > 1e-150:
            assert abs(np.linalg.norm(row) - 1) < 1e-3
            assert np.allclose(row, exact / np.linalg.norm(exact), atol=1e-6)
        else:
            assert np.isnan(row).all()


@given(JSON | st.fixed_dictionaries({"data": st.lists(st.fixed_dictionaries({"index": JSON, "embedding": JSON}))}))
def test_no_document_makes_the_reader_raise_or_give_a_row_that_is_neither_unit_nor_nan(document):
    for n_texts in (None, 1, 2):
        vectors = read_vectors(json.dumps(document).encode(), n_texts).vectors
        if vectors is not None and vectors.size:
            lengths = np.linalg.norm(vectors, axis=1)
            assert (np.isnan(vectors).all(axis=1) | (np.abs(lengths - 1) < 1e-3)).all()


@given(st.binary(max_size=200), st.integers(1, 3))
def test_no_bytes_make_the_reader_raise(body, n_texts):
    assert read_vectors(body, n_texts).error_code is not None


@given(st.lists(st.integers(1, 400_000), max_size=40), st.integers(1, 9))
def test_groups_hold_every_row_once_in_order_and_keep_both_limits(lengths, texts_per_call):
    texts = ["x" * length for length in lengths]
    groups = grouped(range(len(texts)), texts, texts_per_call)
    assert [row for group in groups for row in group] == list(range(len(texts)))
    for group in groups:
        assert 1 <= len(group) <= texts_per_call
        assert len(group) == 1 or sum(estimated_tokens(texts[row]) for row in group) <= MOST_TOKENS_A_CALL


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=60), st.integers(1, 30))
def test_what_is_shown_is_the_beginning_and_within_the_limit(text, max_tokens):
    cut = shown(text, max_tokens)
    assert text.startswith(cut) and estimated_tokens(cut) <= max_tokens
    assert cut == text or len(cut.encode()) > 3 * max_tokens - 4, "no more is cut than has to be"


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4), st.sampled_from([None, 8, 9]), st.text())
def test_a_request_is_named_by_model_length_and_texts_in_their_order(texts, dimensions, other):
    def key(texts: list[str], **settings: Any) -> str:
        return OpenAIEmbeddingsConfig(**{"dimensions": dimensions, **settings}).request(texts).key

    assert key(texts) == key(list(texts), base_url="http://localhost:1/v1", texts_per_call=3, concurrency=2)
    assert key(texts) != key([*texts, other]) and key(texts) != key(texts, model="other")
    assert key(texts) != key(texts, dimensions=10)
    assert (key(texts) == key(texts[::-1])) == (texts == texts[::-1])
