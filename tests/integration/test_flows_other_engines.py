"""Profiles through the command line from the engines that are not a single call: local, file, openai-batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from servers.batches import Plan, answer_line, batch_server
from servers.choices import CHOICES, RANDOM_MODEL, write_choices_catalogue, write_choices_settings
from servers.llama import write_random_gguf

from flows import cli
from warehouse import Warehouse

REPLY = {"reasoning": "seen", "profile": CHOICES[0]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    write_choices_catalogue(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_settings(folder: Path, **engine) -> None:
    write_choices_settings(folder, engine)


def command(capfd, *words: str) -> tuple[int, dict, str, str]:
    """(exit code, its JSON, the last line on standard error, all of standard error)."""
    capfd.readouterr()
    code = cli.run([*words, "--json"])
    out, err = capfd.readouterr()
    return code, json.loads(out) if out else {}, err.strip().splitlines()[-1], err


def profiles(folder: Path) -> list[dict]:
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    return snapshot.read("profiles").to_pylist()


def test_local_goes_from_items_to_profiles_with_no_server_and_every_reply_within_the_schema(folder, capfd):
    pytest.importorskip("xllamacpp", reason="the extra `local-llm` is not installed")
    write_random_gguf(folder / "random.gguf")
    write_settings(folder, name="local", model=RANDOM_MODEL, gguf="random.gguf", threads=1, max_tokens=300)
    code, document, _, err = command(capfd, "profile")
    assert code == 0 and (document["calls"], document["profiles_failed"], document["usd"]) == (10, 0, 0.0)
    rows = profiles(folder)
    assert len(rows) == 10 and all(row["profile"] in CHOICES for row in rows)
    assert {row["source"] for row in rows} == {RANDOM_MODEL}
    assert "slot" not in err and "llama_" not in err  # the library's own chatter stays away
    write_settings(folder, name="openai", model=RANDOM_MODEL, base_url="http://127.0.0.1:9/v1", max_tokens=300)
    code, document, _, _ = command(capfd, "profile")
    assert code == 0 and document["calls"] == 0  # the same keys and the same profiles: nobody is asked anything


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "no such file"),
        (b"PK\x03\x04zip", r"it begins with b'PK\x03\x04'"),
        (b"GGUF and then nonsense", "cannot load"),
    ],
)
def test_local_refuses_what_is_no_model_in_one_sentence(folder, capfd, content, sentence):
    pytest.importorskip("xllamacpp", reason="the extra `local-llm` is not installed")
    if content is not None:
        (folder / "random.gguf").write_bytes(content)
    write_settings(folder, name="local", model="m", gguf="random.gguf", threads=1)
    code, _, last, _ = command(capfd, "profile")
    assert code == 2 and sentence in last and "expected a model in the GGUF format" in last
    assert str(folder / "random.gguf") in last


def answer(folder: Path) -> int:
    """Stands for the other program: reads the request file, writes the results beside it."""
    lines = [json.loads(line) for line in (folder / "ask.jsonl").read_text(encoding="utf-8").splitlines()]
    results = "".join(json.dumps(answer_line(line, REPLY)) + "\n" for line in lines)
    (folder / "results.jsonl").write_text(results, encoding="utf-8")
    return len(lines)


def test_file_writes_requests_waits_for_their_answers_and_loses_none(folder, capfd):
    write_settings(folder, name="file", model="elsewhere", requests_path="ask.jsonl", results_path="results.jsonl")
    code, _, last, _ = command(capfd, "profile")
    assert code == 4 and "6 requests to `elsewhere`" in last and last.endswith("resumable: semalign profile --json")
    assert answer(folder) == 6
    code, _, last, _ = command(capfd, "profile")  # users are described from the profiles of their items
    assert code == 4 and "4 requests to `elsewhere`" in last
    assert answer(folder) == 4
    code, document, _, _ = command(capfd, "profile")
    assert code == 0 and document["profiles_failed"] == 0 and document["usd"] is None
    assert {(row["profile"], row["source"]) for row in profiles(folder)} == {(CHOICES[0], "elsewhere")}
    assert len(profiles(folder)) == 10
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None and snapshot.rows("llm_calls") == 10
    assert not (folder / "ask.jsonl.partial").exists()


def batch_settings(folder: Path, url: str, **more) -> None:
    write_settings(folder, name="openai-batch", model="m", base_url=url, poll_s=0.01, adopt_wait_s=0.05, **more)


def test_batches_are_listed_cancelled_and_collected(folder, capfd):
    with batch_server(lambda number, n: Plan("in_progress", finished=0.5) if number == 1 else Plan()) as (url, backend):
        backend.profile = REPLY
        batch_settings(folder, url, wait_s=0.0)
        code, _, last, _ = command(capfd, "profile")
        assert code == 4 and "1 batches with 6 requests" in last and "semalign batches list" in last
        code, document, _, _ = command(capfd, "plan")  # what waits at the server is submitted, and not a call to come
        stage = document["stages"][1]
        assert (stage["calls"], stage["cached"], stage["facts"]["in_batches"]) == (4, 0, 6)
        code, document, last, _ = command(capfd, "batches", "list")
        (row,) = document["batches"]
        assert code == 0 and (row["batch_id"], row["state"], row["requests"]) == ("batch_1", "submitted", 6)
        assert document["open"] == 1 and last.endswith("→ semalign profile")
        assert command(capfd, "batches", "list", "--live")[1]["batches"][0]["status"] == "in_progress"
        code, _, last, _ = command(capfd, "batches", "cancel", "batch_7")
        assert code == 2 and "no open batch `batch_7`; open: batch_1" in last
        assert command(capfd, "batches", "cancel")[0] == 2
        code, document, last, _ = command(capfd, "batches", "cancel", row["shard"][:8])
        assert code == 0 and document["cancelled"] == [{"batch_id": "batch_1", "status": "cancelled"}]
        batch_settings(folder, url)
        code, document, _, _ = command(capfd, "profile")
        assert code == 0 and document["profiles_failed"] == 0 and len(profiles(folder)) == 10
        sizes = [len(backend.lines_of(name)) for name in backend.batches]
        code, document, last, _ = command(capfd, "batches", "cancel", "--all")
        assert code == 0 and document["cancelled"] == [] and "no open batch" in last
        assert cli.run(["batches", "list"]) == 0 and "harvested" in capfd.readouterr().out
    assert sizes == [6, 3, 4] and set(backend.charged.values()) == {1}


def test_results_that_are_gone_are_paid_again_only_when_it_is_said(folder, capfd):
    with batch_server(lambda number, n: Plan(looks=2)) as (url, backend):
        backend.profile = REPLY
        batch_settings(folder, url, wait_s=0.0)
        assert command(capfd, "profile")[0] == 4
        backend.batches.clear()
        batch_settings(folder, url)
        for _ in range(2):
            code, _, last, _ = command(capfd, "profile")
            assert code == 4 and "results gone: 6 rows must be paid again; confirm with --repay" in last
        assert not backend.batches
        code, document, _, _ = command(capfd, "profile", "--repay")
        assert code == 0 and document["profiles_failed"] == 0 and len(profiles(folder)) == 10


def test_only_the_engine_with_a_batch_api_can_be_asked_about_batches(folder, capfd):
    write_settings(folder, name="attributes")
    assert command(capfd, "batches", "list")[1] == {"batches": [], "open": 0, "open_requests": 0}
    code, _, last, _ = command(capfd, "batches", "list", "--live")
    assert code == 2 and "openai-batch" in last
