"""Everything a run keeps of a user, paid replies and trained vectors included, is gone after forget-user and gc."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from servers.counting import chat, counting_server

import providers
from benchmarks.stand_ins import StandInEncoder
from flows import cli
from warehouse import Warehouse

CANARY = "user-canary-7781"
WORDS = "wordsofthecanary4419"


class LetterEncoder(StandInEncoder):
    """Counts of letters as unit vectors: deterministic and offline."""

    key, short_name, dim, model, dtype = "f" * 64, "letters", 26, "letters", "float32"

    def encode(self, texts, on_progress=None):
        counts = np.array([[text.lower().count(chr(97 + n)) + 0.1 for n in range(26)] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def quoting(number: int, asked: dict):
    """A profile that repeats what the question said in the canary's words, as a careless model would."""
    text = asked["messages"][-1]["content"]
    quoted = " ".join(sorted(set(re.findall(f"{WORDS}|{CANARY}", text)))) or "nothing special"
    said = f"Players who like calm puzzles and say {quoted}, as {len(text)} letters show."
    return chat(json.dumps({"reasoning": f"It says {quoted}.", "profile": said}))


def holds(root: Path) -> list[str]:
    """Files with the canary's id or words in any byte, or in any row where they are Parquet."""
    found = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
        if any(needle.encode() in content for needle in (CANARY, WORDS)):
            found.append(str(path.relative_to(root)))
    return found


def write_sources(folder: Path, url: str) -> None:
    """Twelve users, one of them the canary, whose reviews have words of their own."""
    items = [{"item_id": f"i{n}", "title": f"Game {n}", "genres": ["puzzle"]} for n in range(12)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items), encoding="utf-8")
    rows = ["user_id,item_id,text"]
    for place, user in enumerate([CANARY, *(f"u{n}" for n in range(11))]):
        review = WORDS if user == CANARY else f"review {place}"
        rows += [f"{user},i{(place + step) % 12},{review}" for step in range(6)]
    (folder / "rows.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    engine = f'{{ name = "openai", model = "tiny", base_url = "{url}", backoff_s = 0 }}'
    (folder / "semalign.toml").write_text(
        '[source]\nitems = "items.jsonl"\ninteractions = "rows.csv"\n'
        f'[profiles]\ndomain = "games"\nengine = {engine}\n[quality]\ntolerate = ["profile_shared"]\n'
        '[model]\nname = "dmrec"\n[training]\nepochs = 2\n[evaluation]\nbaselines = ["popularity"]\n'
        '[warehouse]\nroot = "w"\n',
        encoding="utf-8",
    )


@pytest.mark.full
def test_after_forget_user_and_gc_no_byte_under_the_root_holds_the_canary(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(providers, "parse_encoder", lambda settings: LetterEncoder())
    root = tmp_path / "w"
    with counting_server(quoting) as (url, _):
        write_sources(tmp_path, url)
        assert cli.run(["run"]) == 0
        # an older version, an imported table and an export name the user too
        assert cli.run(["export", "embeddings", "--kind", "user", "--output", "u.npy"]) == 0
        assert cli.run(["import", "u.npy", "--as", "copied", "--kind", "user"]) == 0
        before = holds(root)
        kinds = {name.split("/")[0] for name in before}
        assert {"tables", "ledger.sqlite", "models", "backups"} <= kinds, before
        assert cli.run(["forget-user", CANARY, "--yes"]) == 0
        assert cli.run(["gc", "--keep", "1", "--days", "0"]) == 0
        after = holds(root)
        assert after == [] and Warehouse(root).current() is not None
        capsys.readouterr()
        assert cli.run(["run"]) == 0
        assert holds(root) == []
    with capsys.disabled():
        where = ", ".join(sorted(kinds))
        print(f"forget-user: {len(before)} files held the canary before ({where}); 0 after, and 0 after a run")
