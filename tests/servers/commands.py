"""A command of `semalign` in this process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flows import cli


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    """(exit code, JSON document or {}, last line on standard error)."""
    capsys.readouterr()
    code = cli.run([*words, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else {}, (err.strip().splitlines() or [""])[-1]
