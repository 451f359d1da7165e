"""Laws of joining vectors by id, and of the names under which models read them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.model_choices import expand
from flows.settings import Settings
from flows.steps.modalities import modalities_of, others_of
from warehouse import VectorFileError, read_vectors
from warehouse.vector_files import read_ids

names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name != "none")
ids = st.lists(st.from_regex(r"[A-Za-z0-9:=_]{1,6}", fullmatch=True), min_size=1, max_size=12)


@settings(max_examples=30)
@given(present=st.lists(st.booleans(), min_size=1, max_size=12).filter(any), seed=st.integers(0, 99))
def test_row_n_belongs_to_id_n_and_a_row_of_zeros_to_nobody(tmp_path_factory, present, seed):
    drawn = np.random.default_rng(seed).normal(size=(len(present), 3)) + 0.01
    values = np.where(np.array(present)[:, None], drawn, 0)
    path = tmp_path_factory.mktemp("rows") / "v.npy"
    np.save(path, values)
    named = read_vectors(path, "rows")
    assert named.ids == [str(row) for row, there in enumerate(present) if there]
    assert named.empty == present.count(False)
    lengths = np.linalg.norm(drawn, axis=1, keepdims=True)
    np.testing.assert_allclose(named.values, (drawn / lengths)[np.array(present)], atol=1e-6)


@settings(max_examples=30)
@given(named=ids, data=st.data(), delimiter=st.sampled_from([",", "\t", ";"]), first=st.booleans())
def test_a_column_of_rows_names_them_in_any_order(tmp_path_factory, named, data, delimiter, first):
    lines = [(str(row), name) for row, name in enumerate(named)]
    lines = [("row", "item_id"), *data.draw(st.permutations(lines))]
    path = tmp_path_factory.mktemp("ids") / "ids.csv"
    path.write_text("".join(delimiter.join(line if first else line[::-1]) + "\n" for line in lines), encoding="utf-8")
    assert read_ids(path) == named


@pytest.mark.parametrize("rows", ["0,a\n2,b\n", "0,a\n0,b\n", "1,a\n2,b\n", "x,a\n"])
def test_a_row_that_is_named_twice_or_never_is_refused(tmp_path, rows):
    (tmp_path / "ids.csv").write_text("row,item_id\n" + rows, encoding="utf-8")
    with pytest.raises(VectorFileError, match="its ids cannot be read"):
        read_ids(tmp_path / "ids.csv")


@given(st.lists(st.lists(names, max_size=3), min_size=1, max_size=3))
def test_a_label_means_the_modalities_it_was_made_of(asked):
    spec = "dmrec@modalities=" + "|".join("+".join(several) or "none" for several in asked)
    choices = expand(spec, Settings())
    assert [choice.mapping["modalities"] for choice in choices] == asked
    for choice, several in zip(choices, asked, strict=True):
        assert [again.mapping for again in expand(choice.label, Settings())] == [choice.mapping]
        assert modalities_of(choice.mapping) == tuple(dict.fromkeys(several))
        assert others_of(choice.mapping) == tuple(name for name in dict.fromkeys(several) if name != "profiles")


@pytest.mark.parametrize("mapping", [{}, {"modalities": "image"}, {"modalities": [1]}, {"base": {"dim": 2}}])
def test_a_model_without_names_of_its_own_reads_the_profiles(mapping):
    assert modalities_of(mapping) == ("profiles",)


def test_a_model_on_a_base_reads_what_its_base_reads():
    assert modalities_of({"name": "x", "base": {"name": "y", "modalities": ["image"]}}) == ("image",)
