"""The ledger's table of embedded texts: found in whatever reply they lie, forgotten without their neighbours."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

import pytest

from warehouse.ledger import Ledger


@dataclass(frozen=True)
class Request:
    key: str
    model: str = "m"
    kind: str = "texts"
    entity_id: str = "3 texts"


@dataclass(frozen=True)
class Outcome:
    body: bytes
    state: str = "ok"
    status: int | None = 200
    error: str | None = None
    latency_ms: float | None = 12.5
    tokens_in: int | None = 10
    tokens_out: int | None = 0
    usd: float | None = 0.25
    model: str | None = "m"
    rejected: bytes | None = None
    finish_reason: str | None = None
    usage: str | None = None


def reply_of(*words: str) -> bytes:
    """Entries in another order than their indices, as a server may send them."""
    entries = [{"index": place, "embedding": word} for place, word in enumerate(words)]
    return json.dumps({"data": entries[::-1], "usage": {"prompt_tokens": 10}}).encode()


def answer(ledger: Ledger, key: str, *words: str) -> None:
    ledger.intend(Request(key))
    ledger.settle(key, 1, Outcome(reply_of(*words)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def test_a_text_is_found_once_its_request_is_answered_and_under_its_own_encoder(path):
    with Ledger(path) as ledger:
        ledger.embedded.enlist("e", [("k1", ["a", "b"]), ("k2", ["c", "a"])])
        assert ledger.embedded.find("e", ["a", "b", "c"]) == {}
        answer(ledger, "k1", "va", "vb")
    with Ledger(path, read_only=True) as ledger:
        assert {key: sorted(places) for key, places in ledger.embedded.find("e", ["a", "b", "c", "d"]).items()} == {
            "k1": [("a", 0), ("b", 1)]
        }
        assert ledger.embedded.find("another", ["a"]) == {}


def test_thousands_of_texts_are_found_in_the_replies_they_lie_in(path):
    hashes = [f"{number:064x}" for number in range(3_000)]
    with Ledger(path) as ledger:
        ledger.embedded.enlist("e", [(f"k{start}", hashes[start : start + 250]) for start in range(0, 3_000, 250)])
        for start in range(0, 1_500, 250):
            answer(ledger, f"k{start}", "v")
        found = ledger.embedded.find("e", hashes)
    assert {hashed for places in found.values() for hashed, _ in places} == set(hashes[:1_500])
    assert all(hashes[int(key[1:]) + place] == hashed for key, places in found.items() for hashed, place in places)


def test_forgotten_texts_leave_the_replies_and_their_neighbours_stay(path):
    with Ledger(path) as ledger:
        ledger.embedded.enlist("e", [("k1", ["a", "b", "c"]), ("k2", ["a"]), ("never sent", ["b"])])
        answer(ledger, "k1", "va", "vb", "vc")
        answer(ledger, "k2", "va")
        assert ledger.embedded.keep_only({"a", "c"}) == 2
        assert ledger.embedded.keep_only({"a", "c"}) == 0
        document = json.loads(ledger.answered("k1").body)  # its hash fits, else this would raise
        assert {entry["index"]: entry["embedding"] for entry in document["data"]} == {0: "va", 1: "", 2: "vc"}
        assert document["usage"] == {"prompt_tokens": 10} and ledger.answered("k2").body == reply_of("va")
        assert sorted(ledger.embedded.find("e", ["a", "b", "c"])["k1"]) == [("a", 0), ("c", 2)]
        assert ledger.spent().calls == 2
        ledger.forget("user", "nobody")
    assert b'"vb"' not in path.read_bytes()


def test_a_ledger_from_before_there_were_embeddings_learns_about_them(path):
    with Ledger(path) as ledger:
        answer(ledger, "k", "v")
    with sqlite3.connect(path) as db:
        db.executescript("DROP TABLE embedded; PRAGMA user_version = 3;")
    with Ledger(path) as ledger:
        assert ledger.answered("k").body == reply_of("v")
        ledger.embedded.enlist("e", [("k", ["a"])])
        assert ledger.embedded.find("e", ["a"]) == {"k": [("a", 0)]}
