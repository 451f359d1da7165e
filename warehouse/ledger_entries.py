"""What the ledger's writer does with a batch of entries: one statement a step, however many entries there are.

Hundreds of entries come at once when hundreds of calls are in flight, on a thread that shares the processor with them.
"""

import hashlib
import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from warehouse.errors import AlreadyAnsweredError, CorruptFileError, UnknownAttemptError

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT_OF_A_REJECTED_BODY_BYTES = 64 * 1024


class Announced(Protocol):
    """What the ledger reads of a request."""

    @property
    def key(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def entity_id(self) -> str: ...


class Settled(Protocol):
    """What the ledger reads of an attempt's outcome; a response row is kept when `body` is there.

    `rejected` is a body that was no reply at all: its first 64 KiB are kept for whoever looks into it.
    """

    @property
    def state(self) -> str: ...
    @property
    def status(self) -> int | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def latency_ms(self) -> float | None: ...
    @property
    def tokens_in(self) -> int | None: ...
    @property
    def tokens_out(self) -> int | None: ...
    @property
    def usd(self) -> float | None: ...
    @property
    def model(self) -> str | None: ...
    @property
    def body(self) -> bytes | None: ...
    @property
    def rejected(self) -> bytes | None: ...
    @property
    def finish_reason(self) -> str | None: ...
    @property
    def usage(self) -> "Mapping[str, object] | str | None": ...


@dataclass(frozen=True)
class Answer:
    """A stored reply: the raw body as it came, proved against its hash."""

    key: str
    body: bytes
    sha256: str
    model: str | None
    finish_reason: str | None
    usage: str | None


@dataclass(frozen=True)
class Standing:
    """Where a key stands: its reply, if there is one, and how often it was announced in all runs.

    Args:
        held_by: the id of a batch that may still bring the reply, or may have been paid for it; whoever asks
            elsewhere pays twice.
    """

    answer: Answer | None
    attempts: int
    held_by: str | None = None


@dataclass(frozen=True)
class Receipt:
    """What became of a batch, each list in the order of its entries; an entry that was refused gives its error.

    Args:
        standings: of the keys that were looked up, the outcomes of this batch included, its intents not.
        numbers: of the attempts that were announced, counted from 1.
        refusals: of the outcomes that were settled; None where all went well.
    """

    standings: list[Standing | Exception] = field(default_factory=list)
    numbers: list[int | Exception] = field(default_factory=list)
    refusals: list[Exception | None] = field(default_factory=list)


Intent = tuple[Announced, int | None, float | None]
"""(request, its worst case in tokens, its worst case in USD)"""

# a latency is what tells a settled attempt from an announced one
_HOLDERS = """
SELECT member.key, coalesce(batch.batch_id, batch.shard_hash)
FROM batch JOIN batch_request AS member USING (shard_hash) JOIN attempt USING (key, n)
WHERE batch.state IN ('creating', 'submitted', 'gone') AND attempt.latency_ms IS NULL AND member.key IN
"""

Settlement = tuple[str, int, Settled]
"""(key, number of the attempt, how it ended)"""


def standings(db: sqlite3.Connection, keys: Sequence[str], path: str, cure: str) -> list[Standing | Exception]:
    """Where each key stands; a stored body that is not what was received gives a CorruptFileError."""
    if not keys:
        return []
    attempts = _counted(db, keys)
    asked = [key for key in dict.fromkeys(keys) if attempts[key][1]]
    found: dict[str, Answer | Exception] = {}
    if asked:
        query = f"SELECT key, body, sha256, model, finish_reason, usage FROM response WHERE key IN ({_marks(asked)})"
        for row in db.execute(query, asked).fetchall():
            answer = Answer(*row)
            intact = hashlib.sha256(answer.body).hexdigest() == answer.sha256
            reason = f"the reply to {answer.key} does not match its sha256"
            found[answer.key] = answer if intact else CorruptFileError(path, reason, cure)
    announced = [key for key in dict.fromkeys(keys) if attempts[key][0] and not attempts[key][1]]
    holders = dict(db.execute(f"{_HOLDERS} ({_marks(announced)})", announced).fetchall()) if announced else {}
    return [_standing(found.get(key), attempts[key][0], holders.get(key)) for key in keys]


def announce(db: sqlite3.Connection, intents: Sequence[Intent]) -> list[int | Exception]:
    """The number of every attempt that may now be sent, or why it may not."""
    if not intents:
        return []
    attempts = _counted(db, [request.key for request, _, _ in intents])
    started_us = int(datetime.now(UTC).timestamp() * 1_000_000)
    numbers: list[int | Exception] = []
    rows: list[Any] = []
    for request, tokens, usd in intents:
        last, is_answered = attempts[request.key]
        if is_answered:
            numbers.append(AlreadyAnsweredError(request.key))
            continue
        attempts[request.key] = (last + 1, False)
        numbers.append(last + 1)
        rows += (request.key, last + 1, "sent", started_us, request.model, request.kind, request.entity_id, tokens, usd)
    _insert(db, "attempt (key, n, state, started_at, model, kind, entity_id, worst_tokens, worst_usd)", rows, 9)
    return numbers


def record(db: sqlite3.Connection, settlements: Sequence[Settlement]) -> list[Exception | None]:
    """Attempts, replies and what was no reply, written down; a settlement that cannot be true gives its error."""
    if not settlements:
        return []
    states = _latencies(db, [(key, number) for key, number, _ in settlements])
    refusals: list[Exception | None] = []
    facts: list[Any] = []
    replies: list[Any] = []
    rejected: list[Any] = []
    for key, number, outcome in settlements:
        if (key, number) not in states:
            refusals.append(UnknownAttemptError(key, number, "it was never announced"))
            continue
        if states[key, number] is not None:
            refusals.append(UnknownAttemptError(key, number, "it was settled before"))
            continue
        refusals.append(None)
        # a latency is what tells a settled attempt from an announced one
        states[key, number] = latency_ms = outcome.latency_ms if outcome.latency_ms is not None else 0.0
        facts += (key, number, outcome.state, latency_ms, outcome.status, outcome.error, outcome.tokens_in)
        facts += (outcome.tokens_out, outcome.usd, outcome.model)
        if (body := outcome.body) is not None:
            sha256 = hashlib.sha256(body).hexdigest()
            replies += (key, body, sha256, outcome.model, outcome.finish_reason, _usage_text(outcome))
        if outcome.rejected is not None:
            rejected += (key, number, outcome.rejected[:KEPT_OF_A_REJECTED_BODY_BYTES])
    if facts:
        db.execute(_settle(len(facts) // 10), facts)
    # the first reply stands: a second one to the same key is counted in its attempt and not kept
    _insert(db, "response (key, body, sha256, model, finish_reason, usage)", replies, 6, "ON CONFLICT (key) DO NOTHING")
    _insert(db, "rejected (key, n, body)", rejected, 3)
    return refusals


def forget_entity(
    db: sqlite3.Connection, kind: str, entity_id: str, around: Collection[tuple[str, str]], kept: Collection[str]
) -> int:
    """How many bodies went: of requests about an entity, and of those about others `around` it except the `kept`."""
    for name, columns in (("forgotten", "key TEXT PRIMARY KEY"), ("around", "kind, entity_id"), ("kept", "key TEXT")):
        db.execute(f"DROP TABLE IF EXISTS temp.{name}")
        db.execute(f"CREATE TEMP TABLE {name} ({columns})")
    db.executemany("INSERT INTO around VALUES (?, ?)", around)
    db.executemany("INSERT INTO kept VALUES (?)", [(key,) for key in kept])
    query = "INSERT OR IGNORE INTO forgotten SELECT key FROM attempt WHERE kind = ? AND entity_id = ?"
    db.execute(query, (kind, entity_id))
    db.execute(
        "INSERT OR IGNORE INTO forgotten SELECT key FROM attempt "
        "WHERE (kind, entity_id) IN (SELECT kind, entity_id FROM around) AND key NOT IN (SELECT key FROM kept)"
    )
    count = 0
    for table in ("response", "rejected"):
        count += db.execute(f"DELETE FROM {table} WHERE key IN (SELECT key FROM forgotten)").rowcount
    # a line that was nobody's reply may hold anybody's words
    about = "SELECT shard_hash FROM batch_request WHERE key IN (SELECT key FROM forgotten)"
    count += db.execute(f"DELETE FROM batch_aside WHERE shard_hash IN ({about})").rowcount
    db.execute("UPDATE attempt SET error = NULL WHERE key IN (SELECT key FROM forgotten)")
    db.execute("UPDATE attempt SET entity_id = NULL WHERE kind = ? AND entity_id = ?", (kind, entity_id))
    return count


def written_bytes(intents: Sequence[Intent], settlements: Sequence[Settlement]) -> int:
    """About how many bytes a batch adds to the file and, for the time of the commit, to its journal."""
    bodies = sum(len(outcome.body or b"") + len(outcome.rejected or b"") for _, _, outcome in settlements)
    return 2 * (bodies + 512 * (len(intents) + len(settlements)))


def _counted(db: sqlite3.Connection, keys: Sequence[str]) -> dict[str, tuple[int, bool]]:
    """{key: (attempts so far, is it answered)} in one row of one statement."""
    query = f"""
SELECT json_group_array(json_array(
  asked.column1,
  (SELECT coalesce(max(n), 0) FROM attempt WHERE key = asked.column1),
  EXISTS (SELECT 1 FROM response WHERE key = asked.column1)))
FROM (VALUES {_rows(len(keys), 1)}) AS asked
"""
    (document,) = db.execute(query, keys).fetchone()
    return {key: (attempts, bool(is_answered)) for key, attempts, is_answered in json.loads(document)}


def _latencies(db: sqlite3.Connection, attempts: Sequence[tuple[str, int]]) -> dict[tuple[str, int], float | None]:
    query = f"""
SELECT json_group_array(json_array(attempt.key, attempt.n, attempt.latency_ms))
FROM (VALUES {_rows(len(attempts), 2)}) AS asked
JOIN attempt ON attempt.key = asked.column1 AND attempt.n = asked.column2
"""
    (document,) = db.execute(query, [value for attempt in attempts for value in attempt]).fetchone()
    return {(key, number): latency_ms for key, number, latency_ms in json.loads(document)}


def _settle(count: int) -> str:
    return f"""
UPDATE attempt SET state = v.column3, latency_ms = v.column4, status = v.column5, error = v.column6,
  tokens_in = v.column7, tokens_out = v.column8, usd = v.column9, model = coalesce(v.column10, attempt.model)
FROM (VALUES {_rows(count, 10)}) AS v
WHERE attempt.key = v.column1 AND attempt.n = v.column2
"""


def _insert(db: sqlite3.Connection, into: str, values: Sequence[Any], width: int, ending: str = "") -> None:
    if values:
        db.execute(f"INSERT INTO {into} VALUES {_rows(len(values) // width, width)} {ending}", values)


def _rows(count: int, width: int) -> str:
    return ", ".join([f"({', '.join('?' * width)})"] * count)


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _standing(answer: Answer | Exception | None, attempts: int, held_by: str | None) -> Standing | Exception:
    return answer if isinstance(answer, Exception) else Standing(answer, attempts, held_by)


def _usage_text(outcome: Settled) -> str | None:
    usage = outcome.usage
    return usage if usage is None or isinstance(usage, str) else json.dumps(dict(usage), sort_keys=True)
