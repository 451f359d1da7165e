"""Laws of nearest neighbours: equal to a full sort, whatever the chunks, the ties, the gaps and the type."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_models.neighbours import (
    Neighbours,
    as_graph,
    first_highest,
    nearest_neighbours,
    neighbour_matrix,
    normalised,
)

QUICK = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def by_sorting(vectors, present, k):
    """The definition: every cosine, a stable sort, no self, no absentees."""
    exact = vectors.double()
    lengths = exact.norm(dim=1, keepdim=True)
    heard = present & (lengths.squeeze(1) > 0)
    units = exact / lengths.clamp_min(1e-300)
    cosines = (units @ units.t()).mul(2**20).round() / 2**20  # equal in truth is equal here
    cosines.fill_diagonal_(-torch.inf)
    cosines[:, ~heard] = -torch.inf
    values, indices = cosines.sort(dim=1, descending=True, stable=True)
    missing = torch.isinf(values) | ~heard[:, None]
    indices, values = indices.masked_fill(missing, -1), values.masked_fill(missing, 0)
    short = max(0, k - len(vectors))
    pad = torch.nn.functional.pad
    return Neighbours(pad(indices[:, :k], (0, short), value=-1), pad(values[:, :k], (0, short)).float())


@QUICK
@given(seeds, st.integers(1, 40), st.sampled_from([None, 1, 7, 64]))
def test_neighbours_are_those_of_a_full_sort_even_where_many_are_equal(seed, k, chunk):
    print("seed", seed)
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 150))
    # signs of few letters: every row has twins, and cosines take five values, all exact in float32
    vectors = torch.from_numpy(rng.choice([-1.0, 1.0], (n, 4)).astype(np.float32)) * int(rng.integers(1, 9))
    present = torch.from_numpy(rng.random(n) < 0.8)
    vectors[torch.from_numpy(rng.random(n) < 0.1)] = 0
    found, expected = nearest_neighbours(vectors, present, k, chunk=chunk), by_sorting(vectors, present, k)
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.cosines, expected.cosines, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_several_tiles_and_chunks_of_real_width_agree_with_a_full_sort(dtype):
    drawn = torch.randn(2100, 96, generator=torch.Generator().manual_seed(3)).to(dtype)
    drawn[1500:1600] = drawn[:100]  # copies far apart, in other tiles
    present = torch.rand(2100, generator=torch.Generator().manual_seed(4)) < 0.97
    found, expected = nearest_neighbours(drawn, present, 20), by_sorting(drawn, present, 20)
    torch.testing.assert_close(found.cosines, expected.cosines, atol=3e-6, rtol=0)
    assert (found.indices == expected.indices).float().mean() > 0.999  # a rounding may swap two
    assert found.indices.dtype == torch.int64
    assert torch.equal(found.indices < 0, expected.indices < 0)
    for chunk in (100, 5000):
        assert torch.equal(nearest_neighbours(drawn, present, 20, chunk=chunk).indices, found.indices)


@QUICK
@given(seeds)
def test_copies_of_one_vector_come_in_order_however_many_there_are(seed):
    print("seed", seed)
    rng = np.random.default_rng(seed)
    few = torch.from_numpy(rng.standard_normal((3, 48)).astype(np.float32))
    vectors = few[torch.from_numpy(rng.integers(0, 3, 400))]
    found, expected = (by(vectors, torch.ones(400, dtype=torch.bool), 9) for by in (nearest_neighbours, by_sorting))
    assert torch.equal(found.indices, expected.indices)


@QUICK
@given(seeds, st.integers(1, 9))
def test_the_first_highest_are_those_of_a_stable_sort(seed, k):
    print("seed", seed)
    values = torch.from_numpy(np.random.default_rng(seed).integers(0, 4, (6, 9)).astype(np.float32))
    assert torch.equal(first_highest(values, k), values.sort(dim=1, descending=True, stable=True).indices[:, :k])


def test_what_cannot_be_compared_is_refused_by_name():
    vectors, present = torch.ones(4, 2), torch.ones(4, dtype=torch.bool)
    with pytest.raises(ValueError, match="k = 0"):
        nearest_neighbours(vectors, present, 0)
    vectors[2, 1] = torch.nan
    with pytest.raises(ValueError, match="first in row 2"):
        nearest_neighbours(vectors, present, 2)
    present[2] = False  # what is not there cannot be wrong
    assert nearest_neighbours(vectors, present, 1).indices.squeeze(1).tolist() == [1, 0, -1, 0]


@QUICK
@given(seeds, st.booleans(), st.booleans())
def test_a_graph_of_neighbours_is_the_normalised_dense_one(seed, symmetric, weighted):
    print("seed", seed)
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 15))
    vectors = torch.from_numpy(rng.standard_normal((n, 5)).astype(np.float32))
    found = nearest_neighbours(vectors, torch.from_numpy(rng.random(n) < 0.8), 3)
    dense = np.zeros((n, n))
    for row, (indices, cosines) in enumerate(zip(found.indices.tolist(), found.cosines.tolist(), strict=True)):
        for column, cosine in zip(indices, cosines, strict=True):
            if column >= 0 and (cosine > 0 or not weighted):
                dense[row, column] = cosine if weighted else 1
    if symmetric:
        dense = np.maximum(dense, dense.T)
        assert np.array_equal(dense, dense.T)
    matrix = neighbour_matrix(found, symmetric=symmetric, weighted=weighted)
    np.testing.assert_allclose(matrix.toarray(), dense, rtol=1e-6)
    assert not matrix.diagonal().any()
    roots = np.sqrt(dense.sum(1))
    expected = np.divide(dense, roots[:, None] * roots, out=np.zeros_like(dense), where=roots[:, None] * roots > 0)
    table = rng.standard_normal((n, 4)).astype(np.float32)
    product = as_graph(normalised(matrix))(torch.from_numpy(table))
    np.testing.assert_allclose(product.numpy(), expected @ table, rtol=1e-5, atol=1e-6)
