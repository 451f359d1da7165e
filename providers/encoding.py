"""What an encoder is: texts in, unit vectors out, and a key that changes whenever the vectors would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OnEncoded: TypeAlias = Callable[[int, int], None]
"""(texts encoded, texts in all)"""


@dataclass(frozen=True)
class EncoderIdentity:
    """Which vectors these are, known without loading the model.

    Args:
        key: sha256 over all that decides a vector: every model file or the name of a hosted model, the dtype, the token
            limit, the truncation, the normalisation.
        short_name: an identifier for table and view names, such as `all_minilm_l6_v2`.
        dim: numbers in a vector; None when nothing says so.
        dtype: of the weights, never "auto".
    """

    key: str
    short_name: str
    dim: int | None
    model: str
    dtype: str


class Encoder(Protocol):
    """Texts to float32 unit vectors, order kept; a context manager that gives back what it holds."""

    @property
    def key(self) -> str: ...

    @property
    def short_name(self) -> str: ...

    @property
    def dim(self) -> int: ...

    def encode(self, texts: Sequence[str], on_progress: OnEncoded | None = None) -> NDArray[np.float32]:
        """float32 [n, dim], each row of length 1 within 1e-3; a row that an encoder has set aside is NaN."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
