"""A run that would pay is not begun on a disk that could not keep its replies."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from servers.catalogue import write_catalogue
from servers.counting import counting_server

from flows import cli


def profile(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """(exit code, last line on standard error)."""
    capsys.readouterr()
    code = cli.run(["profile", "--json", "--config", str(folder), *words])
    return code, capsys.readouterr().err.strip().splitlines()[-1]


def test_T_K4_too_little_room_is_said_with_both_numbers_before_the_first_call(tmp_path, monkeypatch, capsys):
    free = [0]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=free[0]))
    with counting_server() as (url, server):
        write_catalogue(tmp_path, url, items=20, users=2)
        code, last = profile(tmp_path, capsys)
        assert code == 4 and server.requests == [] and not (tmp_path / "w" / "ledger.sqlite").exists()
        said = re.search(r"a run of 22 questions may need ([\d,]+) bytes, and 0 are free; nothing was sent", last)
        assert said and "[warehouse] root" in last and "resumable: semalign profile" in last, last
        needed = int(said[1].replace(",", ""))
        free[0] = needed - 1
        assert profile(tmp_path, capsys)[0] == 4 and server.requests == []
        free[0] = needed
        code, last = profile(tmp_path, capsys)
        assert code == 0 and len(server.requests) == 22, last
        grown = sum(path.stat().st_size for path in (tmp_path / "w").rglob("*") if path.is_file())
        print(f"{needed:,} bytes asked for, the whole warehouse takes {grown:,}")
        assert grown < needed
        free[0] = 0
        assert profile(tmp_path, capsys)[0] == 0, "nothing to ask, nothing to keep"
        assert profile(tmp_path, capsys, "--set", "profiles.engine={name='attributes'}")[0] == 0, "nothing is asked"
