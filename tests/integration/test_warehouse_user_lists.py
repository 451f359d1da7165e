"""Benchmarks' own files as sources: a user and their items a line, and as many items as a file of vectors has rows."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse import UnreadableSourceError, read_source, source_fingerprint

rows = st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(0, 99), max_size=5)), min_size=1, max_size=6)


@settings(max_examples=20)
@given(
    parts=st.fixed_dictionaries({"train": rows, "valid": rows, "test": rows}).filter(
        lambda parts: any(items for lines in parts.values() for _, items in lines)
    ),
    gap=st.sampled_from([" ", "  ", "\t"]),
    end=st.sampled_from(["\n", " \n", "\r\n", "\n\n"]),
)
def test_every_pair_is_read_once_with_the_part_its_file_is_named_after(tmp_path_factory, parts, gap, end):
    folder = tmp_path_factory.mktemp("lists")
    for part, lines in parts.items():
        text = "".join(gap.join(map(str, (user, *items))) + end for user, items in lines)
        (folder / f"{part}.txt").write_bytes(text.encode())
    got = [tuple(row.values()) for row in read_source("*.txt", directory=folder).to_pylist()]
    in_order = ("test", "train", "valid")
    assert got == [(str(user), str(item), part) for part in in_order for user, items in parts[part] for item in items]


def test_parts_are_told_by_words_of_the_name_in_any_case_and_packed_files_are_read(tmp_path):
    for name, line in (("baby_Train.txt", "0 1"), ("baby-val.txt", "0 2"), ("TESTING.txt", "0 9")):
        (tmp_path / name).write_text(line, encoding="utf-8")
    (tmp_path / "test.txt.gz").write_bytes(gzip.compress(b"0 3\n"))
    named = ["baby_Train.txt", "baby-val.txt", "test.txt.gz"]
    parts = [(row["item_id"], row["split"]) for row in read_source(named, directory=tmp_path).to_pylist()]
    assert parts == [("1", "train"), ("2", "valid"), ("3", "test")]
    before = source_fingerprint(named, directory=tmp_path)
    (tmp_path / "baby-val.txt").write_text("0 4", encoding="utf-8")
    assert source_fingerprint(named, directory=tmp_path) != before
    with pytest.raises(UnreadableSourceError, match=r"TESTING\.txt .*train\.txt, valid\.txt or test\.txt"):
        read_source("TESTING.txt", directory=tmp_path)


@pytest.mark.parametrize("bad", ["0 1\n1 x\n", "0 1\n-1 2\n", "0 1\n0 1.5\n", "0 1\n0,2\n"])
def test_a_line_that_is_no_list_is_named(tmp_path, bad):
    (tmp_path / "train.txt").write_text("7 8\n", encoding="utf-8")
    (tmp_path / "test.txt").write_text(bad, encoding="utf-8")
    with pytest.raises(UnreadableSourceError, match=r"test\.txt cannot be read: line 2 is '.*', expected a user and"):
        read_source("*.txt", directory=tmp_path)


def test_a_file_of_vectors_says_how_many_items_there_are(tmp_path):
    np.save(tmp_path / "f.npy", np.zeros((11, 3), np.float32))
    assert read_source("f.npy", kind="items", directory=tmp_path)["item_id"].to_pylist() == [str(n) for n in range(11)]
    assert read_source("f.npy", kind="users", directory=tmp_path)["user_id"].to_pylist()[-1] == "10"


@pytest.mark.parametrize(
    ("kind", "name", "sentence"),
    [
        ("interactions", "f.npy", "nothing of who took what"),
        ("items", "train.txt", "hold interactions"),
        ("items", "torn.npy", "no array of numbers"),
        ("items", "*.npy", "rows of several files"),
    ],
)
def test_what_such_a_file_cannot_say_is_not_asked_of_it(tmp_path: Path, kind, name, sentence):
    np.save(tmp_path / "f.npy", np.zeros((2, 3)))
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY torn")
    (tmp_path / "train.txt").write_text("0 1", encoding="utf-8")
    with pytest.raises(UnreadableSourceError, match=sentence):
        read_source(name, kind=kind, directory=tmp_path)
