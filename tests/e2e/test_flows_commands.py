"""Whole commands in processes of their own: what they import, what they say, that a real training process answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "sentence_transformers", "transformers", "openai", "prefect", "sklearn", "matplotlib"}
SCRIPT = """\
import hashlib, json, sys
import numpy as np
import providers
from flows import cli

class Words:
    key, short_name, dim, model, dtype = "e" * 64, "words", 8, "words", "float32"
    describe = open = __enter__ = lambda self: self
    __exit__ = lambda self, *_: None
    identity = lambda self: self.key
    def encode(self, texts, on_progress=None):
        rows = [[hashlib.sha256(f"{text}{n}".encode()).digest()[0] + 1.0 for n in range(8)] for text in texts]
        return (np.array(rows) / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

providers.parse_encoder = lambda settings: Words()
code = cli.run(sys.argv[1:])
print(json.dumps(sorted(name for name in sys.modules if "." not in name)), file=sys.stderr)
sys.exit(code)
"""
SETTINGS = """\
model = "popularity"
[source]
items = "items.jsonl"
interactions = "rows.csv"
[profiles]
domain = "games"
[evaluation]
baselines = []
ks = [2]
select_by = "recall@2"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Settings and sources, run once to the end in processes of their own."""
    folder = tmp_path_factory.mktemp("commands")
    rows = [{"item_id": str(n), "title": f"Game {n}", "genres": ["puzzle"]} for n in range(8)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pairs = [f"u{user},{(user + step) % 8}" for user in range(10) for step in range(5)]
    (folder / "rows.csv").write_text("\n".join(["user_id,item_id", *pairs]) + "\n", encoding="utf-8")
    (folder / "semalign.toml").write_text(SETTINGS, encoding="utf-8")
    (folder / "command.py").write_text(SCRIPT, encoding="utf-8")
    first = command(folder, "run", "--json")
    assert first.returncode == 0, first.stderr
    return folder


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "command.py", *arguments]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def imported(finished: subprocess.CompletedProcess[str]) -> set[str]:
    return set(json.loads(finished.stderr.strip().splitlines()[-1]))


def test_a_run_ends_with_a_report_of_one_file(folder):
    document = json.loads(command(folder, "report", "--json").stdout)
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert "popularity" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_a_run_with_nothing_to_do_imports_nothing_heavy_and_changes_nothing(folder):
    again = command(folder, "run", "--json")
    document = json.loads(again.stdout)
    assert again.returncode == 0 and not imported(again) & HEAVY
    assert (document["new_snapshot"], document["calls"], document["embedded"], document["trained"]) == (False, 0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (["--help"], HEAVY | {"duckdb", "pyarrow"}),
        (["status"], HEAVY | {"duckdb"}),
        (["sql", "SELECT count(*) FROM items"], HEAVY),
        (["similar", "1"], HEAVY),
        (["plan"], HEAVY),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_looking_imports_only_what_it_needs(folder, arguments, unneeded):
    looked = command(folder, *arguments)
    assert looked.returncode == 0, looked.stderr
    assert not imported(looked) & unneeded


def test_without_a_terminal_progress_is_lines_and_the_last_one_says_how_to_go_on(folder):
    looked = command(folder, "run")
    lines = looked.stderr.strip().splitlines()[:-1]  # the script's own list of modules follows
    assert lines[-1].startswith("semalign: run done in") and "→ semalign status" in lines[-1]
    assert "\x1b[" not in looked.stdout + looked.stderr


@pytest.mark.full
def test_the_demo_runs_with_the_real_encoder(tmp_path):
    words = [
        sys.executable,
        "-m",
        "flows.cli",
        "demo",
        "--dir",
        str(tmp_path / "demo"),
        "--users",
        "200",
        "--items",
        "100",
    ]
    words += ["--set", "training.epochs=6", "--json"]
    finished = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert finished.returncode == 0, finished.stderr
    document = json.loads(finished.stdout)
    assert set(document["metrics"]) == {"dmrec", "mult_vae", "popularity"} and Path(document["report"]).is_file()
