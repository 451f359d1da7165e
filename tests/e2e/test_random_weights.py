"""From items to recommendations with a real llama.cpp server: random weights, so what it writes is test output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from servers.choices import CHOICES, DOMAIN, RANDOM_MODEL, write_choices_catalogue, write_choices_settings
from servers.llama import llama_server
from servers.training import train_here

import providers
from benchmarks.stand_ins import StandInEncoder
from flows import cli
from warehouse import Warehouse

pytest.importorskip("xllamacpp", reason="the extra `local-llm` is not installed")

ROOT = Path(__file__).parents[2]
FIRST = 'name = "Test output: profiles by random weights"\ngenerated = true'
LEARNING = """
[model]
name = "dmrec"
[model.base]
name = "mult_vae"
hidden_dim = 16
latent_dim = 8
[training]
epochs = {epochs}
batch_size = 8
[evaluation]
baselines = ["popularity"]
[recommend]
k = 3
"""
ROWS = {"items": 10, "users": 8}
N = sum(ROWS.values())


class ChoiceEncoder(StandInEncoder):
    """A unit vector a choice; stands in for a sentence encoder where the run itself is what is looked at."""

    key, short_name, dim, model, dtype = "c" * 64, "choices", len(CHOICES), "choices", "float32"

    def encode(self, texts, on_progress=None):
        return np.eye(len(CHOICES), dtype=np.float32)[[CHOICES.index(text) for text in texts]]


@pytest.fixture
def folder(tmp_path: Path):
    """A catalogue and a running server, which the settings name."""
    write_choices_catalogue(tmp_path, **ROWS)
    with llama_server(tmp_path) as base_url:
        engine = {"name": "openai", "model": RANDOM_MODEL, "base_url": base_url, "max_tokens": 300, "concurrency": 2}
        write_choices_settings(tmp_path, engine, [LEARNING.format(epochs=3)], FIRST)
        yield tmp_path


def test_a_real_server_with_random_weights_leads_from_items_to_recommendations(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(providers, "parse_encoder", lambda settings: ChoiceEncoder())
    train_here(monkeypatch)
    code = cli.run(["run", "--json"])
    document = json.loads(capsys.readouterr().out)
    check_run(folder, code, document)
    assert cli.run(["run", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["calls"], again["trained"], again["new_snapshot"]) == (0, 0, False)


@pytest.mark.full
def test_the_command_itself_does_it_with_the_real_encoder(folder):
    """In processes of their own, as a user starts them: about 25 s, most of it imports."""
    words = [sys.executable, "-m", "flows.cli", "run", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    check_run(folder, finished.returncode, json.loads(finished.stdout))


def check_run(folder: Path, code: int, document: dict) -> None:
    """Everything a run promises is there, and says that it is test output wherever it is shown."""
    assert code == 0 and document["profiles_failed"] == 0 and document["usd"] == 0.0
    assert document["calls"] >= N  # a reply that random weights fill with white space is asked for once more
    assert set(document["metrics"]) == {"dmrec", "popularity"}
    snapshot = Warehouse(folder / "w").current()
    assert snapshot is not None
    profiles = snapshot.read("profiles").to_pylist()
    assert len(profiles) == N and {row["profile"] for row in profiles} <= set(CHOICES)
    assert {row["source"] for row in profiles} == {RANDOM_MODEL}
    assert {row["prompt_id"] for row in profiles} == {f"{DOMAIN}/item", f"{DOMAIN}/user"}
    prompts = snapshot.read("prompts").to_pylist()
    assert all("test output and mean nothing" in row["text"] for row in prompts)
    for row in snapshot.read("recommendations").to_pylist():
        assert row["rank"] <= 3
    assert snapshot.rows("recommendations") == 3 * ROWS["users"]
    page = Path(document["report"]).read_text(encoding="utf-8")
    for sentence in ("Test output: profiles by random weights", "generated catalogue", f"profiles: {RANDOM_MODEL}"):
        assert sentence in page
    assert f"from {DOMAIN}/item v1, {DOMAIN}/user v1" in page
