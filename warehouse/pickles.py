"""The one place where a pickle is read: arrays of numbers and plain containers, and nothing in it is ever called.

RLMRec and its followers publish vectors and profiles as pickles, and a pickle is a program. Here its operations are
counted and judged before any of them runs; every name it asks for becomes a stand-in of this module that only records
what it was given; and NumPy sees no more than a block of bytes whose type, shape and length were checked.
"""

import pickle
import pickletools
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from warehouse.source_errors import UnsafePickleError

MAX_BYTES = 2 << 30
_MAX_OPERATIONS = 20_000_000
_MAX_DEPTH = 8
_NUMBERS = re.compile(r"f[248]|[iu][1248]")


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


# operations that put one plain value on the stack
_LEAVES = _names(
    "EMPTY_DICT EMPTY_LIST EMPTY_TUPLE EMPTY_SET NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT "
    "BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 GLOBAL"
)
_STORES = _names("PUT BINPUT LONG_BINPUT MEMOIZE")
_FETCHES = _names("GET BINGET LONG_BINGET")
_SILENT = _names("PROTO FRAME STOP")
# operation → (how many values it takes, None for all above the mark; whether they join the value below them)
_TAKES: dict[str, tuple[int | None, bool]] = {
    **{name: (None, False) for name in ("DICT", "LIST", "TUPLE", "FROZENSET")},
    **{name: (None, True) for name in ("APPENDS", "SETITEMS", "ADDITEMS")},
    **{f"TUPLE{n}": (n, False) for n in (1, 2, 3)},
    "APPEND": (1, True),
    "SETITEM": (2, True),
    "REDUCE": (1, True),
    "BUILD": (1, True),
    "STACK_GLOBAL": (2, False),
}
_LEAF = (0, 1)


def read_pickle(path: Path, max_bytes: int = MAX_BYTES) -> Any:
    """What a pickle holds: an array (n,) or (n, d) of numbers, or dicts, lists, texts and numbers around such arrays.

    Raises:
        UnsafePickleError: it names anything else, is too large, too deep or cut short; nothing of it was run.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise UnsafePickleError(str(path), f"it has {size:,} bytes, at most {max_bytes:,} are read")
    content = path.read_bytes()
    try:
        _judge(content)
        found = _Reader(BytesIO(content)).load()
        return _unwrapped(found)
    except _Refused as refused:
        raise UnsafePickleError(str(path), str(refused)) from refused
    except Exception as error:
        # a broken pickle may raise anything: none of it came from running what it names
        raise UnsafePickleError(str(path), f"it does not decode ({type(error).__name__}: {error})") from error


class _Refused(Exception):
    """Why a pickle is not read."""


def _judge(content: bytes) -> None:
    """Every operation is known, every length lies inside the file, nothing is deeper or larger than what is kept is.

    The operations are followed with a size in place of each value: (depth, parts). A tuple of tuples that are one and
    the same is small in the file, and hashing it as a key would take a year or all of the stack.
    """
    stack: list[tuple[int, int] | None] = []
    memo: dict[int, tuple[int, int]] = {}
    for count, (operation, argument, _) in enumerate(pickletools.genops(content), 1):
        name = operation.name
        if count > _MAX_OPERATIONS:
            raise _Refused(f"it has more than {_MAX_OPERATIONS:,} operations")
        if name in _STORES:
            place = len(memo) if argument is None else int(argument)
            if place > count:
                raise _Refused("it asks for memory that its content does not need")
            memo[place] = stack[-1] or _LEAF
        elif name in _FETCHES and argument is not None:
            stack.append(memo[int(argument)])
        elif name == "MARK":
            stack.append(None)
        elif name in _TAKES:
            _take(stack, *_TAKES[name])
        elif name in _LEAVES:
            stack.append(_LEAF)
        elif name not in _SILENT:
            raise _Refused(f"it uses the operation {name}, which data does not need")


def _take(stack: list[tuple[int, int] | None], n: int | None, joins: bool) -> None:
    """Takes `n` values off the stack, all above the last mark where None, and puts one around them or joins them."""
    if n is None:
        n = next(above for above, value in enumerate(reversed(stack)) if value is None)
        inner = stack[len(stack) - n :]
        del stack[len(stack) - n - 1 :]
    else:
        inner = stack[len(stack) - n :]
        del stack[len(stack) - n :]
    outer = (stack.pop() or _LEAF) if joins else _LEAF
    sizes = [size or _LEAF for size in inner]
    depth = max([outer[0], *(1 + below for below, _ in sizes)])
    parts = outer[1] + sum(inside for _, inside in sizes)
    if depth > _MAX_DEPTH or parts > _MAX_OPERATIONS:
        raise _Refused(f"it is nested more than {_MAX_DEPTH} deep, or holds more than {_MAX_OPERATIONS:,} parts")
    stack.append((depth, parts))


class _Name:
    """What a name in a pickle stands for: a function of ours that can be called and not changed."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: object) -> None:
        raise _Refused("it would change one of the names it may use")


class _NumberType:
    """A NumPy type as a pickle tells of it; only plain numbers pass."""

    __slots__ = ("dtype",)

    def __init__(self, spec: Any, *_flags: Any) -> None:
        if not isinstance(spec, str) or not _NUMBERS.fullmatch(spec):
            raise _Refused(f"it holds an array of type {str(spec)[:40]!r}, expected numbers")
        self.dtype = np.dtype(spec)

    def __setstate__(self, state: Any) -> None:
        order, rest = state[1], state[2:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in rest):
            raise _Refused("it holds an array whose type has parts, expected numbers")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array as a pickle tells of it: empty, until its bytes are given and found to fit."""

    __slots__ = ("values",)

    def __init__(self, *_shape: Any) -> None:
        self.values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, content = state
        self.values = _block(content, kind, shape, "F" if is_fortran else "C")


def _block(content: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(kind, _NumberType) or not isinstance(content, bytes | bytearray) or order not in ("C", "F"):
        raise _Refused("it holds an array that is not one block of numbers")
    if not isinstance(shape, tuple) or len(shape) > 2 or not all(type(n) is int and n >= 0 for n in shape):
        raise _Refused(f"it holds an array of shape {str(shape)[:40]}, expected at most two lengths")
    expected = int(np.prod([kind.dtype.itemsize, *map(int, shape)], dtype=object))
    if len(content) != expected:
        raise _Refused(f"it holds an array of {len(content):,} bytes whose shape needs {expected:,}")
    return np.frombuffer(content, kind.dtype).reshape(shape, order=order)


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.values = _block(content, kind, shape, order)
    return array


def _scalar(kind: Any, content: Any) -> int | float:
    return _block(content, kind, (1,), "C")[0].item()


def _encoded(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused("it encodes text in a way that arrays do not need")
    return text.encode("latin1")


def _filled(kind: Callable[[list[Any]], Any]) -> _Name:
    # a set or a mapping is given as a list; a bytearray of a number would be that many bytes of nothing
    def make(*given: Any) -> Any:
        if len(given) > 1 or not all(isinstance(part, list | tuple) for part in given):
            raise _Refused("it makes a container out of something that is no list")
        return kind(*given)

    return _Name(make)


_STAND_INS = {
    "numpy.ndarray": _Name(_Array),
    "numpy.dtype": _Name(_NumberType),
    "_codecs.encode": _Name(_encoded),
    "collections.OrderedDict": _filled(dict),
    "builtins.set": _filled(set),
    "builtins.frozenset": _filled(frozenset),
    **{
        f"numpy.{core}.{name}": _Name(stand_in)
        for core in ("core", "_core")
        for name, stand_in in (
            ("multiarray._reconstruct", _Array),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _from_buffer),
        )
    },
}


class _Reader(pickle.Unpickler):
    """Knows the names of arrays and containers, and finds a stand-in for each."""

    def find_class(self, module: str, name: str) -> Any:
        wanted = f"{module}.{name}"
        if wanted not in _STAND_INS:
            raise _Refused(
                f"it names {wanted[:80]!r}; arrays and plain containers need only {', '.join(sorted(_STAND_INS))}"
            )
        return _STAND_INS[wanted]


def _unwrapped(found: Any) -> Any:
    """The same with arrays in place of their stand-ins; a list that was put into itself is found here."""
    left = _MAX_OPERATIONS

    def walk(value: Any, depth: int) -> Any:
        nonlocal left
        # one list named many times over is small in the file and large here
        left -= 1
        if depth > _MAX_DEPTH or left < 0:
            raise _Refused(f"it is nested more than {_MAX_DEPTH} deep, or holds more than {_MAX_OPERATIONS:,} parts")
        if isinstance(value, dict):
            return {key: walk(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [walk(inner, depth + 1) for inner in value]
        return _plain(value)

    return walk(found, 0)


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        if value.values is None:
            raise _Refused("it holds an array without content")
        return value.values
    if value is None or isinstance(value, str | int | float | bytes):
        return value
    raise _Refused(f"it holds a {type(value).__name__.strip('_')}, expected vectors, texts and numbers")
