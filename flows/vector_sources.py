"""A set of vectors without an encoder: read from files, joined by id, with the files' bytes as its identity."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationError

from flows.errors import SettingValueError
from flows.settings import PlainMapping, digest
from flows.source_settings import Branch

if TYPE_CHECKING:
    from providers import EncoderIdentity
    from warehouse import NamedVectors

VECTORS = "vectors"
ROWS = "rows"
# Keys that name files; ROWS is no file.
PATHS = ("items", "item_ids", "users", "user_ids")


class VectorFiles(Branch):
    """`name = "vectors"` in [embeddings] or [encoders.<name>]: vectors that were made elsewhere.

    Args:
        items: .npy, .parquet or .pkl with the vectors of items.
        item_ids: the id of each row of a .npy: a file of ids, or "rows" where row n belongs to id n.
        users, user_ids: the same of users, who are pooled from their training items where nothing is given.
        max_unknown: the largest share of vectors that may belong to nobody here.
    """

    name: Literal["vectors"] = VECTORS
    items: str
    item_ids: str | None = None
    users: str | None = None
    user_ids: str | None = None
    id_column: str | None = None
    vector_column: str | None = None
    max_unknown: float = Field(default=0.01, ge=0, le=1)

    @property
    def model(self) -> str:
        """What tables call the encoder."""
        return " and ".join(Path(path).name for path in (self.items, self.users) if path)

    def describe(self) -> EncoderIdentity:
        """The files' bytes and how they are read, without reading a vector.

        Raises:
            VectorFileError: a file is not there.
        """
        from providers import EncoderIdentity

        read = {path: _fingerprint(path) for path in self.files()}
        shaping = self.model_dump(mode="json", include={"id_column", "vector_column", "max_unknown"})
        ids = [None if name is None else read.get(name, name) for name in (self.item_ids, self.user_ids)]
        users = None if self.users is None else read[self.users]
        return EncoderIdentity(
            digest(VECTORS, read[self.items], users, ids, shaping), VECTORS, None, self.model, "float32"
        )

    def files(self) -> list[str]:
        """Every file that is named."""
        named = (self.items, self.item_ids, self.users, self.user_ids)
        return [path for path in named if path is not None and path != ROWS]

    def read(self, kind: Literal["item", "user"]) -> tuple[NamedVectors, str] | None:
        """The vectors of items or users by id and the file they are in; None where there is none.

        Raises:
            VectorFileError, UnsafePickleError: as `read_vectors`.
        """
        from warehouse import read_vectors

        path, ids = (self.items, self.item_ids) if kind == "item" else (self.users, self.user_ids)
        if path is None:
            return None
        where: Path | Literal["rows"] | None = "rows" if ids == ROWS else Path(ids) if ids else None
        columns = {"id_column": self.id_column, "vector_column": self.vector_column}
        return read_vectors(Path(path), where, **columns), Path(path).name


def parse_vectors(mapping: PlainMapping, path: str) -> VectorFiles:
    """The settings of a set that is read from files.

    Args:
        path: where the settings have it, for messages.

    Raises:
        SettingValueError: an option is unknown, missing or does not fit.
    """
    try:
        return VectorFiles.model_validate(mapping)
    except ValidationError as error:
        fault = error.errors()[0]
        known = ", ".join(VectorFiles.model_fields)
        problem = f"{fault['msg']}; vectors from files take: {known}"
        raise SettingValueError(".".join(map(str, (path, *fault["loc"]))), fault["input"], problem) from None


def _fingerprint(path: str) -> str:
    from warehouse import VectorFileError

    try:
        status = os.stat(path)
    except OSError:
        raise VectorFileError(path, "there is no such file", "Correct the path") from None
    return _sha256(path, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: str, *note: int) -> str:
    """Of a file; read once while nobody touches it, for a command asks several times."""
    from warehouse import file_sha256

    return file_sha256(Path(path))
