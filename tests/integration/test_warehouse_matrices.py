"""Semantic matrices: built once, mapped by everybody, built again when their bytes rot."""

import os
import subprocess
import sys

import numpy as np
import pytest

from warehouse import MatrixError, UnsafePathError, Warehouse

VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)
MASK = np.array([True, True, False, True])


@pytest.fixture
def warehouse(tmp_path):
    return Warehouse(tmp_path)


def test_a_matrix_is_built_once_and_mapped_without_a_copy(warehouse):
    built = []
    for _ in range(3):
        paths = warehouse.matrix("k1", lambda: built.append(1) or (VALUES, MASK))
    values, mask = paths.open()
    assert built == [1]
    assert isinstance(values, np.memmap)
    np.testing.assert_array_equal(values, VALUES)
    np.testing.assert_array_equal(mask, MASK)
    with pytest.raises(ValueError, match="read-only"):
        values[0, 0] = 1


def test_fortran_order_is_stored_as_rows(warehouse):
    paths = warehouse.matrix("k", lambda: (np.asfortranarray(VALUES), MASK))
    assert paths.open()[0].flags.c_contiguous


def test_a_rotten_or_cut_matrix_is_built_again(warehouse):
    paths = warehouse.matrix("k", lambda: (VALUES, MASK))
    content = bytearray(paths.values.read_bytes())
    content[-1] ^= 1
    paths.values.write_bytes(content)
    np.testing.assert_array_equal(warehouse.matrix("k", lambda: (VALUES, MASK)).open()[0], VALUES)
    os.truncate(paths.mask, 10)
    np.testing.assert_array_equal(warehouse.matrix("k", lambda: (VALUES, MASK)).open()[1], MASK)


def test_a_build_that_fails_leaves_no_matrix(warehouse):
    def fails():
        raise RuntimeError("out of text")

    with pytest.raises(RuntimeError):
        warehouse.matrix("k", fails)
    assert warehouse.matrix("k", lambda: (VALUES, MASK)).open()[0].shape == (4, 3)


@pytest.mark.parametrize(
    ("values", "mask", "sentence"),
    [
        (VALUES.astype(int), MASK, "expected floats"),
        (VALUES[0], MASK, "expected floats"),
        (VALUES, MASK[:2], r"expected bool \(4,\)"),
        (VALUES, MASK.astype(int), "expected bool"),
        (np.where(VALUES == 5, np.nan, VALUES), MASK, "not finite"),
        (np.where(VALUES == 5, np.inf, VALUES), MASK, "not finite"),
    ],
)
def test_what_is_no_matrix_is_refused(warehouse, values, mask, sentence):
    with pytest.raises(MatrixError, match=sentence):
        warehouse.matrix("k", lambda: (values, mask))
    assert not (warehouse.root / "matrices" / "k.npy").exists()


def test_a_key_is_a_plain_name(warehouse):
    with pytest.raises(UnsafePathError):
        warehouse.matrix("../k", lambda: (VALUES, MASK))


def test_two_processes_that_ask_at_once_build_it_once(warehouse, tmp_path):
    code = """
import sys, time, numpy as np
from pathlib import Path
from warehouse import Warehouse
root = Path(sys.argv[1])
def build():
    with open(root / "built", "a") as note:
        note.write("x")
    time.sleep(0.5)
    return np.ones((2, 2), np.float32), np.ones(2, bool)
Warehouse(root).matrix("k", build).open()
"""
    workers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert (tmp_path / "built").read_text() == "x"
