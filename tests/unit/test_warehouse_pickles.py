"""A pickle of vectors is read, a pickle that is a program is not, and nothing in either is ever run."""

from __future__ import annotations

import collections
import functools
import operator
import os
import pickle
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from warehouse import UnsafePickleError
from warehouse.pickles import read_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
VALUES = np.random.default_rng(0).normal(size=(5, 3))


def stored(folder: Path, content: bytes) -> Path:
    path = folder / "some.pkl"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", "<i8", "|u1"])
def test_arrays_of_numbers_come_back_bit_for_bit(tmp_path, protocol, dtype):
    for array in (VALUES.astype(dtype), np.asfortranarray(VALUES.astype(dtype)), VALUES.astype(dtype)[::2, 1:]):
        found = read_pickle(stored(tmp_path, pickle.dumps(array, protocol=protocol)))
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_profiles_and_vectors_by_id_come_back_as_plain_values(tmp_path, protocol):
    profiles = {
        0: {"profile": "likes calm games", "reasoning": "…"},
        1: {"profile": "p" * 300, "scores": [1, 2.5, None]},
    }
    assert read_pickle(stored(tmp_path, pickle.dumps(profiles, protocol=protocol))) == profiles
    by_id = collections.OrderedDict((np.int64(n), row) for n, row in enumerate(VALUES))
    found = read_pickle(stored(tmp_path, pickle.dumps(dict(by_id), protocol=protocol)))
    np.testing.assert_array_equal(np.stack(list(found.values())), VALUES)


def test_the_module_names_of_numpy_1_are_known(tmp_path):
    content = pickle.dumps(VALUES, protocol=2).replace(b"numpy._core.", b"numpy.core.")
    np.testing.assert_array_equal(read_pickle(stored(tmp_path, content)), VALUES)


class Calls:
    """Pickles as a call of something with arguments."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("depth", [0, 1])
def test_a_program_is_refused_by_name_and_never_run(tmp_path, protocol, depth):
    canary = tmp_path / "canary"
    programs = [
        Calls(os.system, f"touch {canary}"),
        Calls(eval, f"open({str(canary)!r}, 'w')"),
        Calls(exec, f"open({str(canary)!r}, 'w')"),
        Calls(open, str(canary), "w"),
        Calls(getattr, "x", "__class__"),
        Calls(functools.partial, os.mkdir, str(canary)),
        Calls(operator.attrgetter, "__class__"),
        Calls(np.load, str(canary)),
        Calls(np.memmap, str(canary), "uint8", "w+", 0, (8,)),
        Calls(bytearray, 1 << 40),
        Path("x"),
        ValueError("x"),
    ]
    for program in programs:
        content = pickle.dumps({"0": [program]} if depth else program, protocol=protocol)
        with pytest.raises(UnsafePickleError, match=r"it names|it uses the operation") as caught:
            read_pickle(stored(tmp_path, content))
        assert caught.value.exit_code == 6
        assert not canary.exists()


def test_arrays_that_are_more_than_numbers_are_refused(tmp_path):
    for array in (
        np.array([{"a": 1}, None], dtype=object),
        np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]),
        np.array(["text"]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.zeros((1, 1, 1)),
        np.zeros(2, dtype="c16"),
    ):
        with pytest.raises(UnsafePickleError, match="array"):
            read_pickle(stored(tmp_path, pickle.dumps(array, protocol=4)))


def tower(levels: int, width: int) -> bytes:
    """A key that is a tuple of `width` times the same tuple of `width` times the same … `levels` high."""
    steps = b"".join(
        b"(" + b"h" + bytes([n]) + (b"h" + bytes([n])) * (width - 1) + b"tq" + bytes([n + 1]) for n in range(levels)
    )
    return b"\x80\x02}(K\x01q\x00" + steps + b"K\x01u."


BOMBS = {
    "a memo slot far away": b"\x80\x04]r\xff\xff\xff\x7f.",
    "bytes that are not there": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "a text that is not there": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
    "a frame that is not there": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
    "a hundred thousand lists in one another": b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a hundred thousand tuples in one another": b"\x80\x04})" + b"\x85" * 100_000 + b"Ns.",
    "a list in itself": b"\x80\x04]\x94h\x00a.",
    "names that are changed": b"\x80\x04cnumpy\ndtype\n}(X\x04\x00\x00\x00callK\x01ub.",
    "a persistent id": b"Pone\n.",
    "an object made without its constructor": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "an extension": b"\x80\x02\x82\x01.",
    "a number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "nothing": b"",
    "no end": b"\x80\x04]",
    "a mark at the end": b"(.",
    "too little on the stack": b"\x80\x04a.",
    "a memo slot nobody filled": b"\x80\x04h\x07.",
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS.keys())
def test_what_is_small_in_the_file_and_large_in_memory_is_refused(tmp_path, content):
    with pytest.raises(UnsafePickleError):
        read_pickle(stored(tmp_path, content))


def test_a_tower_of_one_tuple_is_refused_before_it_is_hashed(tmp_path):
    with pytest.raises(UnsafePickleError, match=r"nested|parts"):
        read_pickle(stored(tmp_path, tower(levels=7, width=200)))


def test_an_array_whose_length_is_not_its_shape_is_refused(tmp_path):
    content = pickle.dumps(VALUES, protocol=2)
    assert content.count(b"K\x05K\x03\x86") == 1
    for shape in (b"K\x06K\x03\x86", b"K\x05K\xff\x86", b"K\x00K\x03\x86"):
        with pytest.raises(UnsafePickleError, match="bytes whose shape needs"):
            read_pickle(stored(tmp_path, content.replace(b"K\x05K\x03\x86", shape)))


def test_a_file_larger_than_the_limit_is_not_opened(tmp_path):
    with pytest.raises(UnsafePickleError, match="at most 10 are read"):
        read_pickle(stored(tmp_path, pickle.dumps(VALUES)), max_bytes=10)


@pytest.mark.parametrize("seed", range(2))
def test_a_pickle_with_bytes_exchanged_is_read_or_refused_and_nothing_else(tmp_path, seed):
    print(f"seed {seed}")
    rng = random.Random(seed)
    said = {n: {"profile": f"profile {n}", "vector": VALUES[n]} for n in range(5)}
    wholes = [pickle.dumps(value, protocol=protocol) for protocol in PROTOCOLS for value in (VALUES, said)]
    for _ in range(400):
        content = bytearray(rng.choice(wholes))
        for _ in range(rng.randint(1, 3)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        try:
            found = read_pickle(stored(tmp_path, bytes(content)))
        except UnsafePickleError:
            continue
        assert isinstance(found, np.ndarray | dict | list | str | bytes | int | float | None)
