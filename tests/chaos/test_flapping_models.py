"""A server that falls back to another model: every reply says which it came from, and nobody is left to find out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from servers.catalogue import write_catalogue
from servers.counting import Reply, chat, counting_server

from flows import cli
from warehouse import Warehouse


def reply_of(model: str, fingerprint: str) -> Reply:
    good = chat()
    return replace(
        good, body=json.dumps({**json.loads(good.body), "model": model, "system_fingerprint": fingerprint}).encode()
    )


def profile(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    capsys.readouterr()
    code = cli.run(["profile", "--json", "--config", str(folder)])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


def test_T_L7_a_server_that_flaps_between_models_is_told_of_and_counted_and_every_row_names_its_model(tmp_path, capsys):
    def flapping(number: int, asked: Mapping[str, Any]) -> Reply:
        return reply_of("tiny-2026-01-31", "fp_a") if number % 3 else reply_of("fallback\x1b[31m-mini", "fp_b")

    with counting_server(flapping) as (url, _):
        write_catalogue(tmp_path, url, items=10, users=2, concurrency=1)
        code, document, err = profile(tmp_path, capsys)
    assert code == 0 and document["profiles_by_other_models"] == 4
    assert err.count("not from `tiny`, which was asked") == 1  # at the first such reply, not at each
    assert "4 profiles come from another model than `tiny` (tiny-2026-01-31 8, fallback" in err and "\x1b" not in err
    snapshot = Warehouse(tmp_path / "w").current()
    assert snapshot is not None
    said = snapshot.stages["profile"]["summary"]
    assert said["answered_by"] == {"tiny-2026-01-31": 8, "fallback\x1b[31m-mini": 4}
    for table in ("profiles", "llm_calls"):
        assert Counter(snapshot.read(table)["model"].to_pylist()) == said["answered_by"], table
    with Warehouse(tmp_path / "w").ledger(read_only=True) as ledger:
        keys = snapshot.read("profiles")["request_key"].to_pylist()
        usages = [json.loads(answer.usage or "") for answer in map(ledger.answered, keys) if answer is not None]
    assert Counter(usage["system_fingerprint"] for usage in usages) == {"fp_a": 8, "fp_b": 4}


def test_the_model_that_was_asked_under_its_dated_name_is_no_news(tmp_path, capsys):
    with counting_server(lambda number, asked: reply_of("tiny-2026-01-31", "fp_a")) as (url, _):
        write_catalogue(tmp_path, url, items=6, users=1)
        code, document, err = profile(tmp_path, capsys)
    assert code == 0 and document["profiles_by_other_models"] == 0 and "another model" not in err
