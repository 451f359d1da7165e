"""What a run will cost: by the listed price, by the user's own, and unknown where nobody knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from servers.catalogue import write_catalogue
from servers.counting import counting_server

from flows import cli
from providers import price_of
from warehouse import Warehouse

PAID = "https://models.example/v1"
OWN = {"input_usd_per_million": 3.0, "output_usd_per_million": 7.0}
OWN_WORDS = "profiles.engine.price={input_usd_per_million=3.0, output_usd_per_million=7.0}"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_catalogue(tmp_path, PAID, items=6, users=1)


def planned(capsys: pytest.CaptureFixture[str], *settings: str) -> tuple[dict[str, Any], str]:
    """(the profile stage of the plan, the last line on standard error)."""
    capsys.readouterr()
    words = [word for text in settings for word in ("--set", text)]
    assert cli.run(["plan", "--json", *words]) == 0
    out, err = capsys.readouterr()
    stages = {stage["stage"]: stage for stage in json.loads(out)["stages"]}
    return stages["profile"], err.strip().splitlines()[-1]


def test_the_users_price_changes_the_plan_and_an_unknown_one_stays_unknown(folder, capsys):
    model = "profiles.engine.model=gpt-4o-mini"
    listed, last = planned(capsys, model)
    mine, _ = planned(capsys, model, OWN_WORDS)
    unknown, unknown_last = planned(capsys)
    tokens_out = 220 * listed["calls"]
    tokens_in = listed["tokens"] - tokens_out
    price = price_of("gpt-4o-mini")
    assert price is not None and price.as_of.startswith("20")
    assert listed["usd"] == pytest.approx(price.cost(tokens_in, tokens_out)) and listed["usd"] > 0
    assert mine["usd"] == pytest.approx((3 * tokens_in + 7 * tokens_out) / 1e6) and mine["tokens"] == listed["tokens"]
    assert unknown["usd"] is None and unknown["calls"] == listed["calls"]
    assert f"about {listed['usd']:.4f} USD" in last and "an unknown price" in unknown_last


def test_a_cap_in_usd_without_a_price_is_refused_with_the_line_to_write(folder, capsys):
    capsys.readouterr()
    assert cli.run(["profile", "--set", "profiles.engine.cap.usd=5"]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "none is known for `tiny`" in last and "gpt-4o-mini" in last
    assert "profiles.engine.price = { input_usd_per_million = …, output_usd_per_million = … }" in last
    assert not list((folder / "w").glob("ledger*")), "nothing was sent, nothing was begun"


def test_the_price_a_run_reckoned_with_is_kept_beside_its_profiles(folder, capsys):
    with counting_server() as (url, _):
        write_catalogue(folder, url, items=6, users=1)
        assert cli.run(["profile", "--json", "--set", OWN_WORDS]) == 0
        document = json.loads(capsys.readouterr().out)
    assert document["usd"] == pytest.approx(7 * (100 * 3 + 20 * 7) / 1e6)
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    assert snapshot.stages["profile"]["summary"]["price"] == {"model": "tiny", **OWN, "as_of": "settings"}
