"""The ledger on a real file: announced before it is sent, kept once answered, the same after a reopening."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from warehouse import (
    AlreadyAnsweredError,
    CorruptFileError,
    DiskFullError,
    FormatVersionError,
    Ledger,
    LedgerClosedError,
    UnknownAttemptError,
)


@dataclass(frozen=True)
class Request:
    key: str
    model: str = "m"
    kind: str = "item"
    entity_id: str = "1"


@dataclass(frozen=True)
class Outcome:
    state: str = "ok"
    status: int | None = 200
    error: str | None = None
    latency_ms: float | None = 12.5
    tokens_in: int | None = 10
    tokens_out: int | None = 5
    usd: float | None = 0.25
    model: str | None = "m-2026"
    body: bytes | None = b'{"choices": []}'
    rejected: bytes | None = None
    finish_reason: str | None = "stop"
    usage: dict | str | None = None


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def test_an_answer_is_there_after_a_reopening_byte_for_byte(path):
    with Ledger(path) as ledger:
        assert ledger.answered("k") is None
        assert ledger.intend(Request("k")) == 1
        assert ledger.uncertain() == 1
        ledger.settle("k", 1, Outcome(usage={"b": 1, "a": 2}))
        assert ledger.uncertain() == 0
    with Ledger(path) as ledger:
        answer = ledger.answered("k")
    assert answer.body == b'{"choices": []}'
    assert (answer.model, answer.finish_reason, answer.usage) == ("m-2026", "stop", '{"a": 2, "b": 1}')


def test_what_is_acknowledged_is_on_disk_before_the_ledger_is_closed(path):
    with Ledger(path) as ledger:
        ledger.intend(Request("k"))
        ledger.settle("k", 1, Outcome())
        with sqlite3.connect(path) as other:
            assert other.execute("SELECT state FROM attempt").fetchall() == [("ok",)]
            assert other.execute("SELECT count(*) FROM response").fetchall() == [(1,)]


def test_attempts_are_numbered_and_a_failed_one_keeps_no_answer(path):
    with Ledger(path) as ledger:
        assert ledger.intend(Request("k")) == 1
        ledger.settle("k", 1, Outcome(state="retryable", status=503, error="unavailable", body=None, usd=None))
        assert ledger.answered("k") is None
        assert ledger.intend(Request("k")) == 2
        ledger.settle("k", 2, Outcome(state="sent", status=None, error="deadline", body=None, usd=None))
        assert ledger.uncertain() == 1
        assert ledger.mark() == 2
        spent = ledger.spent()
    assert (spent.calls, spent.usd, spent.unpriced) == (2, 0.0, 2)


def test_an_answered_key_is_never_announced_again(path):
    with Ledger(path) as ledger:
        ledger.intend(Request("k"))
        ledger.settle("k", 1, Outcome())
        with pytest.raises(AlreadyAnsweredError):
            ledger.intend(Request("k"))
        assert ledger.intend(Request("other")) == 1


def test_an_attempt_is_settled_once_and_only_when_it_was_announced(path):
    with Ledger(path) as ledger:
        with pytest.raises(UnknownAttemptError, match="never announced"):
            ledger.settle("k", 1, Outcome())
        ledger.intend(Request("k"))
        ledger.settle("k", 1, Outcome(latency_ms=None, body=None))
        with pytest.raises(UnknownAttemptError, match="settled before"):
            ledger.settle("k", 1, Outcome())


def test_the_first_of_two_replies_to_one_key_stands_and_both_attempts_count(path):
    with Ledger(path) as ledger:
        for number in (1, 2):
            assert ledger.intend(Request("k")) == number
        ledger.settle("k", 1, Outcome(body=b"first"))
        ledger.settle("k", 2, Outcome(body=b"second"))
        assert ledger.answered("k").body == b"first"
        assert ledger.spent().usd == 0.5


def test_many_threads_share_commits_and_lose_nothing(path):
    def ask(number: int) -> int:
        key = f"k{number}"
        attempt = ledger.intend(Request(key, entity_id=str(number)))
        ledger.settle(key, attempt, Outcome(body=key.encode()))
        return attempt

    with Ledger(path) as ledger:
        with ThreadPoolExecutor(16) as pool:
            assert set(pool.map(ask, range(300))) == {1}
        calls = ledger.calls()
        assert all(ledger.answered(f"k{number}").body == f"k{number}".encode() for number in range(300))
    assert calls.num_rows == 300
    assert set(calls["entity_id"].to_pylist()) == {str(number) for number in range(300)}


def test_calls_are_rows_of_llm_calls_without_bodies(path):
    with Ledger(path) as ledger:
        assert ledger.calls().num_rows == 0
        ledger.intend(Request("k"))
        ledger.settle("k", 1, Outcome())
        (row,) = ledger.calls().to_pylist()
    assert row["request_key"] == "k"
    assert (row["state"], row["status"], row["latency_ms"], row["usd"]) == ("ok", 200, 12.5, 0.25)
    assert row["started_at"].year >= 2024
    assert "body" not in row


def test_a_flipped_byte_in_a_reply_is_never_believed(path):
    body = b"the reply that was paid for" * 20
    with Ledger(path) as ledger:
        ledger.intend(Request("k"))
        ledger.settle("k", 1, Outcome(body=body))
    content = bytearray(path.read_bytes())
    content[content.index(body) + 100] ^= 1
    path.write_bytes(content)
    with Ledger(path) as ledger, pytest.raises(CorruptFileError, match="does not match its sha256"):
        ledger.answered("k")


def test_a_file_that_is_no_ledger_is_refused_with_the_cure(path):
    path.write_bytes(b"not a database, whatever its name says" * 100)
    with pytest.raises(CorruptFileError, match="backups/") as caught:
        Ledger(path)
    assert caught.value.exit_code == 6


def test_a_ledger_of_a_newer_program_says_so(path):
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(FormatVersionError):
        Ledger(path)


def test_backups_are_whole_ledgers_and_the_newest_three_stay(path):
    with Ledger(path) as ledger:
        ledger.intend(Request("k"))
        ledger.settle("k", 1, Outcome())
        copies = [ledger.backup() for _ in range(5)]
    kept = sorted(copies[0].parent.iterdir())
    assert kept == copies[2:]
    with Ledger(kept[-1]) as restored:
        assert restored.answered("k").body == Outcome().body


def test_a_reader_makes_no_file_and_writes_nothing(path):
    with Ledger(path, read_only=True) as ledger:
        assert ledger.spent().calls == 0
        assert ledger.calls().num_rows == 0
    assert not path.exists()
    Ledger(path).close()
    with Ledger(path, read_only=True) as ledger, pytest.raises(OSError, match="could not be written"):
        ledger.intend(Request("k"))


def test_a_closed_ledger_takes_no_more_entries(path):
    ledger = Ledger(path)
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerClosedError, match="it was closed"):
        ledger.intend(Request("k"))


def test_a_full_disk_stops_the_ledger_and_keeps_what_was_acknowledged(path, monkeypatch):
    from warehouse import ledger_file

    real = ledger_file._prepare

    def small(db, path, *, read_only):
        real(db, path, read_only=read_only)
        db.execute("PRAGMA max_page_count = 40")

    monkeypatch.setattr(ledger_file, "_prepare", small)
    acknowledged = []
    with Ledger(path) as ledger:
        with pytest.raises(DiskFullError, match="make room") as caught:
            for number in range(1000):
                ledger.intend(Request(f"k{number}"))
                ledger.settle(f"k{number}", 1, Outcome(body=b"x" * 2000))
                acknowledged.append(f"k{number}")
        assert caught.value.exit_code == 4
        with pytest.raises(DiskFullError):  # the same reason, with the same exit code, for whoever comes later
            ledger.mark()
    monkeypatch.undo()
    assert acknowledged
    with Ledger(path) as ledger:
        assert all(ledger.answered(key) for key in acknowledged)


def test_the_journal_never_uses_wal(path):
    with Ledger(path):
        pass
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] != "wal"


def test_a_batch_is_one_commit_and_a_refused_entry_leaves_its_neighbours_alone(path):
    with Ledger(path) as ledger:
        first = ledger.submit(intents=[(Request("a"), 30, 0.5), (Request("b"), 30, None), (Request("a"), 30, 0.5)])
        assert first.result().numbers == [1, 1, 2]
        second = ledger.submit(
            settlements=[("a", 1, Outcome()), ("nobody", 1, Outcome()), ("a", 1, Outcome()), ("b", 1, Outcome())],
            keys=["a", "c", "b"],
            intents=[(Request("a"), 1, None), (Request("c"), 1, None)],
        ).result()
        assert [refusal and type(refusal) for refusal in second.refusals] == [
            None, UnknownAttemptError, UnknownAttemptError, None,
        ]  # fmt: skip
        assert isinstance(second.numbers[0], AlreadyAnsweredError) and second.numbers[1] == 1
        answers = [(standing.answer is not None, standing.attempts) for standing in second.standings]
        assert answers == [(True, 2), (False, 0), (True, 1)]


def test_what_is_committed_is_the_real_cost_or_the_worst_case_and_an_error_reply_is_free(path):
    with Ledger(path) as ledger:
        for key in ("known", "silent", "refused", "vague", "open"):
            ledger.intend(Request(key), worst_tokens=100, worst_usd=1.0)
        ledger.settle("known", 1, Outcome(tokens_in=10, tokens_out=5, usd=0.25))
        ledger.settle("silent", 1, Outcome("sent", None, "deadline", 1.0, None, None, None, body=None))
        ledger.settle("refused", 1, Outcome("retryable", 503, "http_503", 1.0, None, None, None, body=None))
        ledger.settle("vague", 1, Outcome("ok", 200, None, 1.0, None, None, None))
        total, uncertain = ledger.committed(), ledger.uncertain_cost()
        assert (total.calls, total.tokens, total.usd) == (5, 15 + 100 + 0 + 100 + 100, 0.25 + 1.0 + 0 + 1.0 + 1.0)
        assert (uncertain.attempts, uncertain.tokens, uncertain.usd, uncertain.unpriced) == (2, 200, 2.0, 0)
        assert ledger.committed(since_us=2**60).calls == 0


def test_a_body_that_was_no_reply_is_kept_cut_short_and_answers_nothing(path):
    with Ledger(path) as ledger:
        ledger.intend(Request("k"))
        ledger.settle("k", 1, Outcome(state="retryable", body=None, rejected=b"<html>" * 20_000))
        assert ledger.answered("k") is None
        assert ledger.rejected("k") == [(b"<html>" * 20_000)[: 64 * 1024]]


def test_a_ledger_of_the_first_format_is_carried_on_with_everything_in_it(path):
    from warehouse import ledger_file

    with sqlite3.connect(path) as db:
        db.executescript(ledger_file._STEPS[0] + "PRAGMA user_version = 1;")
        db.execute("INSERT INTO attempt (key, n, state, started_at) VALUES ('k', 1, 'sent', 5)")
    with Ledger(path) as ledger:
        assert ledger.submit(keys=["k"]).result().standings[0].attempts == 1
        ledger.settle("k", 1, Outcome())
        assert ledger.answered("k").body == Outcome().body
        assert ledger.calls().to_pylist()[0]["worst_usd"] is None
