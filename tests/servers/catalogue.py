"""A small catalogue in a folder, with settings that send its profiles to a server on loopback; and the real command."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def write_games(folder: Path, n: int) -> None:
    """items.jsonl with so many games, every one with a title of its own."""
    rows = [{"item_id": f"i{n}", "title": f"Game number {n}", "genres": ["puzzle"]} for n in range(n)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_catalogue(folder: Path, base_url: str, *, items: int, users: int, **engine: Any) -> Path:
    """Sources and semalign.toml for `items` + `users` requests, every one of them different."""
    write_games(folder, items)
    lines = ["user_id,item_id,text,split"]
    for user in range(users):
        for step, part in enumerate(["train", "train", "train", "valid", "test"]):
            lines.append(f"u{user},i{(user * 5 + step) % items},user {user} liked it,{part}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {"name": "openai", "model": "tiny", "base_url": base_url, **engine}
    inline = ", ".join(f"{name} = {json.dumps(value)}" for name, value in settings.items())
    text = f"""
[source]
items = "items.jsonl"
interactions = "rows.csv"
[split]
kind = "given"
[profiles]
domain = "games"
max_quarantined_share = 1.0
engine = {{ {inline} }}
[warehouse]
root = "w"
"""
    (folder / "semalign.toml").write_text(text, encoding="utf-8")
    return folder


def replies(folder: Path) -> dict[str, str]:
    """{key: sha256} of every acknowledged reply of such a catalogue, after SQLite has checked the whole file."""
    path = folder / "w" / "ledger.sqlite"
    if not path.exists():
        return {}
    with sqlite3.connect(path) as db:
        (verdict,) = db.execute("PRAGMA integrity_check").fetchone()
        assert verdict == "ok"
        return dict(db.execute("SELECT key, sha256 FROM response"))


def start_profile(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """`semalign profile` in a process of its own, as a user would start it; `environment` adds to that of the test."""
    return start("profile", folder, *arguments, environment=environment)


def start(
    command: str, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """The same for any command."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **(environment or {})}
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", command, "--json", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
