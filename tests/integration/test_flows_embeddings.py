"""Vectors from a server of the OpenAI protocol, from sources to a trained model: paid once, counted, planned."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.catalogue import write_games
from servers.commands import command
from servers.counting import CountingServer, Reply, counting_server, failure
from servers.embeddings import WIDTH, embedded, too_long_for, unit_of, vector_of
from servers.training import train_here

from warehouse import Warehouse

N_ITEMS, N_USERS = 24, 12
CANARY = "sk-a-canary-key-of-the-tests"


def write(folder: Path, url: str, *, items: int = N_ITEMS, **settings: Any) -> None:
    """Sources and settings: attributes become profiles, a server on loopback makes vectors of them."""
    write_games(folder, items)
    lines = ["user_id,item_id,split"]
    for user in range(N_USERS):
        for step, part in enumerate(["train", "train", "train", "train", "valid", "test"]):
            lines.append(f"u{user},i{(user * 2 + step) % N_ITEMS},{part}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = {
        "name": "openai",
        "model": "test-embedder",
        "base_url": url,
        "texts_per_call": 5,
        "backoff_s": 0,
        **settings,
    }
    inline = "\n".join(f"{name} = {json.dumps(value)}" for name, value in told.items())
    text = f"""
[source]
items = "items.jsonl"
interactions = "rows.csv"
[split]
kind = "given"
[profiles]
domain = "games"
[embeddings]
{inline}
[training]
epochs = 1
[evaluation]
baselines = []
[warehouse]
root = "w"
"""
    (folder / "semalign.toml").write_text(text, encoding="utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    return tmp_path


def texts_sent(server: CountingServer) -> list[str]:
    return [text for asked in server.requests for text in asked["input"]]


def rows_of(folder: Path, table: str) -> list[dict[str, Any]]:
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    return snapshot.read(table).to_pylist()


def test_a_run_buys_its_vectors_once_trains_on_them_and_a_second_run_asks_nobody(folder, monkeypatch, capsys):
    train_here(monkeypatch)
    with counting_server(lambda n, asked: embedded(asked, order=range(len(asked["input"]))[::-1])) as (url, server):
        write(folder, url)
        code, first, _ = command(capsys, "run")
        assert code == 0 and first["calls"] == len(server.requests) == 5
        assert (first["usd"], first["embedded"]) == (0.0, N_ITEMS) and first["metrics"]["dmrec"]
        code, second, last = command(capsys, "run")
        assert code == 0 and second["calls"] == 0 and len(server.requests) == 5 and "nothing changed" in last
    profiles = {row["entity_id"]: row["profile"] for row in rows_of(folder, "profiles") if row["kind"] == "item"}
    vectors = rows_of(folder, "embeddings_test_embedder")
    for row in vectors:
        if row["kind"] == "item":
            assert np.allclose(row["embedding"], unit_of(profiles[row["entity_id"]]), atol=1e-6)
    assert sum(row["kind"] == "user" for row in vectors) == N_USERS and len(vectors[0]["embedding"]) == WIDTH
    calls = rows_of(folder, "llm_calls")
    assert {(call["kind"], call["entity_id"], call["state"]) for call in calls} == {
        ("texts", "5 texts", "ok"),
        ("texts", "4 texts", "ok"),
    }
    code, document, _ = command(capsys, "sql", "FROM cost_by_engine()")
    (cost,) = document["rows"] if isinstance(document, dict) else document
    told = cost if isinstance(cost, dict) else dict(zip(document["columns"], cost, strict=True))
    assert (told["engine"], told["calls"], told["replies"], told["usd"]) == ("openai-embeddings", 5, 5, 0.0)
    assert told["tokens_in"] == first["tokens_in"] == sum(call["tokens_in"] for call in calls)
    written = b"".join(path.read_bytes() for path in (folder / "w").rglob("*") if path.is_file())
    assert CANARY.encode() not in written


def test_one_changed_profile_is_one_text_and_what_was_paid_before_comes_from_the_ledger(folder, capsys):
    with counting_server(lambda n, asked: embedded(asked)) as (url, server):
        write(folder, url)
        assert command(capsys, "embed")[0] == 0
        text = (folder / "items.jsonl").read_text(encoding="utf-8")
        (folder / "items.jsonl").write_text(text.replace("Game number 7", "Another game"), encoding="utf-8")
        code, changed, _ = command(capsys, "embed")
        assert code == 0 and (changed["calls"], len(texts_sent(server))) == (1, N_ITEMS + 1)
        # a limit that cuts nothing is another encoder, and asks for nothing: the ledger has every text
        code, limited, _ = command(capsys, "embed", "--set", "embeddings.max_tokens=500")
        assert code == 0 and (limited["calls"], limited["embedded"]) == (0, N_ITEMS)
        (folder / "items.jsonl").write_text(text, encoding="utf-8")
        assert command(capsys, "embed")[1]["calls"] == 0


def test_a_server_that_makes_other_vectors_than_before_is_told_apart_by_their_length(folder, capsys):
    numbers = {"dimensions": WIDTH}
    with counting_server(lambda n, asked: embedded({**asked, **numbers})) as (url, server):
        write(folder, url)
        assert command(capsys, "embed")[0] == 0
        numbers["dimensions"] = 8
        write(folder, url, items=N_ITEMS + 2)
        code, _, last = command(capsys, "embed")
    assert code == 2 and f"8 numbers, expected {WIDTH}" in last and len(server.requests) == 6


def test_a_plan_counts_texts_calls_tokens_and_money_before_and_after(folder, capsys):
    with counting_server(lambda n, asked: embedded(asked)) as (url, server):
        write(folder, url, texts_per_call=4)
        priced = ("--set", "embeddings.price={input_usd_per_million=1000.0}")
        code, plan, _ = command(capsys, "plan", *priced)
        stage = next(stage for stage in plan["stages"] if stage["stage"] == "embed")
        assert code == 0 and not server.requests and not (folder / "w" / "ledger.sqlite").exists()
        assert (stage["calls"], stage["facts"]["texts"]) == (N_ITEMS / 4, N_ITEMS) and stage["what"].startswith(
            "at most"
        )
        assert plan["usd"] == stage["usd"] == stage["tokens"] / 1000 > 0 and plan["usd_low"] is None
        assert command(capsys, "profile")[0] == 0
        _, plan, _ = command(capsys, "plan", *priced)
        stage = next(stage for stage in plan["stages"] if stage["stage"] == "embed")
        code, paid, _ = command(capsys, "embed", *priced)
        assert code == 0 and paid["calls"] == stage["calls"] and "at most" not in stage["what"]
        assert 0.5 < stage["tokens"] / paid["tokens_in"] < 2 and paid["usd"] == paid["tokens_in"] / 1000
        # what is already there makes the next plan sharper: an interval, and only what is missing
        write(folder, url, items=N_ITEMS + 8, texts_per_call=4)
        assert command(capsys, "profile")[0] == 0
        _, plan, _ = command(capsys, "plan", *priced)
        stage = next(stage for stage in plan["stages"] if stage["stage"] == "embed")
        assert (stage["facts"]["texts"], stage["facts"]["texts_known"], stage["calls"]) == (8, N_ITEMS, 2)
        assert stage["facts"]["measured_calls"] == 6
        _, paid, _ = command(capsys, "embed", *priced)
        assert plan["usd_low"] <= paid["usd"] <= plan["usd_high"]


def test_a_text_that_is_refused_is_in_quarantine_masked_and_asked_again_on_demand(folder, capsys):
    limits = {"limit": 60}

    def script(number: int, asked: Mapping[str, Any]) -> Reply:
        return too_long_for(limits["limit"])(number, asked)

    with counting_server(script) as (url, server):
        write(folder, url)
        text = (folder / "items.jsonl").read_text(encoding="utf-8")
        text = text.replace("Game number 7", "Game number 7 " + "with a very long name " * 5)
        (folder / "items.jsonl").write_text(text, encoding="utf-8")
        code, document, last = command(capsys, "embed")
        assert code == 3 and document["quarantined"] == 1 and "quarantine list" in last
        (row,) = rows_of(folder, "quarantine")
        assert (row["stage"], row["kind"], row["entity_id"], row["code"]) == ("embed", "item", "i7", "http_400")
        assert "maximum context length" in row["detail"] and "embeddings.max_tokens" in row["detail"]
        assert "i7" not in {row["entity_id"] for row in rows_of(folder, "embeddings_test_embedder")}
        n_calls = len(server.requests)
        assert command(capsys, "embed")[1]["calls"] == 0 and len(server.requests) == n_calls
        limits["limit"] = 1_000
        code, document, _ = command(capsys, "run", "--until", "embed", "--retry")
        assert code == 0 and (document["calls"], document["quarantined"]) == (1, 0)
        assert "i7" in {row["entity_id"] for row in rows_of(folder, "embeddings_test_embedder")}


def test_a_cap_ends_the_run_with_exit_code_4_and_the_next_one_pays_for_the_rest_alone(folder, capsys):
    with counting_server(lambda n, asked: embedded(asked)) as (url, server):
        write(folder, url, concurrency=1)
        code, _, last = command(capsys, "embed", "--set", "embeddings.cap={calls=2}")
        assert code == 4 and "embeddings.cap.calls" in last and len(server.requests) == 2
        code, document, _ = command(capsys, "embed")
        assert code == 0 and document["calls"] == 3 and sorted(texts_sent(server)) == sorted(set(texts_sent(server)))
        document = command(capsys, "sql", "SELECT count(*) AS n FROM llm_calls")[1]
    assert "5" in json.dumps(document)


def test_a_paid_server_without_a_cap_is_refused_before_profiles_are_bought(folder, capsys):
    with counting_server() as (url, server):
        write(folder, "https://api.example.com/v1")
        chat = f'profiles.engine={{name="openai", model="tiny", base_url="{url}"}}'
        code, _, last = command(capsys, "embed", "--set", chat)
    assert code == 2 and "[embeddings.cap]" in last and not server.requests


def test_the_doctor_looks_at_cap_and_key_and_no_key_is_read_from_settings(folder, capsys, monkeypatch):
    write(folder, "http://127.0.0.1:1/v1")
    _, found, _ = command(capsys, "doctor")
    assert "test-embedder at http://127.0.0.1:1/v1, not paid" in json.dumps(found)
    write(folder, "https://api.example.com/v1")
    assert "[embeddings.cap]" in json.dumps(command(capsys, "doctor")[1])
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "OPENAI_API_KEY is empty" in json.dumps(command(capsys, "doctor", "--set", "embeddings.cap={calls=1}")[1])
    code, _, last = command(capsys, "embed", "--set", "embeddings.api_key=sk-0123456789abcdef")
    assert code == 2 and "0123456789" not in last


def test_a_refused_key_ends_the_run_with_exit_code_4(folder, capsys):
    with counting_server(lambda n, asked: failure(401, message="no such key")) as (url, server):
        write(folder, url, concurrency=1)
        code, _, last = command(capsys, "embed")
    assert code == 4 and "no such key" in last and "embeddings.model" in last and len(server.requests) == 1


def test_similar_to_a_text_asks_once_for_the_text(folder, capsys):
    with counting_server(lambda n, asked: embedded(asked)) as (url, server):
        write(folder, url)
        assert command(capsys, "embed")[0] == 0
        n_calls = len(server.requests)
        profile = next(row["profile"] for row in rows_of(folder, "profiles") if row["entity_id"] == "i7")
        for _ in range(2):
            code, document, _ = command(capsys, "similar", "--text", "a quiet puzzle")
            assert code == 0 and len(document["similar"]) > 3
        assert len(server.requests) == n_calls + 1
        code, document, _ = command(capsys, "similar", "--text", profile)
        assert document["similar"][0]["item_id"] == "i7" and len(server.requests) == n_calls + 1


def test_forgetting_a_user_takes_their_vector_and_keeps_the_paid_ones_of_everybody_else(folder, capsys):
    with counting_server(lambda n, asked: embedded(asked)) as (url, server):
        write(folder, url)
        users = [{"user_id": f"u{n}", "interests": ["reading at night", f"number {n}"]} for n in range(N_USERS)]
        (folder / "users.jsonl").write_text("".join(json.dumps(row) + "\n" for row in users), encoding="utf-8")
        with_users = ("--set", "source.users=users.jsonl")
        assert command(capsys, "embed", *with_users)[0] == 0
        profile = next(row["profile"] for row in rows_of(folder, "profiles") if row["entity_id"] == "u3")
        raw = base64.b64encode(vector_of(profile).astype("<f4").tobytes())
        ledger = folder / "w" / "ledger.sqlite"
        assert raw in ledger.read_bytes() and len(texts_sent(server)) == N_ITEMS + N_USERS
        assert command(capsys, "forget-user", "u3", "--yes")[0] == 0
        assert raw not in ledger.read_bytes()
        n_calls = len(server.requests)
        code, document, last = command(capsys, "embed", *with_users)
        assert (code, document["calls"], len(server.requests)) == (0, 0, n_calls), last
    assert "u3" not in {row["entity_id"] for row in rows_of(folder, "embeddings_test_embedder")}


def test_forgetting_a_user_keeps_the_paid_vectors_of_columns_but_for_their_own(folder, capsys):
    with counting_server(lambda n, asked: embedded(asked)) as (url, server):
        write(folder, url)
        users = [{"user_id": f"u{n}", "interests": ["reading at night", f"number {n}"]} for n in range(N_USERS)]
        (folder / "users.jsonl").write_text("".join(json.dumps(row) + "\n" for row in users), encoding="utf-8")
        columns = {"name": "openai", "model": "test-embedder", "base_url": url, "texts": ["title", "interests"]}
        told = "\n".join(f"{name} = {json.dumps(value)}" for name, value in columns.items())
        path = folder / "semalign.toml"
        path.write_text(f"{path.read_text(encoding='utf-8')}[encoders.columns]\n{told}\n", encoding="utf-8")
        with_users = ("--set", "source.users=users.jsonl")
        assert command(capsys, "embed", *with_users)[0] == 0
        sent, own = texts_sent(server), "reading at night, number 3"
        assert {"Game number 7", own, "reading at night, number 4"} < set(sent) and len(sent) == len(set(sent))
        raw = base64.b64encode(vector_of(own).astype("<f4").tobytes())
        ledger = folder / "w" / "ledger.sqlite"
        assert raw in ledger.read_bytes()
        assert command(capsys, "forget-user", "u3", "--yes")[0] == 0
        assert raw not in ledger.read_bytes()
        n_calls = len(server.requests)
        code, document, last = command(capsys, "embed", *with_users)
        assert (code, document["calls"], len(server.requests)) == (0, 0, n_calls), last
    assert {row["entity_id"] for row in rows_of(folder, "embeddings_columns")} >= {"u2", "u4", "i7"}
