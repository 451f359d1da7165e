"""Pages that promise say what is tested: every promise names a test, and every test they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {
    name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("payment.md", "warehouse.md", "deploy.md")
}
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^ *def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}


def promises(name: str) -> list[str]:
    """The rows of all tables whose last column says what they are tested by."""
    rows, inside = [], False
    for line in PAGES[name].splitlines():
        if line.endswith("| tested by |"):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not set(line) <= set("|-: "):
            rows.append(line)
    return rows


ROWS = [(name, row) for name in PAGES for row in promises(name)]


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[row.split("|")[1].strip()[:60] for _, row in ROWS])
def test_a_promise_names_tests_that_exist(name, row):
    named = re.findall(r"`(test_\w+)`", row.split("|")[-2])
    assert named, f"a promise without a test: write the test, or take the promise out of docs/{name}"
    assert [name for name in named if name not in TESTS] == [], f"renamed or gone: docs/{name} still names it"


@pytest.mark.parametrize(("name", "at_least"), [("payment.md", 60), ("warehouse.md", 25), ("deploy.md", 5)])
def test_a_page_names_tests_only_beside_promises_and_never_promises_the_impossible(name, at_least):
    named = re.findall(r"test_\w+", PAGES[name])
    assert len(named) == sum(len(re.findall(r"test_\w+", row)) for row in promises(name)) > at_least
    assert "exactly once" not in PAGES[name].lower()
