"""Which text lies where in the replies of an embedding server, so that no text is paid for twice."""

import hashlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warehouse.ledger_file import LedgerFile

EMBEDDED_SCHEMA = """
CREATE TABLE IF NOT EXISTS embedded (
  encoder TEXT NOT NULL, text_hash TEXT NOT NULL, key TEXT NOT NULL, place INTEGER NOT NULL,
  PRIMARY KEY (encoder, text_hash, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS embedded_in ON embedded (key);
"""
_AT_ONCE = 500  # entries of one statement


class EmbeddedTexts:
    """The ledger's table of embedded texts. Every method is one transaction, on disk when it returns."""

    def __init__(self, file: "LedgerFile") -> None:
        self._file = file

    def enlist(self, encoder: str, calls: Iterable[tuple[str, Sequence[str]]]) -> None:
        """(key of a request, hashes of its texts in their order): before the request may be sent."""
        rows = [(encoder, hashed, key, place) for key, hashes in calls for place, hashed in enumerate(hashes)]
        insert = "INSERT OR IGNORE INTO embedded VALUES (?, ?, ?, ?)"
        self._file.ask(lambda db: db.executemany(insert, rows) and None)

    def find(self, encoder: str, text_hashes: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
        """{key of an answered request: (hash, place in its reply) of these texts}; a text may lie in several."""

        def read(db: sqlite3.Connection) -> dict[str, list[tuple[str, int]]]:
            found: dict[str, list[tuple[str, int]]] = {}
            for some in _parts(text_hashes):
                query = (
                    "SELECT key, text_hash, place FROM embedded WHERE encoder = ?"
                    f" AND text_hash IN ({', '.join('?' * len(some))})"
                    " AND EXISTS (SELECT 1 FROM response WHERE response.key = embedded.key)"
                )
                for key, hashed, place in db.execute(query, (encoder, *some)):
                    found.setdefault(key, []).append((hashed, place))
            return found

        return self._file.ask(read)

    def keep_only(self, text_hashes: Collection[str]) -> int:
        """How many vectors were taken out of stored replies: those of all other texts, whosesoever they were.

        The other vectors of such a reply stay, and it gets the hash of what it is now.
        """

        def write(db: sqlite3.Connection) -> int:
            rows = db.execute("SELECT key, text_hash, place FROM embedded").fetchall()
            going: dict[str, set[int]] = {}
            for key, hashed, place in rows:
                if hashed not in text_hashes:
                    going.setdefault(key, set()).add(place)
            for key, places in going.items():
                db.executemany("DELETE FROM embedded WHERE key = ? AND place = ?", [(key, place) for place in places])
                stored = db.execute("SELECT body FROM response WHERE key = ?", (key,)).fetchone()
                if stored is not None:
                    body = _without(stored[0], places)
                    sha256 = hashlib.sha256(body).hexdigest()
                    db.execute("UPDATE response SET body = ?, sha256 = ? WHERE key = ?", (body, sha256, key))
            return sum(map(len, going.values()))

        return self._file.ask(write)


def _parts(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]


def _without(body: bytes, places: set[int]) -> bytes:
    """The reply with nothing in these places; what cannot be read is kept by nobody."""
    try:
        document = json.loads(body)
        for entry in document["data"]:
            if entry["index"] in places:
                entry["embedding"] = ""
    except (ValueError, RecursionError, KeyError, TypeError):
        return b""
    return json.dumps(document, separators=(",", ":")).encode()
