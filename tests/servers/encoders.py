"""An encoder and its settings in one, for runs in which the vectors are not what is looked at."""

from __future__ import annotations

from typing import Self


class StandInEncoder:
    """What every stand-in shares; a subclass gives `short_name`, `dim`, `model`, `dtype` and `encode`."""

    key = ""

    def describe(self) -> Self:
        return self

    def identity(self) -> str:
        return self.key

    def open(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None
