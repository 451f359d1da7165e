"""The page about payment promises what is tested: every promise names a test, and every test it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "payment.md").read_text(encoding="utf-8")
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^ *def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}


def promises() -> list[str]:
    """The rows of all tables whose last column says what they are tested by."""
    rows, inside = [], False
    for line in PAGE.splitlines():
        if line.endswith("| tested by |"):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not set(line) <= set("|-: "):
            rows.append(line)
    return rows


@pytest.mark.parametrize("row", promises(), ids=lambda row: row.split("|")[1].strip()[:60])
def test_a_promise_names_tests_that_exist(row):
    named = re.findall(r"`(test_\w+)`", row.split("|")[-2])
    assert named, "a promise without a test: write the test, or take the promise out of docs/payment.md"
    assert [name for name in named if name not in TESTS] == [], "renamed or gone: docs/payment.md still names it"


def test_the_page_names_tests_only_beside_promises_and_never_promises_the_impossible():
    named = re.findall(r"test_\w+", PAGE)
    assert len(named) == sum(len(re.findall(r"test_\w+", row)) for row in promises()) > 60
    assert "exactly once" not in PAGE.lower()
