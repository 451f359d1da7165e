"""Arrays that follow from others are made once of the same numbers and never believed when they rotted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rec_models.derived import DerivedArrays

ITEMS = torch.arange(12, dtype=torch.float32).reshape(4, 3)
PRESENT = torch.tensor([True, False, True, True])


class Made:
    """Counts how often it was asked."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, torch.Tensor]:
        self.times += 1
        return {"near": torch.arange(6).reshape(2, 3), "weights": torch.full((2, 3), 0.1)}


def test_the_same_numbers_under_the_same_options_are_made_of_once_by_whoever_asks_first(tmp_path):
    made = Made()
    first = DerivedArrays(tmp_path / "new").get("knn 1", [ITEMS, PRESENT], {"k": 3}, made)
    # as a slice of something else, which lies elsewhere in memory
    again = torch.stack([ITEMS, -ITEMS], dim=1)[:, 0]
    second = DerivedArrays(tmp_path / "new").get("knn 1", [again, PRESENT.clone()], {"k": 3}, made)
    assert made.times == 1
    for name, tensor in made().items():
        assert torch.equal(first[name], tensor) and torch.equal(second[name], tensor)
        assert second[name].dtype == tensor.dtype


@pytest.mark.parametrize(
    ("what", "of", "options"),
    [
        ("knn 2", [ITEMS, PRESENT], {"k": 3}),
        ("knn 1", [ITEMS + 1e-6, PRESENT], {"k": 3}),
        ("knn 1", [ITEMS, ~PRESENT], {"k": 3}),
        ("knn 1", [ITEMS.reshape(3, 4), PRESENT], {"k": 3}),
        ("knn 1", [ITEMS.view(torch.int32), PRESENT], {"k": 3}),
        ("knn 1", [PRESENT, ITEMS], {"k": 3}),
        ("knn 1", [ITEMS], {"k": 3}),
        ("knn 1", [ITEMS, PRESENT], {"k": 4}),
    ],
)
def test_other_numbers_other_options_and_other_code_are_made_anew(tmp_path, what, of, options):
    made, derived = Made(), DerivedArrays(tmp_path)
    derived.get("knn 1", [ITEMS, PRESENT], {"k": 3}, made)
    derived.get(what, of, options, made)
    assert made.times == 2


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_content_like_any_other(tmp_path, kind):
    made, derived = Made(), DerivedArrays(tmp_path)
    for vectors in (ITEMS.to(kind), ITEMS.to(kind), ITEMS.to(kind)[:0]):
        derived.get("knn 1", [vectors], {}, made)
    assert made.times == 2


def test_without_a_folder_everything_is_made(tmp_path):
    made = Made()
    for _ in range(2):
        assert torch.equal(DerivedArrays().get("knn 1", [ITEMS], {}, made)["near"], torch.arange(6).reshape(2, 3))
    assert made.times == 2


def test_every_bit_that_flips_is_noticed_and_the_arrays_are_made_again(tmp_path):
    made, rng = Made(), np.random.default_rng(8)
    print("seed 8")
    derived = DerivedArrays(tmp_path)
    expected = derived.get("knn 1", [ITEMS], {}, made)
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    for place in rng.choice(len(whole), 60, replace=False):
        torn = bytearray(whole)
        torn[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(torn))
        for name, tensor in derived.get("knn 1", [ITEMS], {}, made).items():
            assert torch.equal(tensor, expected[name]), place
    path.write_bytes(whole[: len(whole) // 2])
    assert derived.get("knn 1", [ITEMS], {}, made).keys() == expected.keys()
    assert path.read_bytes() == whole and [path] == list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_costs_no_result(tmp_path):
    made = Made()
    (tmp_path / "file").touch()
    found = DerivedArrays(tmp_path / "file" / "below").get("knn 1", [ITEMS], {}, made)
    assert made.times == 1 and set(found) == {"near", "weights"}


@settings(max_examples=20)
@given(
    array=st.sampled_from([np.int64, np.float32, np.bool_, np.float16]).flatmap(
        lambda kind: arrays.arrays(kind, arrays.array_shapes(max_dims=3, min_side=0))
    )
)
def test_what_is_kept_comes_back_bit_for_bit(tmp_path_factory, array):
    folder: Path = tmp_path_factory.mktemp("derived")
    derived = DerivedArrays(folder)
    for _ in range(2):
        back = derived.get("x", [ITEMS], {}, lambda: {"x": torch.from_numpy(array)})["x"].numpy()
        assert back.dtype == array.dtype and back.shape == array.shape and back.tobytes() == array.tobytes()
