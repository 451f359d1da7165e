"""Arrays that follow from others are made once for each content and never believed when they rotted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rec_models.derived import DerivedArrays

CONTENTS = {"train": "t", "items": "a", "items_image": "b"}


class Made:
    """Counts how often it was asked."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, torch.Tensor]:
        self.times += 1
        return {"near": torch.arange(6).reshape(2, 3), "weights": torch.full((2, 3), 0.1)}


def test_the_same_content_under_the_same_options_is_made_once_by_whoever_asks_first(tmp_path):
    made = Made()
    first = DerivedArrays(tmp_path / "new", CONTENTS).get("knn 1", ["items"], {"k": 3}, made)
    second = DerivedArrays(tmp_path / "new", dict(CONTENTS)).get("knn 1", ["items"], {"k": 3}, made)
    assert made.times == 1
    for name, tensor in made().items():
        assert torch.equal(first[name], tensor) and torch.equal(second[name], tensor)
        assert second[name].dtype == tensor.dtype


@pytest.mark.parametrize(
    ("what", "of", "options", "contents"),
    [
        ("knn 2", ["items"], {"k": 3}, CONTENTS),
        ("knn 1", ["items_image"], {"k": 3}, CONTENTS),
        ("knn 1", ["items", "train"], {"k": 3}, CONTENTS),
        ("knn 1", ["items"], {"k": 4}, CONTENTS),
        ("knn 1", ["items"], {"k": 3}, CONTENTS | {"items": "changed"}),
    ],
)
def test_other_content_other_options_and_other_code_are_made_anew(tmp_path, what, of, options, contents):
    made = Made()
    DerivedArrays(tmp_path, CONTENTS).get("knn 1", ["items"], {"k": 3}, made)
    DerivedArrays(tmp_path, contents).get(what, of, options, made)
    assert made.times == 2


def test_content_that_is_not_read_changes_nothing(tmp_path):
    made = Made()
    DerivedArrays(tmp_path, CONTENTS).get("knn 1", ["items"], {"k": 3}, made)
    DerivedArrays(tmp_path, CONTENTS | {"items_image": "changed"}).get("knn 1", ["items"], {"k": 3}, made)
    assert made.times == 1


def test_without_a_folder_or_a_known_content_everything_is_made(tmp_path):
    made = Made()
    for derived, name in ((DerivedArrays(), "items"), (DerivedArrays(tmp_path, {}), "items")):
        assert torch.equal(derived.get("knn 1", [name], {}, made)["near"], made()["near"])
    assert not list(tmp_path.iterdir())


def test_every_bit_that_flips_is_noticed_and_the_arrays_are_made_again(tmp_path):
    made, rng = Made(), np.random.default_rng(8)
    print("seed 8")
    derived = DerivedArrays(tmp_path, CONTENTS)
    expected = derived.get("knn 1", ["items"], {}, made)
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    for place in rng.choice(len(whole), 60, replace=False):
        torn = bytearray(whole)
        torn[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(torn))
        for name, tensor in derived.get("knn 1", ["items"], {}, made).items():
            assert torch.equal(tensor, expected[name]), place
    path.write_bytes(whole[: len(whole) // 2])
    assert derived.get("knn 1", ["items"], {}, made).keys() == expected.keys()
    assert path.read_bytes() == whole and [path] == list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_costs_no_result(tmp_path):
    made = Made()
    (tmp_path / "file").touch()
    found = DerivedArrays(tmp_path / "file" / "below", CONTENTS).get("knn 1", ["items"], {}, made)
    assert made.times == 1 and set(found) == {"near", "weights"}


@settings(max_examples=20)
@given(
    array=st.sampled_from([np.int64, np.float32, np.bool_, np.float16]).flatmap(
        lambda kind: arrays.arrays(kind, arrays.array_shapes(max_dims=3, min_side=0))
    )
)
def test_what_is_kept_comes_back_bit_for_bit(tmp_path_factory, array):
    folder: Path = tmp_path_factory.mktemp("derived")
    derived = DerivedArrays(folder, CONTENTS)
    for _ in range(2):
        back = derived.get("x", ["items"], {}, lambda: {"x": torch.from_numpy(array)})["x"].numpy()
        assert back.dtype == array.dtype and back.shape == array.shape and back.tobytes() == array.tobytes()
