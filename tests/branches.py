"""Which way every conditional jump of some functions went: branch coverage for one module, in the standard library."""

from __future__ import annotations

import dis
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, ModuleType
from typing import Any


def code_of(module: ModuleType) -> list[CodeType]:
    """Every function's code in a module, comprehensions and methods written in it included; no generated ones."""
    found: list[CodeType] = []

    def collect(code: CodeType) -> None:
        found.append(code)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                collect(constant)

    for value in vars(module).values():
        code = getattr(value, "__code__", None)
        if isinstance(code, CodeType) and code.co_filename == module.__file__:
            collect(code)
    return found


class Branches:
    """The successors of every instruction that ran."""

    def __init__(self, module: ModuleType) -> None:
        self._codes = code_of(module)
        self._followed: dict[tuple[CodeType, int], set[int]] = defaultdict(set)
        self._last: dict[int, int] = {}

    def one_sided(self) -> list[str]:
        """`function:line` of each conditional jump that did not go both ways."""
        return [
            f"{code.co_name}:{line}"
            for code in self._codes
            for offset, line in _conditional_jumps(code)
            if len(self._followed[code, offset]) < 2
        ]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Everything called inside the block counts."""
        before = sys.gettrace()
        sys.settrace(self._on_call)
        try:
            yield
        finally:
            sys.settrace(before)

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        if frame.f_code not in self._codes:
            return None
        frame.f_trace_opcodes = True
        self._last.pop(id(frame), None)
        return self._on_step

    def _on_step(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        if event == "opcode":
            last = self._last.get(id(frame))
            if last is not None:
                self._followed[frame.f_code, last].add(frame.f_lasti)
            self._last[id(frame)] = frame.f_lasti
        return self._on_step


def _conditional_jumps(code: CodeType) -> Iterator[tuple[int, int]]:
    """(offset, line) of what may go two ways, but for the question whether an exception is one of those expected."""
    before, line = "", 0
    for instruction in dis.get_instructions(code):
        line = instruction.starts_line or line
        may_fork = "JUMP" in instruction.opname and "_IF_" in instruction.opname
        if (may_fork or instruction.opname == "FOR_ITER") and before != "CHECK_EXC_MATCH":
            yield instruction.offset, line
        before = instruction.opname
