"""Vector shards: what an embedding run has finished so far, kept until a snapshot holds it.

A shard is one file named by the sha256 of its bytes: a line of JSON, the hashes of its texts, their vectors. Whoever is
killed loses the shard at hand and no other. All of it is derived from texts: what is torn or rotten is thrown away and
embedded again, and collecting garbage removes everything.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from warehouse.errors import CorruptFileError
from warehouse.storage import canonical_json, created, disk_faults_named, file_name, fsync_directory, make_directory

FOLDER = "vectors"
_FORMAT = 1


class VectorShards:
    """The shards of one encoder, in a folder named by its key; only the holder of the run lock may have one."""

    def __init__(self, root: Path, encoder_key: str) -> None:
        self._staging = root / "staging"
        self._folder = root / FOLDER / file_name(encoder_key)

    def add(self, hashes: np.ndarray, vectors: np.ndarray) -> str:
        """Name of one more shard, on disk whole when this returns.

        Args:
            hashes: (n,) ASCII bytes, the hash of each text.
            vectors: (n, d) float32, one row a text.

        Raises:
            DiskFullError: nothing of this shard is left; those before it stay.
        """
        flat = np.ascontiguousarray(vectors, "<f4")
        head = {"format": _FORMAT, "rows": len(flat), "dim": flat.shape[1], "hash_bytes": hashes.dtype.itemsize}
        content = b"\n".join((canonical_json(head).encode(), hashes.tobytes() + flat.tobytes()))
        staged = self._staging / f"shard-{uuid.uuid4().hex}"
        final = self._folder / hashlib.sha256(content).hexdigest()
        with disk_faults_named(final, len(content)):
            make_directory(self._staging)
            make_directory(self._folder)
            try:
                with created(staged) as stream:
                    stream.write(content)
                os.replace(staged, final)
            finally:
                staged.unlink(missing_ok=True)
            fsync_directory(self._folder)
        return final.name

    def one(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(hashes (n,) bytes, vectors (n, d) float32) of the shard that `add` named.

        Raises:
            CorruptFileError: its bytes are not those that were written.
        """
        path = self._folder / file_name(name)
        shard = _read(path)
        if shard is None:
            raise CorruptFileError(str(path), "its sha256 is not its name", "run the command again")
        return shard

    def read(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(hashes (n,) bytes, vectors (n, d) float32) of every whole shard; others are removed, not believed."""
        for path in sorted(self._folder.glob("*")):
            shard = _read(path)
            if shard is None:
                path.unlink()
            else:
                yield shard

    def remove(self) -> None:
        """No shard of this encoder is left; to be called once a snapshot holds the vectors."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.name:
        return None
    line, _, body = content.partition(b"\n")
    head = json.loads(line)
    if head["format"] != _FORMAT:
        return None
    rows, dim, width = head["rows"], head["dim"], head["hash_bytes"]
    hashes = np.frombuffer(body, f"S{width}", rows)
    return hashes, np.frombuffer(body, "<f4", rows * dim, rows * width).reshape(rows, dim)
