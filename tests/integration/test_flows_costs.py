"""The table of costs: every call in exactly one row, whoever made it; an unknown price stays unknown."""

from __future__ import annotations

import json
from datetime import date

import pytest
from servers.catalogue import write_catalogue
from servers.counting import chat, counting_server

from flows import cli
from flows.deployed import cost_table
from flows.report import CostRow
from flows.steps.costs import cost_rows
from warehouse import Warehouse

PRICE = {"price.input_usd_per_million": 1.0, "price.output_usd_per_million": 10.0}
USD_A_CALL = 100 * 1e-6 + 20 * 10e-6


def rows(folder) -> list[dict]:
    warehouse = Warehouse(folder / "w")
    snapshot = warehouse.current()
    assert snapshot is not None
    found = cost_rows(warehouse, snapshot)
    assert sum(row["calls"] for row in found) == snapshot.rows("llm_calls")
    return found


def test_calls_of_runs_pilots_and_stopped_runs_are_each_in_one_row(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def script(number, asked):
        faulty = 'Game number 1"' in asked["messages"][-1]["content"]
        return chat("no JSON at all") if faulty and "games_played" not in str(asked) else chat()

    with counting_server(script) as (url, server):
        write_catalogue(tmp_path, url, items=10, users=3, **PRICE, **{"cap.calls": 6})
        assert cli.run(["plan", "--pilot", "4"]) == 0
        assert cli.run(["profile"]) == 4  # the cap stops it after six more
        assert cli.run(["profile", "--set", "profiles.engine.cap.calls=100"]) == 3
        n_calls = len(server.requests)
    (run, others) = rows(tmp_path)
    assert (others["engine"], others["calls"], others["cached"], others["quarantined"]) == (None, 10, None, None)
    assert (run["engine"], run["model"], run["cached"]) == ("openai", "tiny", 10)
    assert (run["calls"], run["replies"], run["reasked"], run["quarantined"]) == (n_calls - 10, n_calls - 10, 1, 1)
    assert (run["tokens_in"], run["tokens_out"]) == (100 * run["calls"], 20 * run["calls"])
    for row in (run, others):
        assert row["usd"] == pytest.approx(USD_A_CALL * row["calls"])
    capsys.readouterr()
    assert cli.run(["sql", "SELECT sum(calls) AS n FROM cost_by_engine()", "--json"]) == 0
    (total,) = json.loads(capsys.readouterr().out)["rows"]
    assert int(total["n"]) == n_calls


def test_a_price_nobody_knows_stays_unknown_and_one_unknown_call_makes_a_sum_unknown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def script(number, asked):
        return chat(usage={"prompt_tokens": 100}) if number == 1 else chat()  # one reply does not say what it took

    with counting_server(script) as (url, _):
        write_catalogue(tmp_path, url, items=5, users=1, **PRICE)
        assert cli.run(["preview", "--send", "-n", "1"]) == 0
        assert cli.run(["profile"]) == 0
    run, preview = rows(tmp_path)
    assert (preview["calls"], preview["usd"], preview["tokens_in"]) == (1, None, 100)
    assert run["usd"] == pytest.approx(5 * USD_A_CALL)
    shown = cost_table([preview])[0]
    assert (shown["usd"], shown["engine"], shown["cached"]) == ("unknown", "", "")
    assert CostRow(**preview).usd is None


def test_a_catalogue_that_asks_no_model_has_no_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_catalogue(tmp_path, "http://127.0.0.1:9/v1", items=5, users=1)
    assert cli.run(["profile", "--set", "profiles.engine=attributes"]) == 0
    assert rows(tmp_path) == []


def test_an_artifact_holds_only_what_json_can_say():
    row = {"day": date(2026, 1, 2), "engine": "openai", "model": "m", "calls": 3, "usd": 0.1 + 0.2, "cached": None}
    assert json.loads(json.dumps(cost_table([row]))) == [{**row, "day": "2026-01-02", "usd": 0.3, "cached": ""}]
